"""The kinds of index that a bundle may have, built, tuned and measured against exact search before they are kept."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from enum import Enum, member
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from seqrec.data.errors import InputError
from seqrec.export.index import KeyIndex, faiss, n_gpus
from seqrec.ops import ranking
from seqrec.sequences import Sequences

logger = logging.getLogger(__name__)

INDEX, KEYS = "index.faiss", "keys.safetensors"
# A quick index is measured on this many best items, and one that finds fewer of them is not chosen by `auto`.
_K, _RECALL = 100, 0.95
# What tuning aims at: a little more, for other queries may find a little less.
_AIM = 0.97
# Up to so many items an exact search is as fast as anything; from so many on keys are kept short in memory.
_FEW, _VERY_MANY = 50_000, 5_000_000


@dataclass(frozen=True)
class IndexReport:
    """What an index is and how well it did on a sample of queries, each asked alone, without the items of its history.

    Attributes:
        kind: flat, ivf, hnsw or pq.
        recipe: what FAISS's factory made it of.
        k: length of the lists that were compared.
        recall: share of the k best items that it finds.
        seconds: per query; 0 where nothing was measured.
        exact_seconds: per query of an exact search.
        settings: what tuning chose.
        overfetch: how many times as many candidates are taken and scored again.
    """

    kind: str
    recipe: str
    k: int
    recall: float = 1.0
    seconds: float = 0.0
    exact_seconds: float = 0.0
    settings: dict[str, int] = field(default_factory=dict)
    overfetch: int = 1


Build = Callable[[Tensor, Tensor, Sequences | None], tuple[KeyIndex, IndexReport]]


def flat(
    keys: Float[Tensor, "N K"], queries: Float[Tensor, "B K"], seen: Sequences | None = None
) -> tuple[KeyIndex, IndexReport]:
    """Exact search."""
    return KeyIndex(keys), IndexReport("flat", "Flat", min(_K, len(keys)))


def ivf(
    keys: Float[Tensor, "N K"], queries: Float[Tensor, "B K"], seen: Sequences | None = None
) -> tuple[KeyIndex, IndexReport]:
    """Keys in lists around centres, of which the nearest are searched. Builds quickly, is as large as the keys."""
    return _tuned("ivf", f"IVF{_n_lists(len(keys))},Flat", keys, queries, seen, "nprobe", _n_lists(len(keys)))


def hnsw(
    keys: Float[Tensor, "N K"], queries: Float[Tensor, "B K"], seen: Sequences | None = None
) -> tuple[KeyIndex, IndexReport]:
    """A graph that is walked towards the query. The fastest search, the slowest to build, and never on a GPU."""
    return _tuned("hnsw", "HNSW32", keys, queries, seen, "efSearch", max(16, min(4096, len(keys))), first=16)


def pq(
    keys: Float[Tensor, "N K"], queries: Float[Tensor, "B K"], seen: Sequences | None = None
) -> tuple[KeyIndex, IndexReport]:
    """Lists around centres that hold keys shortened to a byte per four numbers; candidates are scored again exactly."""
    parts = -(-keys.shape[1] // 4)
    recipe = f"Pad{4 * parts},IVF{_n_lists(len(keys))},PQ{parts}x8"
    return _tuned("pq", recipe, keys, queries, seen, "nprobe", _n_lists(len(keys)), overfetch=8, least=256)


def auto(
    keys: Float[Tensor, "N K"], queries: Float[Tensor, "B K"], seen: Sequences | None = None
) -> tuple[KeyIndex, IndexReport]:
    """By the number of items: exact, then ivf, then pq; exact again where the quick one misses too much or is no
    quicker."""
    if len(keys) <= _FEW:
        return flat(keys, queries)
    index, report = (ivf if len(keys) <= _VERY_MANY else pq)(keys, queries, seen)
    if report.recall >= _RECALL and _quicker(report):
        return index, report
    logger.warning(
        "%s finds %.3f of the %d best items in %.2f ms, an exact search takes %.2f ms, so the exact index is kept.",
        *(report.recipe, report.recall, report.k, 1e3 * report.seconds, 1e3 * report.exact_seconds),
    )
    return flat(keys, queries)


class IndexKind(Enum):
    """How a bundle finds the best items: ``auto`` decides by the number of items and by what it measures."""

    auto = member(auto)
    flat = member(flat)
    ivf = member(ivf)
    hnsw = member(hnsw)
    pq = member(pq)


def save_index(index: KeyIndex, folder: Path) -> list[str]:
    """Write the index, and beside a quick one the exact keys; the names of the files."""
    faiss().write_index(index.flat if index.quick is None else index.quick, str(folder / INDEX))
    if index.quick is None:
        return [INDEX]
    save_file({"keys": index.keys}, folder / KEYS)
    return [INDEX, KEYS]


def load_index(folder: Path, n_items: int, width: int, report: dict[str, Any]) -> KeyIndex:
    """Read what ``save_index`` wrote.

    Raises:
        InputError: it is an index of other keys.
    """
    found = faiss().read_index(str(folder / INDEX))
    _demand_shape(folder / INDEX, (found.ntotal, found.d), (n_items, width))
    if report["kind"] == "flat":
        return KeyIndex.around(found)
    keys = load_file(folder / KEYS)["keys"]
    _demand_shape(folder / KEYS, tuple(keys.shape), (n_items, width))
    return KeyIndex(keys, found, report["overfetch"])


def _demand_shape(path: Path, found: tuple[int, ...], needed: tuple[int, int]) -> None:
    if found != needed:
        raise InputError(
            f"{path} holds {found[0]:,} keys of width {found[1]}, the bundle has {needed[0]:,} items with keys of "
            f"width {needed[1]}, so it is of another model. Run `seqrec export` again."
        )


def as_fields(report: IndexReport) -> dict[str, Any]:
    return asdict(report)


def _quicker(report: IndexReport) -> bool:
    return report.seconds < report.exact_seconds


def _n_lists(n_items: int) -> int:
    """About 4 √N, a power of two, with at least 34 keys for each centre to train it by."""
    wanted = min(4 * n_items**0.5, n_items / 48)
    return 2 ** max(0, round(math.log2(max(1.0, wanted))))


def _tuned(
    kind: str,
    recipe: str,
    keys: Tensor,
    queries: Tensor,
    seen: Sequences | None,
    setting: str,
    largest: int,
    first: int = 1,
    overfetch: int = 1,
    least: int = 1,
) -> tuple[KeyIndex, IndexReport]:
    """Build by FAISS's recipe and raise a setting until the index finds enough of what an exact search finds."""
    if len(keys) < least:
        raise InputError(f"The catalog has {len(keys):,} items, the index {kind} needs {least}; take --index flat.")
    exactly = KeyIndex(keys)
    quick = _filled(recipe, exactly.keys)
    k = min(_K, len(keys))
    nothing = torch.empty(0, dtype=torch.long)
    left_out = [nothing] * len(queries) if seen is None else seen.items.split(seen.lengths.tolist())

    def best(query: Tensor, without: Tensor, index: KeyIndex = exactly) -> tuple[Tensor, Tensor]:
        rows, _ = index.search(query, min(index.overfetch * k + len(without), len(keys)))
        return ranking.best_candidates(query, index.keys, rows.masked_fill(torch.isin(rows, without), -1), k)

    exact, exact_seconds = _asked(best, queries, left_out)
    turn = faiss().ParameterSpace()
    value, recall, seconds = first, 0.0, 0.0
    while True:
        turn.set_index_parameter(quick, setting, value)
        index = KeyIndex.around(exactly.flat, quick, overfetch)
        found, seconds = _asked(partial(best, index=index), queries, left_out)
        recall = float((found[:, :, None] == exact[:, None, :]).any(2).float().mean())
        if recall >= _AIM or value >= largest:
            break
        value = min(2 * value, largest)
    return index, IndexReport(kind, recipe, k, round(recall, 4), seconds, exact_seconds, {setting: value}, overfetch)


def _filled(recipe: str, keys: Tensor) -> Any:
    """An index of these keys in main memory, built on a GPU where FAISS sees one that can."""
    numbers = keys.detach().float().cpu().contiguous().numpy()
    index = _empty(recipe, keys.shape[1])
    if n_gpus():
        try:
            on_gpu = faiss().index_cpu_to_all_gpus(index)
            on_gpu.train(numbers)
            on_gpu.add(numbers)
            return faiss().index_gpu_to_cpu(on_gpu)
        except RuntimeError:  # FAISS has no GPU form of it
            index = _empty(recipe, keys.shape[1])
    index.train(numbers)
    index.add(numbers)
    return index


def _empty(recipe: str, width: int) -> Any:
    index = faiss().index_factory(width, recipe, faiss().METRIC_INNER_PRODUCT)
    if "IVF" in recipe:  # centres need not be perfect, and FAISS takes minutes to make them so
        training = faiss().extract_index_ivf(index).cp
        training.niter, training.max_points_per_centroid = 10, 48
    return index


def _asked(
    best: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], queries: Tensor, left_out: Sequence[Tensor]
) -> tuple[Tensor, float]:
    """The rows for each query, asked one after the other, and the seconds that one takes."""
    began = time.perf_counter()
    rows = [best(query[None], without)[0] for query, without in zip(queries, left_out, strict=True)]
    return torch.cat(rows), (time.perf_counter() - began) / max(1, len(queries))
