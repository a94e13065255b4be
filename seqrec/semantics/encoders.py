"""Who makes vectors of items and histories: encoders of texts, files of item vectors, and means of them."""

from __future__ import annotations

import hashlib
import re
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float
from torch.nn import functional as F

from seqrec.semantics.store import Store, key_of
from seqrec.semantics.subjects import Subjects
from seqrec.semantics.vector_files import read_vectors, vectors_of
from seqrec.semantics.vectors import check_quotes, quotes_of
from seqrec.semantics.writers import Estimate, Work

Read = Callable[[], list[str]]  # gives the texts of the subjects, put together only where they are wanted


class Encoder(ABC):
    """Makes one vector of each of some subjects."""

    reads_texts = False

    @abstractmethod
    def estimate(self, subjects: Subjects, texts: Read, work: Work) -> Estimate:
        """What encoding would take; asks nobody."""

    @abstractmethod
    def vectors(self, subjects: Subjects, texts: Read, work: Work) -> tuple[Float[np.ndarray, "V S"], dict[str, Any]]:
        """The vectors, float16 or float32, and what the record shall say of their making: ``encoder``, ``pooling``."""


class TextEncoder(Encoder):
    """Reads texts. Each text is encoded once and kept in the store under what encoded it.

    Args:
        half: whether numbers are kept in half precision; a number that does not fit into it is refused.
        keep_every: texts after which the store is written, at least 1; a killed program loses fewer than these.
    """

    reads_texts = True

    def __init__(self, half: bool = True, keep_every: int = 1024) -> None:
        if keep_every < 1:
            raise ValueError(f"keep_every is {keep_every}; it must be at least 1, e.g. 1024.")
        self.half = half
        self.keep_every = keep_every

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What decides the vector of a text: ``encoder``, ``pooling`` and the like."""

    @abstractmethod
    def encode(self, texts: list[str]) -> Float[np.ndarray, "n S"]:
        """One vector of each text."""

    def estimate(self, subjects: Subjects, texts: Read, work: Work) -> Estimate:
        return Estimate(len(subjects), len(self._store(work).missing(map(key_of, texts()))))

    def vectors(self, subjects: Subjects, texts: Read, work: Work) -> tuple[Float[np.ndarray, "V S"], dict[str, Any]]:
        store, words = self._store(work), texts()
        keys = [key_of(text) for text in words]
        made = self._make(store, keys, [words[row] for row in store.missing(keys)], work)
        return store.vectors(keys), {**self.identity(), **made}

    def _make(self, store: Store, keys: list[str], todo: list[str], work: Work) -> dict[str, Any]:
        """Keep the vectors of the texts that are to do, so that all keys have theirs; what the record shall say."""
        if todo:
            advance = work.begin(len(todo))
            for first in range(0, len(todo), self.keep_every):
                some = todo[first : first + self.keep_every]
                self._keep(store, [key_of(text) for text in some], self.encode(some))
                advance(len(some))
        return {}

    def _keep(self, store: Store, keys: list[str], vectors: Float[np.ndarray, "n S"], **columns: Any) -> None:
        with np.errstate(over="ignore"):
            kept = vectors.astype(np.float16 if self.half else np.float32)
        if not np.isfinite(kept).all():
            raise ValueError(
                "A vector has numbers that are not finite or too large for half precision; set half false."
            )
        store.append(pl.DataFrame({"key": keys, **columns}), kept)

    def _store(self, work: Work) -> Store:
        return Store(work.store, {"made": "vectors", "half": self.half, **self.identity()})


class HashingEncoder(TextEncoder):
    """Words into a fixed number of places, with signs, by their checksums: knows no meaning, needs nothing, for tests.

    Source: Weinberger et al., "Feature Hashing for Large Scale Multitask Learning", ICML 2009.

    Args:
        dim: numbers in a vector, at least 1.
        half: see ``TextEncoder``.
        keep_every: see ``TextEncoder``.
    """

    def __init__(self, dim: int = 256, half: bool = True, keep_every: int = 1024) -> None:
        super().__init__(half, keep_every)
        if dim < 1:
            raise ValueError(f"dim is {dim}; it must be at least 1, e.g. 256.")
        self.dim = dim

    def identity(self) -> dict[str, Any]:
        return {"encoder": {"name": "hashing", "dim": self.dim}, "pooling": "sum of words, unit length"}

    def encode(self, texts: list[str]) -> Float[np.ndarray, "n S"]:
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in re.findall(r"\w+", text.lower()):
                checksum = zlib.crc32(word.encode())
                vectors[row, (checksum >> 1) % self.dim] += 1 if checksum & 1 else -1
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


class VectorFile(Encoder):
    """Takes the vectors of items from a file, by raw id; it has none of histories.

    Args:
        path: file or folder, see ``seqrec.semantics.vector_files.read_vectors``.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def estimate(self, subjects: Subjects, texts: Read, work: Work) -> Estimate:
        self.vectors(subjects, texts, work)  # which only reads, and says what is wrong with the file
        return Estimate(len(subjects), 0)

    def vectors(self, subjects: Subjects, texts: Read, work: Work) -> tuple[Float[np.ndarray, "V S"], dict[str, Any]]:
        if subjects.kind != "items":
            raise ValueError(
                f"{self.path} has vectors of items, not of {subjects.kind}; take seqrec.semantics.encoders.MeanOfItems."
            )
        check_quotes(self.path, subjects.catalog)
        encoder = {"name": "vector file", "file": self.path.name, "digest": _digest(self.path)}
        record = {"encoder": encoder, "pooling": "as in the file", "quotes": quotes_of(self.path)}
        return vectors_of(self.path, subjects.ids["item_id"]), record


class MeanOfItems(Encoder):
    """The mean of the vectors of the newest items of a history: cheap, without any text or service.

    Source: the user vectors of Sheng et al., "Language Representations Can be What Recommenders Need: Findings and
    Potentials" (AlphaRec), ICLR 2025 (arXiv 2407.05441). Differs from it: only the newest items count.

    Args:
        path: file or folder of item vectors, see ``seqrec.semantics.vector_files.read_vectors``.
        newest: most items of a history that count, at least 1.
        half: whether the means are kept in half precision.
        centred: whether the mean of all item vectors is taken off first, without which long histories, whose means lie
            near that of all items, are everybody's neighbours.
    """

    def __init__(self, path: Path, newest: int = 20, half: bool = True, centred: bool = False) -> None:
        if newest < 1:
            raise ValueError(f"newest is {newest}; at least 1 item must count, e.g. 20.")
        self.path = Path(path)
        self.newest = newest
        self.half = half
        self.centred = centred

    def estimate(self, subjects: Subjects, texts: Read, work: Work) -> Estimate:
        vectors_of(self.path, subjects.catalog.ids)
        return Estimate(len(subjects), len(subjects))

    def vectors(self, subjects: Subjects, texts: Read, work: Work) -> tuple[Float[np.ndarray, "V S"], dict[str, Any]]:
        check_quotes(self.path, subjects.catalog)
        table = torch.from_numpy(vectors_of(self.path, subjects.catalog.ids).astype(np.float32))
        if self.centred:
            table -= table.mean(0)
        rows, first = (torch.from_numpy(each) for each in subjects.newest(self.newest))
        means = F.embedding_bag(rows, table, first, mode="mean").numpy()
        encoder = {"name": "mean of item vectors", "file": self.path.name, "digest": _digest(self.path)}
        pooling = f"mean of the newest {self.newest} items{', less the mean of all items' if self.centred else ''}"
        record = {"encoder": encoder, "pooling": pooling, "quotes": quotes_of(self.path)}
        return means.astype(np.float16 if self.half else np.float32), record


def _digest(path: Path) -> str:
    """SHA-256 of the ids and numbers of a file or folder."""
    ids, vectors = read_vectors(path)
    digest = hashlib.sha256("\0".join(ids).encode())
    digest.update(np.ascontiguousarray(vectors).data)
    return digest.hexdigest()
