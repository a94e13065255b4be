"""Packed histories laid side by side in rectangles, head by head, as batched products need them, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Rectangles:
    """Where the events of packed histories lie when groups of histories become rectangles ``[b, H, L, C]``.

    A history shorter than the longest of its group is filled up behind its newest event, with that event.

    Args:
        offsets: where the events of each history begin and end.
        groups: which histories share a rectangle; none twice, none without events.
        n_heads: H.
        n_events: T, how many events there are in all.
        past_offsets: where what each history remembers begins and ends, which stands before its first event. None:
            nobody remembers anything.
    """

    def __init__(
        self,
        offsets: Int[Tensor, "bounds"],
        groups: Sequence[Tensor],
        n_heads: int,
        n_events: int,
        past_offsets: Int[Tensor, "bounds"] | None = None,
    ) -> None:
        self.n_heads = n_heads
        lengths = offsets.diff()
        heads = torch.arange(n_heads, device=offsets.device)[:, None]
        self.shapes, rows, filled, past_rows, past = [], [], [], [], []
        for members in groups:
            own = lengths[members][:, None]
            before = torch.zeros_like(own) if past_offsets is None else past_offsets.diff()[members][:, None]
            longest = int((before + own).max())
            place = torch.arange(longest, device=offsets.device) - before
            event = offsets[:-1][members][:, None] + torch.minimum(place, own - 1).clamp(min=0)
            rows.append((event[:, None] * n_heads + heads).flatten())
            filled.append(((place >= 0) & (place < own))[:, None].expand(-1, n_heads, -1).flatten())
            self.shapes.append((len(members), longest))
            if past_offsets is not None:
                event = past_offsets[1:][members][:, None] + place
                past_rows.append((event[:, None] * n_heads + heads).flatten())
                past.append((place < 0)[:, None].expand(-1, n_heads, -1).flatten())
        self.rows = torch.cat(rows)
        self.cells = torch.cat(filled).nonzero().squeeze(1)
        self.origins = self.rows[self.cells]
        if past_offsets is not None:
            self.past_cells = torch.cat(past).nonzero().squeeze(1)
            self.past_rows = torch.cat(past_rows)[self.past_cells]
        self.cell_of = None
        if len(self.cells) == n_events * n_heads:
            self.cell_of = torch.empty_like(self.cells).scatter_(0, self.origins, self.cells)

    def lay(
        self, x: Float[Tensor, "T H C"], past: Float[Tensor, "P H C"] | None = None
    ) -> list[Float[Tensor, "_ H _ C"]]:
        """The events of each group behind what they remember; without ``past`` the first event stands there, too."""
        laid = _Lay.apply(x.reshape(-1, x.shape[-1]), past if past is None else past.reshape(-1, x.shape[-1]), self)
        sizes = [n * self.n_heads * longest for n, longest in self.shapes]
        shapes = ((n, self.n_heads, longest, x.shape[-1]) for n, longest in self.shapes)
        return [each.view(shape) for each, shape in zip(laid.split(sizes), shapes, strict=True)]

    def gather(self, laid: Sequence[Float[Tensor, "_ H _ C"]]) -> Float[Tensor, "T H C"]:
        """Events as they were before they were laid; each must lie in some rectangle."""
        flat = [each.reshape(-1, each.shape[-1]) for each in laid]
        rows = _Gather.apply(flat[0] if len(flat) == 1 else torch.cat(flat), self)
        return rows.view(-1, self.n_heads, rows.shape[-1])


class _Lay(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, past: Tensor | None, rectangles: Rectangles) -> Tensor:
        ctx.rectangles, ctx.n_rows, ctx.n_past = rectangles, len(rows), 0 if past is None else len(past)
        ctx.has_past = past is not None
        laid = rows.index_select(0, rectangles.rows)
        if past is not None:
            laid.index_copy_(0, rectangles.past_cells, past.to(rows.dtype).index_select(0, rectangles.past_rows))
        return laid

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None]:
        (gradient,) = gradients
        rectangles, of_past = ctx.rectangles, None
        if ctx.has_past:
            some = gradient.index_select(0, rectangles.past_cells)
            of_past = gradient.new_zeros(ctx.n_past, gradient.shape[1]).index_copy_(0, rectangles.past_rows, some)
        if rectangles.cell_of is not None:
            return gradient.index_select(0, rectangles.cell_of), of_past, None
        some = gradient.index_select(0, rectangles.cells)
        of_rows = gradient.new_zeros(ctx.n_rows, gradient.shape[1]).index_copy_(0, rectangles.origins, some)
        return of_rows, of_past, None


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, laid: Tensor, rectangles: Rectangles) -> Tensor:
        assert rectangles.cell_of is not None, "an event lies in no rectangle"
        ctx.cell_of, ctx.n_cells = rectangles.cell_of, len(laid)
        return laid.index_select(0, rectangles.cell_of)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        return gradient.new_zeros(ctx.n_cells, gradient.shape[1]).index_copy_(0, ctx.cell_of, gradient), None
