"""Causal attention over packed histories."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from seqrec.ops.dispatch import Op


@Op
def causal_attention(
    q: Float[Tensor, "T H C"],
    k: Float[Tensor, "T H C"],
    v: Float[Tensor, "T H C"],
    offsets: Int[Tensor, "bounds"],
    dropout: float = 0.0,
) -> Float[Tensor, "T H C"]:
    """Each event attends to itself and to what came before it in the same history.

    ``dropout`` is the share of attention weights dropped, in [0, 1); pass 0 outside training.
    """
    histories = []
    for start, end in offsets.unfold(0, 2, 1).tolist():
        heads = [x[start:end].transpose(0, 1) for x in (q, k, v)]
        histories.append(F.scaled_dot_product_attention(*heads, dropout_p=dropout, is_causal=True))
    return torch.cat(histories, dim=1).transpose(0, 1) if histories else torch.zeros_like(v)


def _never(*_: Any, **__: Any) -> str | None:
    return None


@causal_attention.implementation("grouped", refuses=_never)
def _grouped(q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, dropout: float = 0.0) -> Tensor:
    """Histories of like length are computed together, filled up behind their newest event, which no event can see."""
    lengths = offsets.diff()
    # Half-octaves of length: at most three tenths of a rectangle is filling. Up to 16 events, one group is cheaper.
    octave = (lengths.clamp(min=16).to(torch.float32).log2() * 2).floor()
    groups = octave.unique().tolist() if len(lengths) else []
    if len(groups) == 1:
        return _rectangle(q, k, v, lengths, dropout)
    out = torch.zeros_like(v)
    for group in groups:
        members = (octave == group).nonzero().squeeze(1)
        events = _events(offsets[:-1][members], lengths[members])
        asking, asked, told = (_Pick.apply(x, events) for x in (q, k, v))
        out = out.index_copy(0, events, _rectangle(asking, asked, told, lengths[members], dropout).to(out.dtype))
    return out


def _events(starts: Tensor, lengths: Tensor) -> Tensor:
    """The places of all events of histories that start here and have these lengths."""
    total = int(lengths.sum())
    firsts = torch.repeat_interleave(starts - (lengths.cumsum(0) - lengths), lengths, output_size=total)
    return firsts + torch.arange(total, device=starts.device)


def _rectangle(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, dropout: float) -> Tensor:
    """Attention of histories that lie end to end, as one [B, H, L, C] product each."""
    n_histories, longest = len(lengths), int(lengths.max())
    events, heads, channels = q.shape
    filled = events == n_histories * longest
    corner = torch.arange(n_histories, device=q.device) * longest
    cells = corner if filled else _events(corner, lengths)

    def spread(x: Tensor) -> Tensor:
        wide = x if filled else _Spread.apply(x, cells, n_histories * longest)
        return wide.view(n_histories, longest, heads, channels).transpose(1, 2)

    out = F.scaled_dot_product_attention(spread(q), spread(k), spread(v), dropout_p=dropout, is_causal=True)
    flat = out.transpose(1, 2).reshape(n_histories * longest, heads, channels)
    return flat if filled else _Pick.apply(flat, cells)


class _Spread(torch.autograd.Function):
    """Rows to distinct places of a longer, otherwise zero tensor; the backward pass only has to look them up."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, places: Tensor, size: int) -> Tensor:
        ctx.save_for_backward(places)
        return rows.new_zeros(size, *rows.shape[1:]).index_copy_(0, places, rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (places,) = ctx.saved_tensors
        return gradients[0].index_select(0, places), None, None


class _Pick(torch.autograd.Function):
    """Rows at distinct places; the backward pass copies where indexing in general would have to add."""

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
