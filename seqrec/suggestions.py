"""Turns what a config reader says about a mistake into one sentence that names what was probably meant."""

from __future__ import annotations

import ast
import difflib
import inspect
import re
import sys
import traceback
from argparse import ArgumentError
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import packages_distributions, requires
from pathlib import Path
from textwrap import dedent

import yaml

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
_OWN_CLASS = re.compile(r"\b((?:[a-z_]\w*\.)+[A-Z]\w*)\b")

# What the reader of configs puts around the sentence that matters, from the outside in.
_AROUND = re.compile(
    r"\s*(?:- Expected a path but .*\n\s*- |Parser key \"(?P<key>[^\"]+)\":|Problem with given class_path '[^']+':"
    r"|Type \S.*? expects a function or a callable class:)"
)
_ALTERNATIVES = re.compile(
    r"\s*Does not validate against any of the Union subtypes\nSubtypes: [^\n]*\nErrors:\n(?P<errors>.*)"
    r"\nGiven value type: [^\n]*\nGiven value: (?P<value>.*)",
    re.DOTALL,
)
_NESTED = re.compile(r"NestedArg\(key='(?P<key>[^']+)', val=(?P<value>.*)\)$")
_GOT = re.compile(r"\. Got value: (?P<value>.*?)(?=\. Got value: |$)", re.DOTALL)
_OF_A_TYPE = re.compile(r"Expected an? (?:<class|typing\.|collections\.)")
_LISTED = 7  # more names than this are not read
_TYPES = {"int": "a whole number", "float": "a number", "bool": "true or false", "NoneType": "null"}
_SECTIONS = ("trainer", "data", "model", "early_stopping")
_EXAMPLE = "configs/model/sasrec.yaml"
_EXTRAS = {"wandb": "track", "mlflow": "track"}


@dataclass(frozen=True)
class Complaint:
    """The innermost thing that a reader of configs complains of.

    Attributes:
        key: where, as a dotted key; empty where it does not say.
        words: what.
        value: the value that was found, as text; empty where it does not say.
        nested: a key below this one that was given; empty where none was.
    """

    key: str
    words: str
    value: str = ""
    nested: str = ""

    @classmethod
    def inside(cls, text: str) -> Complaint:
        """What is left of a message without the nest of types around it.

        Of several types that would do, the first counts that says more of the value than that it is another type.
        """
        keys, value, nested = [], "", ""
        while True:
            text = dedent(text)
            if around := _AROUND.match(text):
                keys += [around["key"]] if around["key"] else []
                text = text[around.end() :]
            elif either := _ALTERNATIVES.match(text):
                value, nested = either["value"].strip(), ""
                if within := _NESTED.match(value):
                    nested, value = within["key"], within["value"].strip("'")
                each = re.split(r"^- ", dedent(either["errors"]), flags=re.MULTILINE)[1:]
                text = next((one for one in each if not _OF_A_TYPE.match(one)), "\n".join(each))
                if text == "\n".join(each):
                    break
            else:
                break
        if got := _GOT.search(text):
            value, text = got["value"], text[: got.start()]
        return cls(".".join(keys), " ".join(text.split()), value, nested)


def sentence(error: BaseException, arguments: Sequence[str]) -> str:
    """One sentence about an error of a command with these arguments, with the nearest valid name where one is near."""
    found = Complaint.inside(str(error))
    said = _of_a_package(found) or _of_a_class(found) or _of_a_value(found) or _of_a_file(found, arguments)
    if said is None and isinstance(error, ArgumentError):
        message = " ".join(str(error).split())
        said = next(filter(None, map(_wrong_class_path, _CLASS_PATH.findall(message))), None)
        for pattern in _UNKNOWN_KEY:
            unknown = pattern.search(message)
            said = said or (unknown and _of_another_class(unknown, found, arguments))
            said = said or (unknown and _wrong_key(unknown.group(1), arguments))
        said = said or _of_what_is_missing(found, arguments)
        said = said or (f"{found.key}: {found.words}" if found.key else None)
    return (said or found.words or type(error).__name__) + _where(error)


def _where(error: BaseException | None) -> str:
    """The line of someone's own code that it came from, if it did; seqrec, Python and what is installed are not, and
    nor is what was compiled elsewhere, whose files are not here."""
    others = (str(Path(seqrec.__file__).parent), sys.prefix, sys.base_prefix, "<", sys.argv[0])
    while error is not None:
        frames = traceback.extract_tb(error.__traceback__)
        own = [each for each in frames if not each.filename.startswith(others) and Path(each.filename).is_file()]
        if own:
            return f" ({own[-1].filename}, line {own[-1].lineno})"
        error = error.__cause__ or error.__context__
    return ""


def _of_a_package(found: Complaint) -> str | None:
    missing = re.match(r"(Requirement|No module named) '([\w-]+)", found.words)
    if missing is None or missing[2] == "seqrec":
        return None
    name = missing[2]
    if missing[1] != "Requirement" and name not in _EXTRAS and name.replace("_", "-") not in _required():
        return (
            f"There is no module {name}; start seqrec in the folder that holds it, name that folder in PYTHONPATH, or "
            "install the package that it belongs to."
        )
    package = f"'seqrec[{_EXTRAS[name]}]'" if name in _EXTRAS else name
    return f"This needs {name}, which is not installed; run pip install {package}."


def _required() -> set[str]:
    """The modules of the packages that seqrec asks for, with all its extras."""
    asked = {re.split(r"[^\w-]", line, maxsplit=1)[0].lower() for line in requires("seqrec") or []}
    return asked | {module.replace("_", "-") for module, names in packages_distributions().items() if asked & {*names}}


def _of_a_class(found: Complaint) -> str | None:
    if re.search(r"arguments are required: (\w+, )*recommender\b", found.words):
        return f"No model was given; name one, such as --config {_EXAMPLE}."
    if unknown := re.match(r"Expected a dot import path string: (\S+)", found.words):
        return f"{found.key}: {_wrong_class_path(unknown[1])}"
    if abstract := re.match(r"Expected an instantiatable class, but ((?:\w+\.)+(\w+)) is abstract", found.words):
        base = _find(abstract[1])
        named = difflib.get_close_matches(found.nested, inspect.signature(base).parameters if base else [], n=1)
        of = f" before its {named[0] if named else found.nested}" if found.nested else ""
        return f"{found.key} has no class yet: set {found.key}{of}, to {_one_of(class_paths(abstract[2]))}."
    if other := re.match(r"Import path (?:(\S+) )?does not correspond to a subclass of (\w+)", found.words):
        one, kind = other[1] or found.value, other[2]
        return f"{found.key} is {one}, which is no {kind}; give {_one_of(class_paths(kind)) or f'a {kind}'}."
    return None


def _of_what_is_missing(found: Complaint, arguments: Sequence[str]) -> str | None:
    from seqrec.cli import COMMANDS

    command = arguments[0] if arguments else ""
    by_place = command in COMMANDS and COMMANDS[command].by_place
    if missing := re.match(r"the following arguments are required: (.+)", found.words):
        within = f"{found.key}." if found.key else ""
        names = [within + name.removeprefix(f"{command}.") for name in missing[1].split(", ")]
        how = f"`seqrec {command} {' '.join(names).upper()}`" if by_place else f"--{' and --'.join(names)}"
        return f"`seqrec {command}` needs {' and '.join(names)}; give {how}."
    if extra := re.match(r"unrecognized arguments: ([^-].*)", found.words, re.IGNORECASE):
        return f"There is no place for '{extra[1]}' in `seqrec {command}`; see `seqrec {command} --help`."
    return None


def _of_a_value(found: Complaint) -> str | None:
    choices = re.findall(
        r"Expected a member of <enum '\w+'>: \{(.*?)\}|Expected a typing\.Literal\[(.*?)\]", found.words
    )
    names = [name.strip(" '") for one, other in choices for name in (one or other).split(",")]
    if names:
        close = difflib.get_close_matches(found.value, names, n=1, cutoff=0.5)
        meant = f" Did you mean '{close[0]}'?" if close else ""
        return f"{found.key} is '{found.value}', but must be one of {', '.join(names)}.{meant}"
    types: list[str] = re.findall(r"Expected an? <class '(?:\w+\.)*(\w+)'>", found.words)
    if types:
        return f"{found.key} is '{found.value}', but must be {' or '.join(_TYPES.get(name, name) for name in types)}."
    return None


def _of_a_file(found: Complaint, arguments: Sequence[str]) -> str | None:
    if missing := re.match(r"File does not exist: '(.+)'", found.words):
        path = Path(missing[1])
        siblings = [file.name for file in path.parent.glob("*")]
        close = difflib.get_close_matches(path.name, siblings, n=1, cutoff=0.6)
        here = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        return f"There is no file {here}." + (f" Did you mean {here.with_name(close[0])}?" if close else "")
    if re.match(
        r"Unexpected config: |Unable to load config|Problems parsing config: |'utf-8' codec can't", found.words
    ):
        wrong = next((file for file in _files(arguments) if not _is_config(file)), None)
        if wrong is not None and wrong.suffix in (".yaml", ".yml"):
            return f"{wrong} is not a config of keys and values; correct it: {found.words.split(': ', 1)[-1][:200]}."
        if wrong is not None:
            return f"{wrong} is not a config, which is YAML of keys and values; give --config such as {_EXAMPLE}."
    return None


def _one_of(names: Sequence[str]) -> str:
    if len(names) > _LISTED:
        names = [*names[: _LISTED - 1], f"one of {len(names) - _LISTED + 1} others"]
    return " or ".join(filter(None, (", ".join(names[:-1]), "".join(names[-1:]))))


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


def _of_another_class(unknown: re.Match[str], found: Complaint, arguments: Sequence[str]) -> str | None:
    """What is said of a key that is spelt right, but given to a class that does not take it."""
    key = unknown[1].rstrip("+").split(".")[0]
    told = re.search(r"class_path '(?:\w+\.)*(\w+)': $", unknown.string[: unknown.start()])
    told = told or re.search(r".*class_path='(?:\w+\.)*(\w+)'", found.value)
    if told is None or key not in _keys(arguments):
        return None
    return f"{told[1]} takes no {key}; leave it out, or choose another {found.key} that takes one."


def _wrong_key(key: str, arguments: Sequence[str]) -> str:
    known = _keys(arguments)
    first, *rest = [part.replace("-", "_") for part in key.rstrip("+").split(".")]
    at_the_top = [name for name in known if name in _SECTIONS] if rest else known
    close = [difflib.get_close_matches(first, at_the_top, n=1, cutoff=0.6)]
    close += [difflib.get_close_matches(part, known, n=1, cutoff=0.6) for part in rest]
    if [first] in close and not rest:
        return f"{first} is given by its place, without a name: `seqrec {arguments[0]} {first.upper()}`."
    if not all(close):
        return f"There is no key '{key}'. See --help for all keys."
    return f"There is no key '{key}'. Did you mean '{'.'.join(names[0] for names in close)}'?"


def _keys(arguments: Sequence[str]) -> list[str]:
    """Names that may be given: a command's parameters, or the arguments of the trainer, the data and every class that
    is mentioned."""
    from seqrec.cli import COMMANDS, load

    if arguments and arguments[0] in COMMANDS:
        return list(inspect.signature(load(arguments[0])).parameters)
    from lightning import Trainer
    from lightning.pytorch.callbacks import EarlyStopping

    from seqrec.data.datamodule import SequenceDataModule
    from seqrec.training.task import NextItemTask

    text = " ".join([*arguments, *(file.read_text() for file in _files(arguments))])
    keys = [*_SECTIONS, "run", "config", "ckpt_path", "starts_from", "seed_everything", "class_path", "init_args"]
    mentioned = [named for path in _CLASS_PATH.findall(text) if (named := _find(path)) is not None]
    mentioned += [named for path in _OWN_CLASS.findall(text) if (named := _find_own(path)) is not None]
    for part in [Trainer, SequenceDataModule, NextItemTask, EarlyStopping, *mentioned]:
        keys += [name for name in inspect.signature(part).parameters if name != "self"]
    return list(dict.fromkeys(keys))


def _files(arguments: Iterable[str]) -> list[Path]:
    """The config files among the arguments."""
    pairs = zip(["", *arguments], arguments, strict=False)
    named = [word.removeprefix("--config=") for before, word in pairs if "--config" in (before, word.split("=")[0])]
    return [Path(name) for name in named if Path(name).is_file()]


def _is_config(file: Path) -> bool:
    try:
        return isinstance(yaml.safe_load(file.read_text()), dict)
    except (yaml.YAMLError, UnicodeDecodeError):
        return False


def _find(path: str) -> type | None:
    if path not in class_paths():
        return None
    module, name = path.rsplit(".", 1)
    return getattr(import_module(module), name)


def _find_own(path: str) -> type | None:
    """The class of someone's own that is meant; only of modules that reading the configs has imported."""
    module, name = path.rsplit(".", 1)
    found = None if module.startswith("seqrec") else getattr(sys.modules.get(module), name, None)
    return found if isinstance(found, type) else None


def _modules() -> dict[str, Path]:
    root = Path(seqrec.__file__).parent
    found = {".".join(("seqrec", *file.relative_to(root).with_suffix("").parts)): file for file in root.rglob("*.py")}
    return {name.removesuffix(".__init__"): file for name, file in found.items()}


def class_paths(base: str | None = None) -> list[str]:
    """The import path of every public class of seqrec, or of the concrete ones below this base class, read from the
    sources without importing them."""
    parts = {
        f"{module}.{part.name}": {ast.unparse(above).split("[")[0] for above in part.bases}
        for module, file in _modules().items()
        for part in ast.parse(file.read_text()).body
        if isinstance(part, ast.ClassDef) and not part.name.startswith("_")
    }
    if base is None:
        return sorted(parts)
    below, more = {base}, {base}
    while more:
        more = {path.rsplit(".", 1)[1] for path, bases in parts.items() if bases & more} - below
        below |= more
    return sorted(path for path, bases in parts.items() if bases & below and ".base." not in path)
