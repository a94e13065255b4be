"""The nearest neighbours of every vector by cosine: exact, never itself, never one of its own group."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from seqrec.semantics.files import ANYTHING, read_json, write_json, write_whole
from seqrec.semantics.vectors import MANIFEST

ROWS, RECORD = "neighbours.npy", "neighbours.json"
_BLOCK = 4096  # vectors that ask at once
_MADE_BY = "seqrec neighbours"


@dataclass(frozen=True)
class Neighbours:
    """The K nearest of each of V vectors.

    Attributes:
        rows: rows of the vectors, best first, int32; -1 where fewer than K may be neighbours.
        manifest: ``k``, ``exact``, ``groups`` (what is kept apart), ``same_user`` where histories of one user were not,
            and ``fingerprint``, that of the vectors.
    """

    rows: Int[np.ndarray, "V K"]
    manifest: dict[str, Any]

    @classmethod
    def open(cls, folder: str | Path) -> Neighbours:
        """Memory-map what ``seqrec neighbours`` wrote into a folder of vectors.

        Raises:
            FileNotFoundError: it was not run there.
            ValueError: the neighbours are broken, or are those of other vectors.
        """
        folder = Path(folder)
        command = f"{_MADE_BY} --vectors {folder}"
        manifest = read_json(folder / RECORD, command)
        vectors = read_json(folder / MANIFEST, "seqrec embed")
        if manifest.get("fingerprint") != vectors.get("fingerprint"):
            raise ValueError(f"{folder / ROWS} holds neighbours of other vectors. Run `{command}` again.")
        try:
            rows = np.load(folder / ROWS, mmap_mode="r")
            intact = rows.dtype == np.int32 and _digest(rows) == manifest.get("digest")
        except ANYTHING:
            intact = False
        if not intact:
            raise ValueError(f"{folder / ROWS} is missing or changed. Run `{command}` again.")
        return cls(rows, manifest)


def write_neighbours(folder: Path, rows: Int[np.ndarray, "V K"], record: Mapping[str, Any]) -> None:
    """Write what ``Neighbours.open`` reads beside the vectors of the folder.

    Args:
        folder: the folder of the vectors.
        rows: see ``Neighbours``.
        record: what the manifest says, ``fingerprint`` of the vectors included.
    """
    (folder / RECORD).unlink(missing_ok=True)
    write_whole(folder / ROWS, lambda file: np.save(file, rows, allow_pickle=False))
    write_json(folder / RECORD, {**record, "k": rows.shape[1], "digest": _digest(rows)})


def nearest(
    vectors: Float[np.ndarray, "V S"],
    k: int,
    groups: Int[np.ndarray, "V"] | None = None,
    exact: bool = True,
    advance: Callable[[int], object] = lambda count: None,
) -> Int[np.ndarray, "V K"]:
    """Rows of the k vectors with the largest cosine to each, best first, int32, -1 where there are fewer.

    A row is told from itself and from its group by number, not by rank, and the search is widened until k others are
    found, so vectors that are equal to each other take nobody's place. Among equal cosines any may come first.

    Exact search needs not read every number: along their mean and the axes in which the vectors spread most,
    coordinates and the length of the rest bound each cosine from above (Cauchy and Schwarz). FAISS searches the
    bounds, the best candidates are compared in full, and a row is done when no bound further down exceeds its k-th
    cosine.

    Args:
        vectors: any finite numbers; a vector of zeros has the cosine 0 with all.
        k: how many, at least 1.
        groups: rows with the same number are never neighbours of each other; None keeps only a row from itself.
        exact: False looks into a part of the space only (inverted lists) and may miss some, which is faster where there
            are many vectors.
        advance: told how many more rows are done.

    Raises:
        ModuleNotFoundError: FAISS is not installed.
        ValueError: k is below 1.
    """
    if k < 1:
        raise ValueError(f"k is {k}; ask for at least 1 neighbour, e.g. 20.")
    faiss = _faiss()
    unit = np.array(vectors, dtype=np.float32)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    n, kept_apart = len(unit), np.arange(len(unit)) if groups is None else np.asarray(groups)
    whole, keys = faiss.IndexFlatIP(unit.shape[1]), _bounds(unit) if exact else unit
    whole.add(unit)
    index = faiss.IndexFlatIP(keys.shape[1]) if exact else _lists(faiss, keys)
    index.add(keys)
    found = np.full((n, k), -1, dtype=np.int32)
    asking, width = np.arange(n), min(n, 12 * k + 16)
    while asking.size:
        undone = []
        for block in np.split(asking, range(_BLOCK, asking.size, _BLOCK)):
            bounds, others = index.search(keys[block], width)
            cosines = _cosines(faiss, whole, unit[block], others)
            cosines[(others < 0) | (kept_apart[others] == kept_apart[block, None])] = -np.inf
            best = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
            cosines = np.take_along_axis(cosines, best, 1)
            here = np.where(cosines > -np.inf, np.take_along_axis(others, best, 1), -1)
            found[block, : here.shape[1]] = here
            # Rounding must not keep equal vectors looking for each other for ever.
            last = cosines[:, -1] if here.shape[1] == k else np.full(len(block), -np.inf)
            done = (last + 1e-6 >= bounds[:, -1]) if exact else last > -np.inf
            undone.append(block[~done] if width < n else block[:0])
            advance(len(block) - len(undone[-1]))
        asking, width = np.concatenate(undone), min(n, 4 * width)
        if not exact and width > n // 4:  # what the lists lack is no more found in them
            index.nprobe = index.nlist
    return found


def _bounds(unit: Float[np.ndarray, "V S"]) -> Float[np.ndarray, "V C"]:
    """Keys whose inner products are cosines from above: coordinates along some axes, then the length of the rest.

    The first axis is the mean, the others those along which the vectors differ most from it: of an encoder whose
    vectors all point one way the mean alone would hold nearly all of the lengths and tell nothing apart. So many that
    they hold 95 % of what is squared beside the mean: fewer would be searched faster and prove less.
    """
    mean = unit.mean(axis=0, dtype=np.float64)
    mean = (mean / max(float(np.linalg.norm(mean)), np.finfo(np.float64).tiny)).astype(np.float32)
    along = unit @ mean
    beside = unit - along[:, None] * mean
    energy, axes = np.linalg.eigh((beside.T @ beside).astype(np.float64))
    share = np.cumsum(energy[::-1]) / max(energy.sum(), np.finfo(np.float32).tiny)
    n_leading = min(int(np.searchsorted(share, 0.95)) + 1, unit.shape[1])
    rotated = beside @ axes[:, ::-1].astype(np.float32)
    rest = np.linalg.norm(rotated[:, n_leading:], axis=1, keepdims=True)
    return np.ascontiguousarray(np.concatenate([along[:, None], rotated[:, :n_leading], rest], axis=1))


def _cosines(
    faiss: Any, whole: Any, queries: Float[np.ndarray, "Q S"], others: Int[np.ndarray, "Q W"]
) -> Float[np.ndarray, "Q W"]:
    """The inner product of each query with its own candidates."""
    cosines = np.empty(others.shape, dtype=np.float32)
    query, out, rows = (faiss.swig_ptr(each) for each in (queries, cosines, others))
    whole.compute_distance_subset(len(queries), query, others.shape[1], out, rows)
    return cosines


def _lists(faiss: Any, unit: Float[np.ndarray, "V S"]) -> Any:
    """An index of inverted lists, about four times the square root of V of them, of which 16 are read."""
    n_lists = max(1, min(round(4 * len(unit) ** 0.5), len(unit) // 39))  # FAISS wants 39 vectors to learn a list from
    index = faiss.index_factory(unit.shape[1], f"IVF{n_lists},Flat", faiss.METRIC_INNER_PRODUCT)
    index.train(unit)
    index.nprobe = min(16, n_lists)
    return index


def _digest(rows: Int[np.ndarray, "V K"]) -> str:
    return hashlib.sha256(f"{rows.shape};".encode() + np.ascontiguousarray(rows).data).hexdigest()


def _faiss() -> Any:
    try:
        import faiss
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Neighbours need FAISS, which is not installed. Run `pip install 'seqrec[cpu]'`."
        ) from error
    return faiss
