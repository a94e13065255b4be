"""Ranks of targets and lists of the best, in blocks that stay in cache: no matrix of all scores is ever held.

A score is the inner product of a query [K] and a key [K]. What a prediction leaves out is given as one packed run:
prediction ``m`` leaves out ``seen_items[seen_offsets[m]:seen_offsets[m + 1]]``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

_CPU_BLOCK_BYTES = 4 * 2**20
_GPU_BLOCK_BYTES = 256 * 2**20
# Float32 candidates beyond k, so that their rounding rarely asks for a second look.
_MARGIN = 32
_NOTHING = -1
# Products of fewer queries, or with fewer keys, round equal keys differently.
_FEWEST_QUERIES, _FEWEST_KEYS = 4, 64


@torch.no_grad()
def target_ranks(
    queries: Float[Tensor, "M K"],
    keys: Float[Tensor, "N K"],
    targets: Int[Tensor, "M"],
    seen_items: Int[Tensor, "S"] | None = None,
    seen_offsets: Int[Tensor, "bounds"] | None = None,
) -> Int[Tensor, "M"]:
    """How many *other* unseen rows score at least as high as each target: 0 is best, ties count against the target.

    Scores are full float32 products, whatever the ambient autocast or matrix precision. The target is never counted
    and never left out, even where it is listed as seen; its score is read from the same product as its rivals'.

    Raises:
        FloatingPointError: a score is not finite.
    """
    with full_float32(queries.device):
        queries, keys = queries.float(), keys.float()
        check = _nothing_to_check if _cannot_overflow(queries, keys) else _demand_finite
        n_keys = keys.shape[0]
        transposed = _at_least(keys, _FEWEST_KEYS).T

        def product(start: int, end: int) -> Tensor:
            asking = _at_least(queries[start:end], _FEWEST_QUERIES)
            return check((asking @ transposed)[: end - start, :n_keys])

        return _ranks(product, n_keys, targets, _Seen(seen_items, seen_offsets, targets))


@torch.no_grad()
def ranks_of_scores(
    scores: Num[Tensor, "M N"],
    targets: Int[Tensor, "M"],
    seen_items: Int[Tensor, "S"] | None = None,
    seen_offsets: Int[Tensor, "bounds"] | None = None,
) -> Int[Tensor, "M"]:
    """The same ranks for scores that are no inner products, compared in their own precision.

    Raises:
        FloatingPointError: a score is not finite.
    """

    def copy(start: int, end: int) -> Tensor:
        return _demand_finite(_copy_as_float(scores[start:end]))

    return _ranks(copy, scores.shape[1], targets, _Seen(seen_items, seen_offsets, targets))


@torch.no_grad()
def top_k(
    queries: Float[Tensor, "M K"],
    keys: Float[Tensor, "N K"],
    k: int,
    seen_items: Int[Tensor, "S"] | None = None,
    seen_offsets: Int[Tensor, "bounds"] | None = None,
) -> tuple[Int[Tensor, "M k"], Float[Tensor, "M k"]]:
    """The k best rows of each query that it has not seen, by score from high to low, then by row from low to high.

    Candidates come from float32 products and are settled by ``best_candidates`` in float64. Where rounding or ties
    could hide a better row behind the candidates, more are taken, so the list is the one of the float64 scores.

    Returns:
        rows, -1 where fewer than k are left, and their scores in float32, minus infinity where there is no row.

    Raises:
        FloatingPointError: a score is not finite.
    """
    _demand_positive(k)
    rows, values = [], []
    with full_float32(queries.device):
        queries, keys = queries.float(), keys.float()
        check = _nothing_to_check if _cannot_overflow(queries, keys) else _demand_finite
        seen = _Seen(seen_items, seen_offsets, queries)
        doubt = _rounding(queries, keys)
        for start, end in _blocks(queries.shape[0], keys.shape[0], queries.device):
            scores = seen.leave_out(check(queries[start:end] @ keys.T), start, end)
            candidates = _candidates(scores, k, 2 * doubt[start:end, None])
            block_rows, block_values = best_candidates(queries[start:end], keys, candidates, k)
            rows.append(block_rows)
            values.append(block_values)
    return _stack(rows, (0, k), queries, torch.long), _stack(values, (0, k), queries, torch.float32)


@torch.no_grad()
def best_of(
    scores: Num[Tensor, "M N"],
    k: int,
    seen_items: Int[Tensor, "S"] | None = None,
    seen_offsets: Int[Tensor, "bounds"] | None = None,
) -> tuple[Int[Tensor, "M k"], Float[Tensor, "M k"]]:
    """The same lists for scores that are no inner products, compared in their own precision.

    Raises:
        FloatingPointError: a score is not finite.
    """
    _demand_positive(k)
    rows, values = [], []
    seen = _Seen(seen_items, seen_offsets, scores)
    for start, end in _blocks(scores.shape[0], scores.shape[1], scores.device):
        block = seen.leave_out(_demand_finite(_copy_as_float(scores[start:end])), start, end)
        candidates = _candidates(block, k, torch.zeros_like(block[:, :1]))
        found = block.gather(1, candidates.clamp_min(0)).masked_fill_(candidates < 0, -torch.inf)
        block_rows, block_values = _in_order(candidates, found, k)
        rows.append(block_rows)
        values.append(block_values)
    return _stack(rows, (0, k), scores, torch.long), _stack(values, (0, k), scores, torch.float32)


@torch.no_grad()
def rescore(
    queries: Float[Tensor, "M K"], keys: Float[Tensor, "N K"], candidates: Int[Tensor, "M C"]
) -> Float[Tensor, "M C"]:
    """Float64 scores of some rows per query; minus infinity where the candidate is -1.

    Products are added pairwise in a fixed order, so a score depends on its query and key alone: not on the other
    candidates, the batch or the device, and equal keys have equal scores.
    """
    terms = queries.double().unsqueeze(1) * keys[candidates.clamp_min(0)].double()
    while terms.shape[-1] > 1:
        half = terms.shape[-1] // 2
        paired = terms[..., :half] + terms[..., half : 2 * half]
        terms = torch.cat([paired, terms[..., 2 * half :]], dim=-1) if terms.shape[-1] % 2 else paired
    return terms.sum(-1).masked_fill_(candidates < 0, -torch.inf)


@torch.no_grad()
def best_candidates(
    queries: Float[Tensor, "M K"], keys: Float[Tensor, "N K"], candidates: Int[Tensor, "M C"], k: int
) -> tuple[Int[Tensor, "M k"], Float[Tensor, "M k"]]:
    """The k best of some distinct candidates per query, however they were found: by ``rescore``, then by row.

    Candidates of -1 stand for nothing. Two generators whose candidates both hold the best k give the same list.
    """
    rows, values = [], []
    width = max(1, candidates.shape[1] * keys.shape[1])
    for start, end in _blocks(queries.shape[0], width, queries.device, bytes_per_score=8):
        block = candidates[start:end]
        block_rows, block_values = _in_order(block, rescore(queries[start:end], keys, block), k)
        rows.append(block_rows)
        values.append(block_values)
    return _stack(rows, (0, k), queries, torch.long), _stack(values, (0, k), queries, torch.float32)


def _ranks(block_of: Callable[[int, int], Tensor], n_rows: int, targets: Tensor, seen: _Seen) -> Tensor:
    """Count the rivals of each target; ``block_of(start, end)`` makes scores that may be written to."""
    ranks = torch.empty_like(targets, dtype=torch.long)
    # Ones are summed in the scores' own memory: exact in float32 up to 2^24, and several times faster than booleans.
    counting = None if n_rows < 2**24 else torch.float64
    for start, end in _blocks(targets.numel(), n_rows, targets.device):
        scores = block_of(start, end)
        own = targets[start:end, None]
        bar = scores.gather(1, own)
        seen.leave_out(scores, start, end).scatter_(1, own, -torch.inf)
        ranks[start:end] = scores.ge_(bar).sum(1, dtype=counting)
    return ranks


class _Seen:
    """What each prediction leaves out, cut into blocks without asking the device for every one."""

    def __init__(self, items: Tensor | None, offsets: Tensor | None, like: Tensor) -> None:
        if (items is None) != (offsets is None):
            raise ValueError("Seen items came without offsets, or offsets without items; give both or neither.")
        n_predictions = like.shape[0]
        if items is None or offsets is None:
            self.items = self.owners = like.new_empty(0, dtype=torch.long)
            self.offsets = [0] * (n_predictions + 1)
            return
        if offsets.numel() != n_predictions + 1:
            raise ValueError(
                f"Seen items came with {offsets.numel()} offsets for {n_predictions} predictions; "
                f"give {n_predictions + 1}."
            )
        rows = torch.arange(n_predictions, device=offsets.device)
        self.items = items.long()
        self.owners = torch.repeat_interleave(rows, offsets.diff(), output_size=items.numel())
        self.offsets = offsets.tolist()

    def leave_out(self, scores: Tensor, start: int, end: int) -> Tensor:
        """Set the scores of what predictions ``start`` to ``end`` have seen to minus infinity, in place."""
        first, last = self.offsets[start], self.offsets[end]
        if last > first:
            scores[self.owners[first:last] - start, self.items[first:last]] = -torch.inf
        return scores


def _blocks(
    n_predictions: int, width: int, device: torch.device, bytes_per_score: int = 4
) -> Iterator[tuple[int, int]]:
    budget = _CPU_BLOCK_BYTES if device.type == "cpu" else _GPU_BLOCK_BYTES
    size = max(1, budget // max(1, width * bytes_per_score))
    for start in range(0, n_predictions, size):
        yield start, min(start + size, n_predictions)


def _candidates(scores: Tensor, k: int, doubt: Tensor) -> Tensor:
    """Rows that hold the true k best if scores are wrong by at most half of ``doubt`` [M, 1]; -1 fills up."""
    n_rows = scores.shape[1]
    values, rows = scores.topk(min(k + _MARGIN, n_rows), dim=1)
    if values.shape[1] < n_rows:
        bar = values[:, k - 1 : k] - doubt
        if bool((values[:, -1:] >= bar).logical_and(values[:, -1:] > -torch.inf).any()):
            width = int(((scores >= bar) & (scores > -torch.inf)).sum(1).max())
            values, rows = scores.topk(max(width, k), dim=1)
    return rows.masked_fill_(values == -torch.inf, _NOTHING)


def _in_order(candidates: Tensor, scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The first k by score from high to low, then by row from low to high, filled up to k."""
    candidates, by_row = candidates.sort(dim=1)
    scores, by_score = scores.gather(1, by_row).sort(dim=1, descending=True, stable=True)
    candidates = candidates.gather(1, by_score)
    lacking = max(0, k - candidates.shape[1])
    rows = torch.nn.functional.pad(candidates[:, :k], (0, lacking), value=_NOTHING)
    values = torch.nn.functional.pad(scores[:, :k].float(), (0, lacking), value=-torch.inf)
    return rows, values


def _rounding(queries: Tensor, keys: Tensor) -> Tensor:
    """How far a float32 product of each query may be from the true one, with room to spare."""
    largest = torch.linalg.vector_norm(keys.double(), dim=1).max() if keys.shape[0] else keys.new_zeros(())
    sizes = torch.linalg.vector_norm(queries.double(), dim=1) * largest
    return ((keys.shape[1] + 2) * 2.0**-23 * sizes).float()


def _at_least(rows: Tensor, n: int) -> Tensor:
    """The rows, and the last one again until there are n; none stay none."""
    return torch.cat([rows, rows[-1:].expand(n - len(rows), -1)]) if 0 < len(rows) < n else rows


def _cannot_overflow(queries: Tensor, keys: Tensor) -> bool:
    """Whether every product is finite already because its factors are small: far cheaper than to look at each."""
    if not queries.numel() or not keys.numel():
        return True
    sizes = (torch.linalg.vector_norm(part.double(), dim=1).max() for part in (queries, keys))
    return bool(torch.stack(list(sizes)).prod() < 1e38)


def _nothing_to_check(scores: Tensor) -> Tensor:
    return scores


def _demand_finite(scores: Tensor) -> Tensor:
    if not bool(scores.isfinite().all()):
        raise FloatingPointError(
            "A score is NaN or infinite, so ranks would mean nothing; "
            "look for a diverged training run (lower the learning rate or clip gradients) or a broken checkpoint."
        )
    return scores


def _demand_positive(k: int) -> None:
    if k < 1:
        raise ValueError(f"k is {k}; ask for at least 1 item.")


def _copy_as_float(scores: Tensor) -> Tensor:
    """A copy that can hold minus infinity; half precision and integers are widened without loss up to 2^53."""
    exact = torch.float32 if scores.is_floating_point() and scores.element_size() <= 4 else torch.float64
    return scores.to(exact, copy=True)


def _stack(parts: list[Tensor], empty: tuple[int, int], like: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.cat(parts) if parts else torch.empty(empty, dtype=dtype, device=like.device)


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """Multiply float32 as float32: no autocast, no shortened mantissas, which cuDNN takes unasked."""
    before, of_cudnn = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
        torch.backends.cudnn.allow_tf32 = of_cudnn
