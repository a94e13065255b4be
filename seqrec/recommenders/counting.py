"""Recommenders that learn by counting: the rows that every other model must beat."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch import distributed as dist

from seqrec.batch import Batch
from seqrec.ops.ranking import target_ranks, top_k
from seqrec.recommenders.base import Encoded, Recommender, TopK
from seqrec.sequences import Sequences


class CountingRecommender(Recommender):
    """Learns in one pass without gradients: ``count`` for each training batch, then ``finish`` once.

    What was learnt is in buffers, so checkpoints carry it. Every event of the training part should be counted once:
    one epoch with ``EveryEvent`` supervision and no limit of length.

    Attributes:
        counts_by_clock: whether it counts by when events happened, so that the times of the data must be real ones.
    """

    counts_by_clock: bool = False

    @abstractmethod
    def count(self, batch: Batch) -> None:
        """Count what followed what in a training batch."""

    @abstractmethod
    def finish(self) -> None:
        """Turn the counts of all batches, and of all processes, into what rankings read."""


class SameForEveryone(CountingRecommender):
    """Scores items alike for every user and every moment: inner products of width 1 with a query of one."""

    @property
    @abstractmethod
    def item_scores(self) -> Float[Tensor, "N"]:
        """The score of every item of the catalog."""

    def encode(self, batch: Batch) -> Encoded:
        """Queries of one and keys of the scores; nothing in it has a gradient."""
        keys = self.item_scores[:, None]

        def some_keys(rows: Tensor | None) -> Tensor:
            return keys if rows is None else keys[rows]

        queries = keys.new_ones(batch.targets.numel(), 1)
        return Encoded(batch, queries, queries, some_keys, self.counts)

    def ranks(self, batch: Batch) -> Int[Tensor, "M"]:
        keys = self.item_scores[:, None]
        return target_ranks(keys.new_ones(batch.targets.numel(), 1), keys, batch.targets, *_packed(batch.seen))

    def recommend(self, history: Sequences, k: int, seen: Sequences | None = None) -> TopK:
        keys = self.item_scores[:, None]
        return TopK(*top_k(keys.new_ones(len(history), 1), keys, k, *_packed(seen)))


def gathered(values: Tensor) -> Tensor:
    """The values of all processes, one after the other; just the values where there is one process."""
    if not (dist.is_available() and dist.is_initialized()):
        return values
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, values.cpu())
    return torch.cat(parts).to(values.device)


def _packed(seen: Sequences | None) -> tuple[Tensor | None, Tensor | None]:
    return (None, None) if seen is None else (seen.items, seen.offsets)
