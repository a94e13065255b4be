"""Sums metrics over an epoch and over devices, and keeps the rank of every user."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import torch
from jaxtyping import Int
from torch import Tensor
from torch import distributed as dist

from seqrec.evaluation import metrics


class Meter:
    """Collects ranks, and lists where there are any, and says what they are worth.

    Where ``torch.distributed`` is initialised, every process must call ``compute`` and ``save`` together, and the
    answer is that of all their predictions; a prediction given to two processes counts twice.

    Args:
        cutoffs: the k of Recall@k, NDCG@k, MRR@k, coverage@k and popularity_rank@k, each at least 1.
        counts: how often each item of the catalog occurs in training; only lists need it.
    """

    def __init__(self, cutoffs: Sequence[int] = (1, 5, 10, 20, 50), counts: Int[Tensor, "N"] | None = None) -> None:
        if not cutoffs or min(cutoffs) < 1:
            raise ValueError(f"The cut-offs are {list(cutoffs)}; give at least one, each at least 1.")
        self.cutoffs = tuple(sorted(set(cutoffs)))
        self.counts = None if counts is None else counts.cpu()
        self.reset()

    def reset(self) -> None:
        """Forget everything that was given."""
        self._ranks: list[Tensor] = []
        self._users: list[Tensor] = []
        self._targets: list[Tensor] = []
        self._shown: dict[int, Tensor] = {}

    def update(
        self, ranks: Int[Tensor, "M"], users: Int[Tensor, "M"] | None = None, targets: Int[Tensor, "M"] | None = None
    ) -> None:
        """Add the 0-based ranks of some predictions; ``save`` also needs their users and targets, as rows.

        Raises:
            ValueError: a rank is negative.
        """
        ranks = ranks.detach().cpu().long()
        if ranks.numel() and int(ranks.min()) < 0:
            raise ValueError(f"A rank is {int(ranks.min())}; ranks count from 0, the best.")
        self._ranks.append(ranks)
        if users is not None and targets is not None:
            self._users.append(users.detach().cpu().long())
            self._targets.append(targets.detach().cpu().long())

    def update_lists(self, lists: Int[Tensor, "M L"]) -> None:
        """Add the items shown for some predictions, best first; -1 stands for nothing. Cut-offs beyond L are left out.

        Raises:
            ValueError: the meter was made without the counts of the catalog, or no cut-off is within L.
        """
        if self.counts is None:
            raise ValueError("Lists need the training counts of the catalog: build the meter with counts=….")
        lists, n_items = lists.detach().cpu(), self.counts.numel()
        within = [k for k in self.cutoffs if k <= lists.shape[1]]
        if not within:
            raise ValueError(f"The lists hold {lists.shape[1]} items; the smallest cut-off is {self.cutoffs[0]}.")
        for k in within:
            shown = metrics.shown(lists, k, n_items)
            self._shown[k] = self._shown[k] + shown if k in self._shown else shown

    def compute(self) -> dict[str, float]:
        """The mean of every metric over all predictions, by names such as ``recall@10``, and their ``count``.

        Raises:
            ValueError: no rank was given to any process.
        """
        ranks = _concatenated(self._ranks)
        sums = {"count": torch.tensor(float(ranks.numel()), dtype=torch.float64)}
        for k in self.cutoffs:
            sums[f"recall@{k}"] = metrics.recall(ranks, k).sum()
            sums[f"ndcg@{k}"] = metrics.ndcg(ranks, k).sum()
            sums[f"mrr@{k}"] = metrics.mrr(ranks, k).sum()
        totals = dict(zip(sums, _summed(torch.stack(list(sums.values()))).tolist(), strict=True))
        count = totals.pop("count")
        if not count:
            raise ValueError("The meter was given no rank; call update before compute.")
        values = {name: total / count for name, total in totals.items()}
        return {**values, **self._lists(), "count": count}

    def save(self, path: Path, about: pl.DataFrame | None = None) -> None:
        """Write one line per prediction: ``user``, ``target`` and ``rank``, in order of users.

        Any metric of ranks can be recomputed from it. Where several processes measure, the first one writes.

        Args:
            path: the Parquet file.
            about: what else is known of each ``user`` and ``target``; its other columns are written beside the ranks.

        Raises:
            ValueError: some ranks came without users and targets.
        """
        parts = [_concatenated(column) for column in (self._users, self._targets, self._ranks)]
        if parts[0].numel() != parts[2].numel():
            raise ValueError(
                f"Of {parts[2].numel()} ranks, {parts[0].numel()} came with users and targets; give all to update."
            )
        users, targets, ranks = _gathered(torch.stack(parts)).numpy()
        if _process() == 0:
            table = pl.DataFrame({"user": users, "target": targets, "rank": ranks}).sort("user", "target", "rank")
            if about is not None:
                about = about.unique(["user", "target"], keep="first")
                table = table.join(about, on=["user", "target"], how="left", maintain_order="left")
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_name(f".{path.name}.{os.getpid()}")
            table.write_parquet(unfinished)
            unfinished.replace(path)

    @classmethod
    def load(cls, path: Path, cutoffs: Sequence[int] = (1, 5, 10, 20, 50)) -> Meter:
        """A meter with the predictions of a file that ``save`` wrote, to recompute any metric of ranks."""
        table = pl.read_parquet(path)
        users, targets, ranks = (torch.tensor(table[name].to_numpy()) for name in ("user", "target", "rank"))
        meter = cls(cutoffs)
        meter.update(ranks, users, targets)
        return meter

    def _lists(self) -> dict[str, float]:
        """Coverage and mean popularity rank over all processes; a process without predictions adds nothing."""
        if self.counts is None:
            return {}
        nothing = torch.zeros_like(self.counts)
        shown = _summed(torch.stack([self._shown.get(k, nothing) for k in self.cutoffs]).double())
        values = {}
        for k, times in zip(self.cutoffs, shown.long(), strict=True):
            if times.any():
                values[f"coverage@{k}"] = metrics.coverage(times)
                values[f"popularity_rank@{k}"] = metrics.popularity_rank(times, self.counts)
        return values


def _concatenated(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.long)


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def _process() -> int:
    return dist.get_rank() if _is_distributed() else 0


def _summed(values: Tensor) -> Tensor:
    """The sum over all processes, on the CPU."""
    if not _is_distributed():
        return values
    # NCCL only carries what is on a GPU.
    values = values.cuda() if "nccl" in dist.get_backend() else values
    dist.all_reduce(values)
    return values.cpu()


def _gathered(columns: Tensor) -> Tensor:
    """The columns of all processes, one after the other."""
    if not _is_distributed():
        return columns
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, columns)
    return torch.cat(parts, dim=1)
