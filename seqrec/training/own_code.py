"""Code that a config names by import path and that is not seqrec's: whose figures it makes must be known, too."""

from __future__ import annotations

import ast
import hashlib
import re
import site
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_IMPORT_PATH = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")


def own_code(config: Any) -> dict[str, str]:
    """SHA-256 of the sources of each module, or package, outside the installed ones that a config names; by its name.

    What it imports by a whole name and is not installed either counts with it. Nothing is imported here. A module that
    is not there is left out: whoever builds the model will say so.

    Args:
        config: plain values, as a config file holds them; keys count no more than values do.
    """
    named = sorted({text.partition(".")[0] for text in _strings(config) if _IMPORT_PATH.fullmatch(text)})
    return {name: _digest(_with_imported(sources)) for name in named if (sources := _sources(name))}


def _strings(part: Any) -> Iterator[str]:
    if isinstance(part, str):
        # A value on the command line may be JSON.
        yield from [part] if _IMPORT_PATH.fullmatch(part) else re.findall(r'"class_path": *"([^"]+)"', part)
    elif isinstance(part, Mapping):
        yield from (text for value in part.values() for text in _strings(value))
    elif isinstance(part, (list, tuple)):
        yield from (text for value in part for text in _strings(value))


def _sources(name: str) -> list[Path]:
    """The Python files of a module or package of someone's own; none of what is installed, of Python or of seqrec."""
    if name == "seqrec" or name in sys.stdlib_module_names:
        return []
    try:
        spec = find_spec(name)
    except (ImportError, ValueError):
        return []
    if spec is None:
        return []
    places = [Path(place) for place in spec.submodule_search_locations or [spec.origin or ""]]
    installed = [*site.getsitepackages(), sysconfig.get_path("stdlib")]
    if any(place.is_relative_to(path) for place in places for path in installed):
        return []
    files = [file for place in places for file in (sorted(place.rglob("*.py")) if place.is_dir() else [place])]
    return [file for file in files if file.is_file()]


def _with_imported(files: list[Path]) -> list[Path]:
    """The same files with those of other modules, not installed either, that they import, and so on."""
    found, ahead = dict.fromkeys(files), list(files)
    while ahead:
        for name in sorted(_imported(ahead.pop())):
            new = [file for file in _sources(name) if file not in found]
            found |= dict.fromkeys(new)
            ahead += new
    return list(found)


def _imported(file: Path) -> set[str]:
    """The outermost names of the modules that a file imports by whole names; none where it is not Python."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return set()
    nodes = list(ast.walk(tree))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    parts = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    return {name.partition(".")[0] for name in plain | parts}


def _digest(files: list[Path]) -> str:
    found = hashlib.sha256()
    for file in files:
        found.update(file.name.encode() + b"\0" + file.read_bytes())
    return found.hexdigest()
