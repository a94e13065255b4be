"""Folders that appear whole or not at all, whatever stops the program, and the digests that recognise their content."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from seqrec.data.errors import InputError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def whole_folder(folder: Path, mark: str) -> Iterator[Path]:
    """A temporary folder beside ``folder`` that takes its place when the block ends without an error.

    What a killed program left behind is cleared first.

    Args:
        folder: the final place. What stands there is replaced if it is empty or holds the file ``mark``.
        mark: name of a file by which a folder is known to be of this kind.

    Raises:
        InputError: something else stands there, or the disk refuses (full, read-only).
    """
    folder = folder.resolve()  # a link to a folder stays one
    clear_leftovers(folder)
    if folder.exists() and not (folder.is_dir() and ((folder / mark).is_file() or not any(folder.iterdir()))):
        raise InputError(
            f"{folder} holds something else than this command writes ({mark} is not there). Choose another folder with "
            "--out."
        )
    fresh, old = (folder.with_name(f"{folder.name}.{kind}-{os.getpid()}") for kind in ("tmp", "old"))
    try:
        fresh.mkdir(parents=True)
        yield fresh
        if folder.exists():
            folder.rename(old)
        try:
            fresh.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
    except OSError as error:
        remedy = "Free some space there, or choose another" if error.errno in DISK_FULL else "Choose another"
        raise InputError(
            f"{folder} could not be written ({error.strerror or error}). {remedy} folder with --out."
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)


def leftovers(folder: Path) -> list[Path]:
    """Temporary folders beside ``folder``, those that once stood in its place first."""
    return [
        found
        for kind in ("old", "tmp")
        for found in sorted(folder.parent.glob(f"{glob.escape(folder.name)}.{kind}-*"))
        if found.name.rpartition("-")[2].isdecimal()
    ]


def clear_leftovers(folder: Path, alone: bool = False) -> None:
    """Removes temporary folders beside ``folder`` whose program is no longer alive.

    One that stood in the place of ``folder`` comes back if its program ended before another took that place.

    Args:
        folder: the final place.
        alone: whether a lock keeps all others away, wherever they run, so that whatever is there was left behind.
    """
    for stale in leftovers(folder):
        pid = int(stale.name.rpartition("-")[2])
        # In a container, whoever was killed may have had the number that is one's own now.
        if alone or pid == os.getpid() or not psutil.pid_exists(pid):
            if stale.name.endswith(f".old-{pid}") and not folder.exists():
                with suppress(OSError):  # another program was quicker
                    stale.rename(folder)
            else:
                shutil.rmtree(stale, ignore_errors=True)


def write_whole(path: Path, text: str) -> None:
    """Write a text file that appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)


def digest_of_files(path: Path) -> str:
    """SHA-256 over the content of a file, or over the relative names and contents of all files of a folder."""
    files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        if path.is_dir():
            digest.update(file.relative_to(path).as_posix().encode() + b"\0")
        state = file.stat()
        digest.update(_digest_of(file.resolve(), state.st_mtime_ns, state.st_size))
    return digest.hexdigest()


@cache
def _digest_of(file: Path, mtime_ns: int, size: int) -> bytes:
    """SHA-256 of the content of a file, read anew once its time or size has changed."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").digest()


def name_of(prepared: Path) -> str:
    """What prepared data are called: as their folder, or as that of the data that they were poisoned or withheld of."""
    manifest = prepared / "manifest.json"
    told = json.loads(manifest.read_text(encoding="utf-8")) if manifest.is_file() else {}
    return told.get("name") or prepared.name


def digests_of_named(config: Any, data: str) -> dict[str, str]:
    """The digest of every file and folder that a config names by a path, prepared data apart, which have their own.

    Args:
        config: plain values.
        data: name of the prepared data, which ``{data}`` stands for.
    """
    found: dict[str, str] = {}
    if isinstance(config, Mapping):
        for key, value in config.items():
            if key.rpartition(".")[2] != "prepared":
                found |= digests_of_named(value, data)
    elif isinstance(config, (list, tuple)):
        for value in config:
            found |= digests_of_named(value, data)
    elif isinstance(config, str) and ("/" in config or os.sep in config):
        path = config.replace("{data}", data)
        found |= {path: digest_of_files(Path(path))} if Path(path).exists() else {}
    return found
