"""What a rank is worth: pure functions of 0-based ranks (0 is best), one value per prediction with one target.

Their mean over predictions is the figure that papers report. What lists show, whatever the targets, comes last.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def recall(ranks: Int[Tensor, "M"], k: int) -> Float[Tensor, "M"]:
    """1 where the target is among the first k. With a single target this is also the hit rate."""
    return (ranks < k).double()


def ndcg(ranks: Int[Tensor, "M"], k: int) -> Float[Tensor, "M"]:
    """``1 / log2(rank + 2)`` among the first k, 0 beyond. With a single target the ideal gain is 1."""
    return torch.where(ranks < k, 1.0 / torch.log2(ranks.double() + 2.0), 0.0)


def mrr(ranks: Int[Tensor, "M"], k: int | None = None) -> Float[Tensor, "M"]:
    """``1 / (rank + 1)`` among the first k, 0 beyond; None looks at the whole catalog."""
    reciprocal = 1.0 / (ranks.double() + 1.0)
    return reciprocal if k is None else torch.where(ranks < k, reciprocal, 0.0)


def shown(lists: Int[Tensor, "M L"], k: int, n_items: int) -> Int[Tensor, "N"]:
    """How often each item of the catalog stands among the first k of a list; -1 in a list stands for nothing."""
    items = lists[:, :k].reshape(-1)
    return torch.bincount(items[items >= 0], minlength=n_items)


def coverage(shown: Int[Tensor, "N"]) -> float:
    """Share of the catalog that is shown to anyone, in [0, 1]."""
    return (shown > 0).double().mean().item()


def popularity_rank(shown: Int[Tensor, "N"], counts: Int[Tensor, "N"]) -> float:
    """Mean popularity rank of what is shown: 0 if only the most popular item is, N - 1 if only the least popular.

    Not a number where nothing is shown.
    """
    times = shown.double()
    return ((times * popularity_ranks(counts)).sum() / times.sum()).item()


def popularity_ranks(counts: Int[Tensor, "N"]) -> Float[Tensor, "N"]:
    """Place of each item by how often it occurs, 0 for the most frequent; items of one count share their mean place."""
    _, group, sizes = torch.unique(-counts, return_inverse=True, return_counts=True)
    sizes = sizes.double()
    return (sizes.cumsum(0) - (sizes + 1) / 2)[group]
