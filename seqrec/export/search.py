"""From queries to the best rows: unseen, offered, admitted by a request, and in the order of evaluation."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from seqrec.export.index import KeyIndex
from seqrec.ops import ranking
from seqrec.sequences import Sequences

# Candidates beyond k and the seen items, so that rounding inside FAISS rarely asks for a second search.
_MARGIN = 32
# A quick search that must go through more than this share of the catalog is none.
_LARGEST_SHARE = 1 / 8
# Where more than this share of k was withdrawn of what an index finds best, it was never measured on such.
_MOST_WITHDRAWN = 1 / 4


def best_rows(
    index: KeyIndex,
    queries: Float[Tensor, "B K"],
    k: int,
    seen: Sequences,
    offered: Bool[Tensor, "N"],
    admitted: Bool[Tensor, "N"] | None = None,
) -> tuple[Int[Tensor, "B k"], Float[Tensor, "B k"]]:
    """The k best rows of each query and their scores; -1 and minus infinity where no more are left.

    Args:
        index: the keys.
        queries: one per history.
        k: length of a list, at least 1.
        seen: what each history leaves out.
        offered: which rows may be recommended at all.
        admitted: which of them a request asks for, whose best are found exactly; None is all, whose best are found
            exactly unless the index is a quick one.

    Raises:
        FloatingPointError: a query is not finite.
    """
    if not torch.isfinite(queries).all():
        raise FloatingPointError("The encoder answers NaN or infinity; export a run that did not diverge.")
    # Owner and row in one number, each pair once, however often an event is repeated.
    left_out = torch.unique(seen.owners * len(offered) + seen.items)
    found = _quickly(index, queries, k, left_out, offered) if index.quick is not None and admitted is None else None
    if found is None:
        found = _exactly(index, queries, k, left_out, offered if admitted is None else admitted)
    return ranking.best_candidates(queries, index.keys, found, k)


def most_alike(
    keys: Float[Tensor, "N K"], row: int, k: int, offered: Bool[Tensor, "N"]
) -> tuple[Int[Tensor, "1 k"], Float[Tensor, "1 k"]]:
    """The k offered rows with the largest cosines of their keys with the key of another row, and those cosines."""
    lengths = torch.linalg.vector_norm(keys, dim=1).clamp(min=torch.finfo(keys.dtype).tiny)
    cosines = (keys @ (keys[row] / lengths[row])) / lengths
    left_out = (~offered).index_fill(0, torch.tensor([row]), True).nonzero().squeeze(1)
    return ranking.best_of(cosines[None], k, left_out, torch.tensor([0, len(left_out)]))


def _quickly(
    index: KeyIndex, queries: Float[Tensor, "B K"], k: int, left_out: Int[Tensor, "P"], offered: Bool[Tensor, "N"]
) -> Int[Tensor, "B C"] | None:
    """Unseen offered rows that a quick index takes for the best, at least k each; None where it cannot be trusted.

    How much it finds was measured without what histories have seen, and with all other items offered. It looks into
    the places nearest to a query: where many of those were withdrawn, the best of the others lie elsewhere.
    """
    width = index.overfetch * (k + _MARGIN) + _most(left_out, len(offered))
    while width <= _LARGEST_SHARE * len(offered):
        rows, _ = index.search(queries, width)
        withdrawn = ~offered[rows.clamp(min=0)] & (rows >= 0)
        rows = rows.masked_fill(withdrawn | _listed(rows, left_out, len(offered)), -1)
        before_the_last = (rows >= 0).cumsum(1) < k
        if bool(((withdrawn & before_the_last).sum(1) > _MOST_WITHDRAWN * k).any()):
            return None
        if bool(((rows >= 0).sum(1) >= k).all()):
            return rows
        width *= 4
    return None


def _exactly(
    index: KeyIndex, queries: Float[Tensor, "B K"], k: int, left_out: Int[Tensor, "P"], admitted: Bool[Tensor, "N"]
) -> Int[Tensor, "B C"]:
    """Unseen admitted rows that hold the k best of each query, however FAISS rounds; -1 fills up.

    The search widens until the worst candidate of every query is worse than its k-th best by more than rounding.
    """
    n_items, n_admitted = len(admitted), int(admitted.sum())
    among = None if n_admitted == n_items else admitted
    doubt = 2 * (queries.shape[1] + 2) * 2.0**-23 * queries.norm(dim=1) * index.longest
    width = min(k + _most(left_out, n_items) + _MARGIN, n_admitted)
    while width:
        rows, scores = index.search_among(queries, width, among)
        worst = scores[:, -1]
        seen = _listed(rows, left_out, n_items)
        rows, scores = rows.masked_fill(seen, -1), scores.masked_fill(seen, -torch.inf)
        if width == n_admitted or bool((worst < scores.topk(k, dim=1).values[:, -1] - doubt).all()):
            return rows
        width = min(4 * width, n_admitted)
    return torch.full((len(queries), 1), -1)


def _most(left_out: Int[Tensor, "P"], n_items: int) -> int:
    """The most that a history leaves out."""
    return int((left_out // n_items).bincount(minlength=1).max())


def _listed(rows: Int[Tensor, "B C"], left_out: Int[Tensor, "P"], n_items: int) -> Bool[Tensor, "B C"]:
    """Which of the rows of each history it leaves out."""
    return torch.isin(torch.arange(rows.shape[0])[:, None] * n_items + rows, left_out)
