"""Embeddings that are built to be filled from stored weights, which bring all that files would."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_files = ContextVar("files", default=True)


@contextmanager
def from_weights_alone() -> Iterator[None]:
    """Until the block ends, embeddings that are built open no file, as if it were absent."""
    before = _files.set(False)
    try:
        yield
    finally:
        _files.reset(before)


def opens_files() -> bool:
    """Whether an embedding that is built now may open files."""
    return _files.get()
