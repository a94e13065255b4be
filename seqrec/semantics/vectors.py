"""Vectors of texts on disk: one per item or per history, memory-mapped, with raw ids and the record of their making."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float

from seqrec.catalog import Catalog
from seqrec.semantics.files import ANYTHING, file_digest, fingerprint, read_json, write_json, write_whole

SCHEMA_VERSION = 1
IDS, VECTORS, MANIFEST = "ids.parquet", "vectors.npy", "manifest.json"
COLUMNS = {
    "items": {"item_id": pl.String},
    "histories": {"user_id": pl.String, "n_events": pl.Int64},
}
_MADE_BY = "seqrec embed"


@dataclass(frozen=True)
class Vectors:
    """One vector for each of V items or histories.

    Attributes:
        ids: one line per vector, in row order. Of items: ``item_id``, the raw id. Of histories: ``user_id``, the raw
            id, and ``n_events``, how many events of the user are read, counted from the first one of the log.
        vectors: memory-mapped, float16 or float32, as the encoder gave them.
        manifest: how they were made: ``kind`` (items or histories), ``encoder``, ``prompt_version``, ``pooling``,
            ``text_source``, ``dataset`` (fingerprint of the prepared data), ``target_hash`` (of the split),
            ``training`` (see ``training_of``), ``quotes`` (most training histories behind the text of an item),
            ``fingerprint`` (SHA-256 of ids and vectors) and more.
    """

    ids: pl.DataFrame
    vectors: Float[np.ndarray, "V S"]
    manifest: dict[str, Any]

    def __len__(self) -> int:
        return self.ids.height

    @classmethod
    def open(cls, folder: str | Path) -> Vectors:
        """Memory-map a folder that ``write_vectors`` wrote, after ids and vectors were compared with their fingerprint.

        Raises:
            FileNotFoundError: there is no such folder, or it was not written to its end.
            ValueError: a file is broken or of a newer seqrec, or ids and vectors are not those of the manifest.
        """
        folder = Path(folder)
        manifest = read_json(folder / MANIFEST, _MADE_BY)
        if not {"kind", "fingerprint", "schema_version"} <= manifest.keys():
            raise ValueError(f"{folder} holds no vectors of texts. Name a folder that `{_MADE_BY}` wrote.")
        if manifest["schema_version"] > SCHEMA_VERSION:
            raise ValueError(
                f"{folder} has schema version {manifest['schema_version']}, this seqrec reads up to {SCHEMA_VERSION}. "
                "Update seqrec."
            )
        try:
            ids = pl.read_parquet(folder / IDS)
            vectors = np.load(folder / VECTORS, mmap_mode="r")
            intact = fingerprint(ids, vectors) == manifest["fingerprint"]
        except ANYTHING:
            intact = False
        if not intact:
            raise ValueError(
                f"{folder} is not what was written there: {IDS} or {VECTORS} is missing or changed. "
                f"Run the `{_MADE_BY}` that wrote it again; what is in the store is not computed anew."
            )
        return cls(ids, vectors, manifest)


def write_vectors(
    folder: Path, ids: pl.DataFrame, vectors: Float[np.ndarray, "V S"], manifest: Mapping[str, Any]
) -> None:
    """Write the folder that ``Vectors.open`` reads; one without its manifest, which comes last, is not read.

    Args:
        folder: where; older vectors there are replaced.
        ids: one line per vector with the columns of its kind, see ``Vectors``; no id comes twice.
        vectors: float16 or float32, all finite.
        manifest: how they were made, at least ``kind``; schema version, shape, fingerprint and ``alike``, how many
            equal another, are added.

    Raises:
        ValueError: ids, vectors and kind do not belong together, an id comes twice, or a number is not finite.
    """
    wanted = COLUMNS[manifest["kind"]]
    if dict(ids.schema) != wanted:
        raise ValueError(f"Vectors of {manifest['kind']} need the columns {wanted}; found {dict(ids.schema)}.")
    if ids.height != len(vectors) or vectors.dtype not in (np.float16, np.float32):
        raise ValueError(
            f"There are {ids.height:,} ids and {len(vectors):,} vectors of {vectors.dtype}; give as many vectors as "
            "ids, as float16 or float32."
        )
    if twice := ids.filter(ids.is_duplicated()).head(1).rows():
        raise ValueError(f"The id {twice[0]} comes more than once; give each one vector.")
    for start in range(0, len(vectors), 65_536):
        broken = np.flatnonzero(~np.isfinite(vectors[start : start + 65_536]).all(1))
        if broken.size:
            raise ValueError(f"The vector of {ids.row(start + int(broken[0]))} has numbers that are not finite.")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    write_whole(folder / IDS, ids.write_parquet)
    write_whole(folder / VECTORS, lambda file: np.save(file, vectors, allow_pickle=False))
    write_json(
        folder / MANIFEST,
        {
            "schema_version": SCHEMA_VERSION,
            **manifest,
            "rows": len(vectors),
            "dim": vectors.shape[1],
            "dtype": str(vectors.dtype),
            "alike": _alike(vectors),
            "fingerprint": fingerprint(ids, vectors),
        },
    )


def _alike(vectors: Float[np.ndarray, "V S"]) -> int:
    """How many vectors equal another one: no model that reads nothing else can tell whose they are."""
    if not vectors.size:
        return 0
    rows = np.ascontiguousarray(vectors).view(np.dtype((np.void, vectors.itemsize * vectors.shape[1])))
    counts = pl.Series(rows.ravel().tolist(), dtype=pl.Binary).value_counts()["count"]
    return int(counts.filter(counts > 1).sum())


def training_of(catalog: Catalog) -> str:
    """What recognises a training part in records: SHA-256 of how often it has each item."""
    return fingerprint(catalog.table.select("item_id", "count"))


def quotes_of(path: Path) -> int:
    """Most training histories that a prompt behind a folder quotes; 0 of a file, whose prompts nobody knows."""
    return read_json(path / MANIFEST, _MADE_BY).get("quotes", 0) if path.is_dir() else 0


def origin_of(path: Path) -> dict[str, Any]:
    """What a file or folder of vectors says of how it was made: the manifest of a folder, the digest of a file, nothing
    where there is none."""
    if path.is_dir():
        return read_json(path / MANIFEST, _MADE_BY)
    return {"digest": file_digest(path)} if path.is_file() else {}


def check_quotes(path: Path, catalog: Catalog) -> None:
    """Look whether what the prompts behind a folder quote is of the training part that this catalog counts.

    Raises:
        ValueError: it is of another one.
    """
    if quotes_of(path) and read_json(path / MANIFEST, _MADE_BY).get("training") != training_of(catalog):
        raise ValueError(
            f"The prompts behind {path} quote histories of another training part, which may hold what is asked for "
            "here; run `seqrec describe items` and what follows with the data and the protocol of the training, or "
            "with --quotes 0."
        )
