"""What was computed or paid for once, kept by content: what made it, and the text it was made of, name it."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from seqrec.semantics.files import write_json, write_whole

_IDENTITY = "identity.json"


def key_of(text: str) -> str:
    """SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


class Store:
    """An append-only set of segments for everything that one identity made; another identity has another folder.

    A segment is a Parquet file with a line per key and, for vectors, a memory-mapped array beside it. Both carry the
    digest of their content in their names. The Parquet file comes last and is what makes a segment: a program that is
    killed leaves whole segments, and files that nobody reads. Several programs may append at once.

    Args:
        folder: the store of many identities.
        identity: what decides the results besides the text: prompt version, model, pooling and the like.

    Raises:
        ValueError: a segment is not what was written.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        canonical = json.dumps(identity, sort_keys=True, ensure_ascii=False)
        self.folder = folder / key_of(canonical)[:32]
        self._identity = dict(identity)
        known = self.folder / _IDENTITY
        try:
            intact = not known.is_file() or json.loads(known.read_bytes()) == json.loads(canonical)
        except ValueError:
            intact = False
        if not intact:
            raise ValueError(f"{known} is not what was written. Delete it, and it alone; it is then written anew.")
        self._tables: list[pl.DataFrame] = []
        self._vectors: list[tuple[Path, tuple[int, ...], np.dtype]] = []
        self._place_of: dict[str, tuple[int, int]] = {}
        for segment in sorted(self.folder.glob("*-*.parquet")):
            self._read(segment)

    def __len__(self) -> int:
        return len(self._place_of)

    def missing(self, keys: Iterable[str]) -> list[int]:
        """The first place of each key that is not in the store."""
        first: dict[str, int] = {}
        for place, key in enumerate(keys):
            if key not in self._place_of:
                first.setdefault(key, place)
        return list(first.values())

    def append(self, table: pl.DataFrame, vectors: Float[np.ndarray, "n S"] | None = None) -> None:
        """Keep one more segment: ``table`` has a column ``key`` and others, ``vectors`` a row for each of its lines."""
        if not (self.folder / _IDENTITY).is_file():
            write_json(self.folder / _IDENTITY, self._identity)
        number = f"{len(self._tables):06d}"
        note = {}
        if vectors is not None:
            buffer = io.BytesIO()
            np.save(buffer, vectors, allow_pickle=False)
            note = {"vectors": _named(number, buffer.getvalue(), ".npy")}
            write_whole(self.folder / note["vectors"], lambda file: file.write(buffer.getvalue()))
        sink = io.BytesIO()
        pq.write_table(table.to_arrow().replace_schema_metadata(note), sink)
        segment = self.folder / _named(number, sink.getvalue(), ".parquet")
        write_whole(segment, lambda file: file.write(sink.getvalue()))
        self._read(segment)

    def lines(self, keys: Iterable[str]) -> pl.DataFrame:
        """The lines of these keys, all of which are in the store, in their order."""
        places = [self._place_of[key] for key in keys]
        starts = np.cumsum([0, *(table.height for table in self._tables)])
        rows = [int(starts[segment]) + row for segment, row in places]
        return pl.concat(self._tables)[rows] if rows else pl.DataFrame()

    def vectors(self, keys: Sequence[str]) -> Float[np.ndarray, "n S"]:
        """The vectors of these keys, all of which are in the store, in their order."""
        places = np.array([self._place_of[key] for key in keys], dtype=np.int64).reshape(-1, 2)
        widths = {shape[1] for _, shape, _ in self._vectors}
        if len(widths) > 1:
            raise ValueError(f"{self.folder} has vectors of the widths {sorted(widths)}. Name another --store.")
        found = np.empty(
            (len(keys), widths.pop() if widths else 0), self._vectors[0][2] if self._vectors else np.float32
        )
        for segment in np.unique(places[:, 0]):
            here = np.flatnonzero(places[:, 0] == segment)
            # Mapped for this alone: a store of many segments would hold a file open for each.
            found[here] = np.load(self._vectors[segment][0], mmap_mode="r")[places[here, 1]]
        return found

    def _read(self, segment: Path) -> None:
        makes_it = segment.name
        try:
            content = _checked(segment)
            table = pq.read_table(io.BytesIO(content))
            beside = (table.schema.metadata or {}).get(b"vectors")
            vectors = None
            if beside is not None:
                segment = self.folder / beside.decode()
                _checked(segment)
                array = np.load(segment, mmap_mode="r")
                vectors = segment, array.shape, array.dtype
                del array
        except (FileNotFoundError, ValueError, pa.ArrowException) as error:
            raise ValueError(
                f"{segment} is missing or not what was written. Delete {makes_it} in {self.folder}; what it held is "
                "then made anew."
            ) from error
        number = len(self._tables)
        lines = pl.DataFrame(pl.from_arrow(table))
        self._tables.append(lines)
        self._vectors += [] if vectors is None else [vectors]
        for row, key in enumerate(lines["key"]):
            self._place_of.setdefault(key, (number, row))


def _named(number: str, content: bytes, ending: str) -> str:
    return f"{number}-{hashlib.sha256(content).hexdigest()[:32]}{ending}"


def _checked(path: Path) -> bytes:
    """The content of a file whose name says its digest."""
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest()[:32] != path.stem.split("-")[1]:
        raise ValueError("another digest")
    return content
