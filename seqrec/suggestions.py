"""Turns what a config reader says about a mistake into one sentence that names what was probably meant."""

from __future__ import annotations

import ast
import difflib
import inspect
import re
from argparse import ArgumentError
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

import seqrec

_UNKNOWN_KEY = [
    re.compile(r"Key '([\w.+]+)' is not expected"),
    re.compile(r"does not accept option '([\w.+]+)'"),
    re.compile(r"Option '([\w.+]+)' is not accepted"),
    re.compile(r"No action for key \"([\w.+]+)\""),
    re.compile(r"[Uu]nrecognized arguments: --?([\w.+-]+)"),
    re.compile(r"Group '[\w.]+' does not accept nested key '([\w.+]+)'"),
    re.compile(r"does not accept nested key '([\w.+]+)'"),
]
_CLASS_PATH = re.compile(r"\b(seqrec(?:\.\w+)+)\b")


def sentence(error: BaseException, arguments: list[str]) -> str:
    """One sentence about an error of a command with these arguments, with the nearest valid name where one is near."""
    message = " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, ArgumentError):
        return message
    for path in _CLASS_PATH.findall(message):
        wrong = _wrong_class_path(path)
        if wrong:
            return wrong
    for pattern in _UNKNOWN_KEY:
        found = pattern.search(message)
        if found:
            return _wrong_key(found.group(1), arguments)
    return message


def _wrong_class_path(path: str) -> str | None:
    known = class_paths()
    modules = {name.rsplit(".", 1)[0] for name in known} | set(_modules())
    if path in known or path in modules or any(name.startswith(path + ".") for name in modules):
        return None
    close = difflib.get_close_matches(path, known, n=1, cutoff=0.6)
    by_name = difflib.get_close_matches(path.rsplit(".", 1)[-1], [k.rsplit(".", 1)[-1] for k in known], n=1)
    named = next((k for k in known if by_name and k.endswith("." + by_name[0])), None)
    meant = named or (close[0] if close else None)
    return f"There is no {path}." + (f" Did you mean {meant}?" if meant else "")


def _wrong_key(key: str, arguments: list[str]) -> str:
    known = _keys(arguments)
    close = difflib.get_close_matches(key.rsplit(".", 1)[-1].rstrip("+"), known, n=1, cutoff=0.6)
    return f"There is no key '{key}'." + (f" Did you mean '{close[0]}'?" if close else " See --help for all keys.")


def _keys(arguments: Iterable[str]) -> list[str]:
    """Names that may stand in a config: the arguments of the trainer, the data and every class that is mentioned."""
    from lightning import Trainer

    from seqrec.data.datamodule import SequenceDataModule
    from seqrec.training.task import NextItemTask

    text = " ".join(arguments)
    for word in arguments:
        file = Path(word.split("=", 1)[-1])
        if file.suffix in (".yaml", ".yml", ".json") and file.is_file():
            text += file.read_text()
    keys = ["trainer", "data", "model", "run", "config", "ckpt_path", "seed_everything", "early_stopping"]
    mentioned = [named for path in _CLASS_PATH.findall(text) if (named := _find(path)) is not None]
    for part in [Trainer, SequenceDataModule, NextItemTask, *mentioned]:
        keys += [name for name in inspect.signature(part).parameters if name != "self"]
    return list(dict.fromkeys(keys))


def _find(path: str) -> type | None:
    if path not in class_paths():
        return None
    module, name = path.rsplit(".", 1)
    return getattr(import_module(module), name)


def _modules() -> dict[str, Path]:
    root = Path(seqrec.__file__).parent
    found = {".".join(("seqrec", *file.relative_to(root).with_suffix("").parts)): file for file in root.rglob("*.py")}
    return {name.removesuffix(".__init__"): file for name, file in found.items()}


def class_paths() -> list[str]:
    """The import path of every public class of seqrec, read from the sources without importing them."""
    return [
        f"{module}.{part.name}"
        for module, file in _modules().items()
        for part in ast.parse(file.read_text()).body
        if isinstance(part, ast.ClassDef) and not part.name.startswith("_")
    ]
