"""Locks on files in a folder that several machines may share; the system frees them when their owner dies."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from seqrec.data.errors import InputError

NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


@contextmanager
def held(path: Path) -> Iterator[bool]:
    """Whether the lock could be had; it is given back when the block ends, and by the system if the process is killed.

    Raises:
        InputError: the file system of the folder has no locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, fallback_to_soft=False)  # a soft lock outlives a process that is killed
    try:
        lock.acquire(blocking=False)
    except Timeout:
        yield False
        return
    except OSError as refusal:
        if refusal.errno not in NO_LOCKS:
            raise
        raise InputError(
            f"The file system of {path.parent} has no locks ({refusal.strerror}); put --runs on one that has, such as "
            "NFS 4."
        ) from None
    try:
        yield True
    finally:
        lock.release()


def is_held(path: Path) -> bool:
    """Whether some process, here or on another machine, has the lock now."""
    if not path.exists():
        return False
    with held(path) as mine:
        return not mine
