"""Files that appear whole or not at all, and the digests that recognise what they hold."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import polars as pl

# What reading a damaged file may raise: numpy, Arrow and polars raise whatever its bytes lead them to.
ANYTHING = (Exception, pl.exceptions.PanicException)


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file under a temporary name, send it to the disk, and only then give it its own name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with fresh.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(dict(content), indent=2, ensure_ascii=False) + "\n"
    write_whole(path, lambda file: file.write(text.encode()))


def read_json(path: Path, made_by: str) -> dict[str, Any]:
    """The object in a JSON file.

    Args:
        path: the file.
        made_by: the command that writes it, for the message.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a JSON object.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist. Run `{made_by}` first.")
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise ValueError(f"{path} is broken. Run `{made_by}` again.")
    return content


def file_digest(path: Path) -> str:
    """SHA-256 of the bytes of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(table: pl.DataFrame, array: np.ndarray | None = None) -> str:
    """SHA-256 over the names, types and values of the columns, text or whole numbers, and over the array."""
    digest = hashlib.sha256()
    for column in table:
        digest.update(f"{column.name} {column.dtype} {len(column)};".encode())
        if column.dtype == pl.String:
            digest.update(column.str.len_bytes().to_numpy().astype("<i8").tobytes())
            digest.update("".join(column).encode())
        else:
            digest.update(column.to_numpy().astype("<i8").tobytes())
    if array is None:
        return digest.hexdigest()
    digest.update(f"{array.dtype.str} {array.shape};".encode())
    for start in range(0, len(array), 65_536):
        digest.update(np.ascontiguousarray(array[start : start + 65_536]).data)
    return digest.hexdigest()
