"""Commands that change the same bundle take turns, so that none undoes what another did meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from seqrec.data.errors import InputError
from seqrec.data.folders import clear_leftovers


@contextmanager
def turn(folder: Path) -> Iterator[None]:
    """Wait until nobody else changes the bundle in this folder; others wait until the block ends.

    A lock beside the folder says so, which the system frees when its owner dies; a file that stands for one is no lock.

    Raises:
        InputError: no lock can be had there.
    """
    folder = folder.resolve()  # whatever link names it
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_name(f".{folder.name}.lock"), fallback_to_soft=False)
        lock.acquire()
    except (OSError, NotImplementedError) as error:
        raise InputError(
            f"{folder} could not be locked ({error}); choose a folder on a disk that has locks and can be written to."
        ) from error
    try:
        clear_leftovers(folder, alone=True)
        yield
    finally:
        lock.release()
