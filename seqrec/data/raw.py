"""Raw text files made ready to scan: found in a folder or archive, unpacked, decoded, and refused when broken."""

from __future__ import annotations

import ast
import codecs
import csv
import functools
import gzip
import io
import itertools
import json
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import IO, Any

from seqrec.data.errors import InputError
from seqrec.data.folders import DISK_FULL

_CHUNK = 1 << 20


@functools.cache
def _workspace() -> tempfile.TemporaryDirectory[str]:
    """Where unpacked copies live until the program ends; lazy frames read them after their source is gone."""
    return tempfile.TemporaryDirectory(prefix="seqrec-")


def find(raw: Path, patterns: Sequence[str]) -> str | None:
    """The file below a folder, or member of a zip, whose name matches the earliest pattern; ``None`` if none does.

    A file that is not a zip stands for itself. In a folder without such a file its zips are searched.

    Raises:
        InputError: there is nothing at ``raw``, or the zip is broken.
    """
    return _located(raw, patterns)[1]


def find_only(raw: Path, patterns: Sequence[str]) -> str | None:
    """``find``, where no other file may match that pattern; one that is also there gzipped is one.

    Raises:
        InputError: as ``find``, and where several match.
    """
    name = find(raw, patterns)
    if name is not None and raw.is_dir():
        pattern = next(pattern for pattern in patterns if fnmatch(Path(name).name, pattern))
        matching = {path.name.removesuffix(".gz") for path in raw.rglob(pattern) if path.suffix != ".part"}
        if len(matching) > 1:
            raise InputError(
                f"{raw} holds {', '.join(sorted(matching))}, of which one can be read; name that one alone."
            )
    return name


def _located(raw: Path, patterns: Sequence[str]) -> tuple[Path, str | None]:
    """The folder, zip or file that holds a match, and the name of the match within it."""
    if not raw.exists():
        raise InputError(f"{raw} does not exist; give the file or folder that holds the raw data.")
    if raw.is_dir():
        names = sorted(
            str(path.relative_to(raw)) for path in raw.rglob("*") if path.is_file() and path.suffix != ".part"
        )
    elif raw.suffix == ".zip":
        with _archive(raw) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
    else:
        return raw, raw.name
    for pattern in patterns:
        for name in names:
            if fnmatch(Path(name).name, pattern):
                return raw, name
    inner = sorted(raw.glob("*.zip"))
    return next((found for found in (_located(path, patterns) for path in inner) if found[1]), (raw, None))


def text_file(raw: Path, patterns: Sequence[str], encoding: str = "utf-8") -> Path:
    """Path of a UTF-8 text without byte-order mark that holds what the file matching ``patterns`` holds.

    It is the file itself where nothing has to change, otherwise a temporary copy: unpacked (zip, gzip) and decoded.

    Raises:
        InputError: no file matches, it is empty, its archive is cut short, or it is not in the encoding (with line).
    """
    raw, name = _located(raw, patterns)
    if name is None:
        raise InputError(f"{raw} has no file named {' or '.join(patterns)}; give the folder or zip that holds it.")
    plain = raw.suffix != ".zip" and not name.endswith(".gz")
    path = raw / name if raw.is_dir() else raw
    with _opened(raw, name) as source:
        texts = _decoded(source, encoding, path)
        if plain and encoding == "utf-8" and not _starts_with_bom(path):
            for _ in texts:
                pass
            return path
        suffix = Path(name.removesuffix(".gz")).suffix
        with _copy_of(path, suffix) as copy:
            for text in texts:
                copy.write(text.encode())
        return Path(copy.name)


def header(text: Path, separator: str, path: Path) -> list[str]:
    """Column names of the delimited ``text`` that was made from ``path``.

    Raises:
        InputError: two columns have the same name, or a quotation mark is not closed.
    """
    with text.open(newline="", encoding="utf-8") as file:
        try:
            names = next(csv.reader(file, delimiter=separator, strict=True))
        except csv.Error as error:
            raise InputError(f"{path} opens a quotation mark in line 1 and does not close it; repair it.") from error
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{path} has {names.count(name)} columns named '{name}'; rename or remove all but one.")
    return names


def fault(text: Path, separator: str, is_quoted: bool) -> str | None:
    """What is wrong with the first malformed row of delimited ``text``, with its line; ``None`` if nothing is found."""
    line, width, quoting = 1, 0, csv.QUOTE_MINIMAL if is_quoted else csv.QUOTE_NONE
    with text.open(newline="", encoding="utf-8") as file:
        rows = csv.reader(file, delimiter=separator, quoting=quoting, strict=True)
        try:
            for row in rows:
                width = width or len(row)
                if len(row) > width:
                    return f"{len(row)} fields at line {line} where line 1 has {width}; remove what is too much"
                line = rows.line_num + 1
        except csv.Error:
            return f"a quotation mark at line {line} that is not closed; close it, or double it if it is part of a text"
        file.seek(0)
        stray = next((number for number, row in enumerate(file, start=1) if row.count('"') % 2), None)
    return None if stray is None else f"a stray quotation mark at line {stray}; remove it"


def fields(text: Path, path: Path, n_lines: int = 1000) -> list[str]:
    """Names of the fields in the first objects of the JSON lines ``text`` that was made from ``path``.

    Raises:
        InputError: a line is not a JSON object.
    """
    names: dict[str, None] = {}
    with text.open(encoding="utf-8") as file:
        for number, line in enumerate(itertools.islice(file, n_lines), start=1):
            if line.strip():
                names |= dict.fromkeys(json_object(line, number, path))
    return list(names)


def json_object(line: str, number: int, path: Path) -> dict[str, Any]:
    """The object that a line holds, in JSON or (as in the Amazon data of 2014) as Python writes it.

    Raises:
        InputError: the line is not an object.
    """
    try:
        value = json.loads(line)
    except json.JSONDecodeError:
        try:
            value = ast.literal_eval(line)
        except (ValueError, SyntaxError):
            value = None
    if not isinstance(value, dict):
        raise InputError(f"{path} is not JSON lines at line {number}; write one JSON object per line.")
    return value


def rewritten(text: Path, path: Path, row: Callable[[dict[str, Any]], dict[str, Any]]) -> Path:
    """A temporary file of JSON lines with ``row`` of every object of the JSON lines ``text`` made from ``path``."""
    with text.open(encoding="utf-8") as lines, _copy_of(path, ".jsonl") as copy:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                copy.write(json.dumps(row(json_object(line, number, path))).encode() + b"\n")
    return Path(copy.name)


@contextmanager
def _copy_of(path: Path, suffix: str) -> Iterator[IO[bytes]]:
    """A temporary file for what is made of ``path``.

    Raises:
        InputError: the disk of temporary files is full.
    """
    try:
        with tempfile.NamedTemporaryFile(dir=_workspace().name, suffix=suffix, delete=False) as copy:
            yield copy
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        raise InputError(
            f"{tempfile.gettempdir()} has no room for an unpacked copy of {path} ({error.strerror}). "
            "Free some space there, or set TMPDIR to another folder."
        ) from error


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except zipfile.BadZipFile as error:
        raise InputError(f"{path} is not a complete zip archive ({error}); download it again.") from error


@contextmanager
def _opened(raw: Path, name: str) -> Iterator[io.BufferedIOBase]:
    """The bytes of a file with any zip and gzip taken off."""
    if raw.suffix == ".zip":
        with _archive(raw) as archive, archive.open(name) as member:
            yield _unzipped(member) if name.endswith(".gz") else member  # pyright: ignore
        return
    with (raw / name if raw.is_dir() else raw).open("rb") as file:
        yield _unzipped(file) if name.endswith(".gz") else file


def _unzipped(file: io.BufferedIOBase) -> io.BufferedIOBase:
    return gzip.GzipFile(fileobj=file)  # pyright: ignore[reportArgumentType]


def _starts_with_bom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(3) == codecs.BOM_UTF8


def _decoded(source: io.BufferedIOBase, encoding: str, path: Path) -> Iterator[str]:
    """The text of ``source`` in pieces, without byte-order mark."""
    decoder = codecs.getincrementaldecoder("utf-8-sig" if encoding == "utf-8" else encoding)()
    lines, is_blank = 1, True
    try:
        while chunk := source.read(_CHUNK):
            text = decoder.decode(chunk)
            is_blank = is_blank and not text.strip()
            lines += text.count("\n")
            yield text
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        line = lines + error.object[: error.start].count(b"\n")
        raise InputError(f"{path} is not UTF-8 at line {line}; save it as UTF-8.") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path} is cut short or not a gzip file ({error}); download it again.") from error
    if is_blank:
        raise InputError(f"{path} is empty; give a file with at least one interaction or item.")
