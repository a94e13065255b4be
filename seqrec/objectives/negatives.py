"""Where negatives come from, and what each prediction gives to negatives of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from seqrec.recommenders.base import Encoded

_ELEMENTS_AT_ONCE = 1 << 22
"""Size of the largest [chunk, S, K] tensor that ``score_each`` holds: 16 MiB in float32."""


class NegativeSampler(ABC):
    """Draws items that stand in for "everything else".

    Draws are independent and with replacement. Without a generator they follow torch's global generator of the
    device, which the trainer seeds.
    """

    @abstractmethod
    def draw(self, encoded: Encoded, n: int, generator: Generator | None = None) -> Int[Tensor, "n"]:
        """Catalog rows of ``n`` negatives."""

    @abstractmethod
    def log_probability(self, encoded: Encoded, rows: Int[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Natural logarithm of the probability that one draw gives each of these items; always finite."""


class Uniform(NegativeSampler):
    """Every item of the catalog is as likely as any other."""

    def draw(self, encoded: Encoded, n: int, generator: Generator | None = None) -> Int[Tensor, "n"]:
        counts = encoded.counts
        return torch.randint(counts.numel(), (n,), device=counts.device, generator=generator)

    def log_probability(self, encoded: Encoded, rows: Int[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        n_items = torch.full(rows.shape, encoded.counts.numel(), device=rows.device, dtype=torch.float32)
        return -n_items.log()


class Popularity(NegativeSampler):
    """An item is drawn in proportion to a power of its training count; an item never seen counts as seen once.

    Args:
        exponent: power of the count, 0 (uniform) or more; 1 is popularity itself, 0.75 is word2vec's choice.
    """

    def __init__(self, exponent: float = 1.0) -> None:
        if exponent < 0:
            raise ValueError(f"exponent is {exponent}; it must be 0 (uniform) or more, e.g. 0.75.")
        self.exponent = exponent

    def draw(self, encoded: Encoded, n: int, generator: Generator | None = None) -> Int[Tensor, "n"]:
        heaped = self._log_shares(encoded).double().exp().cumsum(0)
        coins = torch.rand(n, device=heaped.device, dtype=heaped.dtype, generator=generator)
        return torch.searchsorted(heaped, coins * heaped[-1], right=True).clamp(max=heaped.numel() - 1)

    def log_probability(self, encoded: Encoded, rows: Int[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        return self._log_shares(encoded)[rows]

    def _log_shares(self, encoded: Encoded) -> Float[Tensor, "N"]:
        return (self.exponent * encoded.counts.clamp(min=1).float().log()).log_softmax(0)


class InBatch(NegativeSampler):
    """The targets of the batch, drawn with replacement; none where the batch predicts nothing.

    Over many batches a target appears as often as it does in training, so its probability is its share of the counts.
    """

    def __init__(self) -> None:
        self._in_the_long_run = Popularity(exponent=1.0)

    def draw(self, encoded: Encoded, n: int, generator: Generator | None = None) -> Int[Tensor, "drawn"]:
        targets = encoded.batch.targets
        if not targets.numel():
            return targets
        return targets[torch.randint(targets.numel(), (n,), device=targets.device, generator=generator)]

    def log_probability(self, encoded: Encoded, rows: Int[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        return self._in_the_long_run.log_probability(encoded, rows)


class Mixed(NegativeSampler):
    """Each draw comes from the first sampler with probability ``share``, else from the second.

    Args:
        first: drawn from with probability ``share``.
        second: drawn from otherwise.
        share: strictly between 0 and 1.
    """

    def __init__(self, first: NegativeSampler, second: NegativeSampler, share: float = 0.5) -> None:
        if not 0 < share < 1:
            raise ValueError(f"share is {share}; it must lie strictly between 0 and 1, or use one sampler alone.")
        self.first, self.second = first, second
        self.share = share

    def draw(self, encoded: Encoded, n: int, generator: Generator | None = None) -> Int[Tensor, "drawn"]:
        if not encoded.batch.targets.numel():
            return encoded.batch.targets
        first, second = (sampler.draw(encoded, n, generator) for sampler in (self.first, self.second))
        coins = torch.rand(n, device=first.device, generator=generator)
        return torch.where(coins < self.share, first, second)

    def log_probability(self, encoded: Encoded, rows: Int[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        share = torch.tensor(self.share, device=rows.device)
        return torch.logaddexp(
            self.first.log_probability(encoded, rows) + share.log(),
            self.second.log_probability(encoded, rows) + (1 - share).log(),
        )


def draw_unseen(encoded: Encoded, n: int, generator: Generator | None = None) -> Int[Tensor, "M n"]:
    """Uniform draws for each prediction among the items that its history neither holds nor predicts.

    Exact and without redrawing: a number below the count of unseen items is drawn, then stepped over the seen ones.
    A history that saw the whole catalog draws from all of it.
    """
    batch, n_items = encoded.batch, encoded.counts.numel()
    event_owners = batch.history.owners
    owners = event_owners[batch.predict_at]
    seen = torch.cat([event_owners * n_items + batch.history.items, owners * n_items + batch.targets]).unique()
    seen_owners, seen_rows = seen // n_items, seen % n_items
    n_seen = torch.bincount(seen_owners, minlength=len(batch.history))
    starts = n_seen.cumsum(0) - n_seen
    # The i-th seen row s_i of a history has s_i - i unseen rows before it, a number that never falls with i.
    unseen_before = seen_rows - (torch.arange(seen.numel(), device=seen.device) - starts[seen_owners])
    room = n_items - n_seen[owners]
    some_left = room > 0
    coins = torch.randint(1 << 62, (owners.numel(), n), device=seen.device, generator=generator)
    number = coins % torch.where(some_left, room, n_items)[:, None]
    wanted = owners[:, None] * n_items + number
    passed = torch.searchsorted(seen_owners * n_items + unseen_before, wanted, right=True) - starts[owners][:, None]
    return torch.where(some_left[:, None], number + passed, number)


def score_each(
    queries: Float[Tensor, "M K"], keys: Float[Tensor, "N K"], rows: Int[Tensor, "M S"]
) -> Float[Tensor, "M S"]:
    """Scores of each query with S items of its own, in float32, holding a bounded number of gathered keys at a time."""
    with torch.autocast(queries.device.type, enabled=False):
        scores: Tensor = _ScoreEach.apply(queries.float(), keys.float(), rows)  # pyright: ignore[reportAssignmentType]
        return scores


class _ScoreEach(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(queries, keys, rows)
        chunks = zip(*_chunks(queries, rows), strict=True)
        return torch.cat([(keys[picked] @ asked[:, :, None]).squeeze(2) for asked, picked in chunks])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        queries, keys, rows = ctx.saved_tensors
        for_keys, for_queries = torch.zeros_like(keys), []
        for asked, picked, gradient in zip(*_chunks(queries, rows, gradients[0]), strict=True):
            for_queries.append((gradient[:, None, :] @ keys[picked]).squeeze(1))
            for_keys.index_add_(0, picked.flatten(), (gradient[:, :, None] * asked[:, None, :]).flatten(0, 1))
        return torch.cat(for_queries), for_keys, None


def _chunks(queries: Tensor, rows: Tensor, *more: Tensor) -> list[tuple[Tensor, ...]]:
    n_predictions = max(1, _ELEMENTS_AT_ONCE // max(1, rows.shape[1] * queries.shape[1]))
    return [tensor.split(n_predictions) for tensor in (queries, rows, *more)]
