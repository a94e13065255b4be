"""Rows of packed histories laid in other orders, for kernels that need them so."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


def pick(rows: Float[Tensor, "R *d"], places: Int[Tensor, "n"]) -> Float[Tensor, "n *d"]:
    """Rows at distinct places; the backward pass copies where indexing in general would have to add."""
    return _Pick.apply(rows, places)


def spread(rows: Float[Tensor, "n *d"], places: Int[Tensor, "n"], size: int) -> Float[Tensor, "size *d"]:
    """Rows to distinct places of a longer, otherwise zero tensor; the backward pass only has to look them up."""
    return _Spread.apply(rows, places, size)


def in_rectangle(offsets: Int[Tensor, "bounds"], width: int, n_events: int) -> Int[Tensor, "n_events"]:
    """Where events are spread to when each history becomes ``width`` rows, filled up behind its newest event."""
    shift = torch.arange(len(offsets) - 1, device=offsets.device) * width - offsets[:-1]
    shift = torch.repeat_interleave(shift, offsets.diff(), output_size=n_events)
    return torch.arange(n_events, device=offsets.device) + shift


def inverse(order: Int[Tensor, "n"]) -> Int[Tensor, "n"]:
    """The order that undoes an order of all rows."""
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))


class TimeMajor(NamedTuple):
    """First the oldest events of all histories, then their second events, and so on; the longest history comes first.

    Attributes:
        events: places of the events in this order.
        counts: how many histories have a first event, a second, and so on; they are always the first of ``histories``.
        histories: whose events these are, the longest first; those without events come last.
    """

    events: Int[Tensor, "n"]
    counts: list[int]
    histories: Int[Tensor, "b"]


def time_major(offsets: Int[Tensor, "bounds"], together: int | None = None) -> list[TimeMajor]:
    """Orders in which ``together`` histories (None: all) take a step together, beginning with the longest ones."""
    lengths = offsets.diff()
    longest = torch.argsort(lengths, descending=True, stable=True)
    return [
        _time_major(offsets[:-1], lengths, histories) for histories in longest.split(together or max(1, len(longest)))
    ]


def _time_major(starts: Tensor, lengths: Tensor, histories: Tensor) -> TimeMajor:
    lengths = lengths[histories]
    ended = torch.bincount(lengths)
    width = (len(lengths) - ended.cumsum(0))[:-1]
    total = int(lengths.sum())
    steps = torch.repeat_interleave(torch.arange(len(width), device=starts.device), width, output_size=total)
    ranks = torch.arange(total, device=starts.device) - (width.cumsum(0) - width)[steps]
    return TimeMajor(starts[histories][ranks] + steps, width.tolist(), histories)


class _Pick(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        ctx.size = rows.shape[0]
        return rows.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (places,) = ctx.saved_tensors
        (gradient,) = gradients
        return gradient.new_zeros(ctx.size, *gradient.shape[1:]).index_copy_(0, places, gradient), None


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, places: Tensor, size: int) -> Tensor:
        ctx.save_for_backward(places)
        return rows.new_zeros(size, *rows.shape[1:]).index_copy_(0, places, rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (places,) = ctx.saved_tensors
        return gradients[0].index_select(0, places), None, None
