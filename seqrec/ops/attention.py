"""Attention over packed histories: causal, causal where only the newest events ask, and bidirectional."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.nn import functional as F

from seqrec.ops.dispatch import Op
from seqrec.ops.dropout import drop
from seqrec.ops.rows import pick, spread


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
    for start, end in pairwise(offsets.tolist()):
        heads = [x[start:end].transpose(0, 1) for x in (q, k, v)]
        histories.append(F.scaled_dot_product_attention(*heads, dropout_p=dropout, is_causal=True))
    return torch.cat(histories, dim=1).transpose(0, 1) if histories else torch.zeros_like(v)


@Op
def resumed_attention(
    q: Float[Tensor, "T H C"],
    k: Float[Tensor, "S H C"],
    v: Float[Tensor, "S H C"],
    offsets: Int[Tensor, "bounds"],
    key_offsets: Int[Tensor, "bounds"],
    dropout: float = 0.0,
) -> Float[Tensor, "T H C"]:
    """Causal attention where only the newest events of each history ask; without older ones it is `causal_attention`.

    Args:
        q: queries of the newest events of each history; a history may have none.
        k: keys of all its events, the asking ones included.
        v: values of the same events.
        offsets: where the queries of each history begin and end.
        key_offsets: where its keys and values begin and end.
        dropout: share of attention weights dropped, in [0, 1); pass 0 outside training.
    """
    histories = []
    for (start, end), (first, last) in zip(*(pairwise(o.tolist()) for o in (offsets, key_offsets)), strict=True):
        heads = [x.transpose(0, 1) for x in (q[start:end], k[first:last], v[first:last])]
        older = (last - first) - (end - start)
        visible = torch.ones(end - start, last - first, dtype=torch.bool, device=q.device).tril(older)
        histories.append(F.scaled_dot_product_attention(*heads, attn_mask=visible, dropout_p=dropout))
    return torch.cat(histories, dim=1).transpose(0, 1) if histories else torch.zeros_like(q)


@Op
def bidirectional_attention(
    q: Float[Tensor, "T H C"],
    k: Float[Tensor, "T H C"],
    v: Float[Tensor, "T H C"],
    offsets: Int[Tensor, "bounds"],
    dropout: float = 0.0,
) -> Float[Tensor, "T H C"]:
    """Each event attends to all events of the same history.

    ``dropout`` is the share of attention weights dropped, in [0, 1); pass 0 outside training.
    """
    histories = []
    for start, end in pairwise(offsets.tolist()):
        heads = [x[start:end].transpose(0, 1) for x in (q, k, v)]
        histories.append(F.scaled_dot_product_attention(*heads, dropout_p=dropout))
    return torch.cat(histories, dim=1).transpose(0, 1) if histories else torch.zeros_like(v)


def join(
    past: Shaped[Tensor, "P *d"],
    new: Shaped[Tensor, "T *d"],
    past_offsets: Int[Tensor, "bounds"],
    offsets: Int[Tensor, "bounds"],
) -> Shaped[Tensor, "S *d"]:
    """The new rows of each history laid behind its past ones; it then begins and ends at ``past_offsets + offsets``."""
    return joiner(past_offsets, offsets, len(past), len(new))(past, new)


def joiner(
    past_offsets: Int[Tensor, "bounds"], offsets: Int[Tensor, "bounds"], n_past: int, n_new: int
) -> Callable[[Tensor, Tensor], Tensor]:
    """``join`` for several tensors of rows, which are laid alike."""
    if len(offsets) == 2:
        return lambda past, new: torch.cat([past.to(new.dtype), new])
    past_places, new_places = (
        torch.arange(n, device=offsets.device) + torch.repeat_interleave(shift, bounds.diff(), output_size=n)
        for n, bounds, shift in ((n_past, past_offsets, offsets[:-1]), (n_new, offsets, past_offsets[1:]))
    )

    def joined(past: Tensor, new: Tensor) -> Tensor:
        rows = new.new_empty(n_past + n_new, *new.shape[1:])
        return rows.index_copy_(0, past_places, past.to(new.dtype)).index_copy_(0, new_places, new)

    return joined


@causal_attention.exported
def _exported(q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, dropout: float = 0.0) -> Tensor:
    places = torch.arange(q.shape[0], device=q.device)
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=places <= places[:, None])[0].transpose(0, 1)


@bidirectional_attention.exported
def _bidirectional_exported(q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, dropout: float = 0.0) -> Tensor:
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v)[0].transpose(0, 1)


def _never(*_: Any, **__: Any) -> str | None:
    return None


@causal_attention.implementation("grouped", refuses=_never)
def _grouped(q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, dropout: float = 0.0) -> Tensor:
    """Histories are filled up behind their newest event, which no event can see."""
    return _in_groups(q, k, v, offsets, dropout, is_causal=True)


@bidirectional_attention.implementation("grouped", refuses=_never)
def _bidirectional_in_groups(q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, dropout: float = 0.0) -> Tensor:
    """Histories are filled up behind their newest event, and what fills them up is masked."""
    return _in_groups(q, k, v, offsets, dropout, is_causal=False)


def _in_groups(q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, dropout: float, is_causal: bool) -> Tensor:
    """Histories of like length are computed together."""
    lengths = offsets.diff()
    group = octave(lengths)
    groups = group.unique().tolist() if len(lengths) else []
    if len(groups) == 1:
        return _rectangle(q, k, v, lengths, dropout, is_causal)
    out = torch.zeros_like(v)
    for each in groups:
        members = (group == each).nonzero().squeeze(1)
        events = events_of(offsets[:-1][members], lengths[members])
        asking, asked, told = (pick(x, events) for x in (q, k, v))
        states = _rectangle(asking, asked, told, lengths[members], dropout, is_causal)
        out = out.index_copy(0, events, states.to(out.dtype))
    return out


@resumed_attention.implementation("grouped", refuses=_never)
def _resumed_in_groups(
    q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, key_offsets: Tensor, dropout: float = 0.0
) -> Tensor:
    """Histories that ask with a like number of events, of a like number, are computed together."""
    lengths, key_lengths = offsets.diff(), key_offsets.diff()
    if len(lengths) == 1 and len(q):
        return _resumed_rectangle(q, k, v, lengths, key_lengths, dropout)
    group = torch.where(lengths > 0, 64 * octave(key_lengths) + octave(lengths), -1)
    groups = group.unique().tolist()
    if len(groups) == 1 and groups[0] >= 0:
        return _resumed_rectangle(q, k, v, lengths, key_lengths, dropout)
    out = torch.zeros_like(q)
    for each in (each for each in groups if each >= 0):
        members = (group == each).nonzero().squeeze(1)
        asking = events_of(offsets[:-1][members], lengths[members])
        asked = events_of(key_offsets[:-1][members], key_lengths[members])
        wants, keys, told = (pick(x, events) for x, events in ((q, asking), (k, asked), (v, asked)))
        states = _resumed_rectangle(wants, keys, told, lengths[members], key_lengths[members], dropout)
        out = out.index_copy(0, asking, states.to(out.dtype))
    return out


def octave(lengths: Tensor) -> Tensor:
    """Half-octaves of length: at most three tenths of a rectangle is filling. Up to 16 events, one group is cheaper."""
    return (lengths.clamp(min=16).to(torch.float32).log2() * 2).floor()


def events_of(starts: Tensor, lengths: Tensor) -> Tensor:
    """The places of all events of histories that start here and have these lengths."""
    total = int(lengths.sum())
    firsts = torch.repeat_interleave(starts - (lengths.cumsum(0) - lengths), lengths, output_size=total)
    return firsts + torch.arange(total, device=starts.device)


def _rectangle(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, dropout: float, is_causal: bool) -> Tensor:
    """Attention of histories that lie end to end, as one [B, H, L, C] product each."""
    n_histories, longest = len(lengths), int(lengths.max())
    events, heads, channels = q.shape
    filled = events == n_histories * longest
    corner = torch.arange(n_histories, device=q.device) * longest
    cells = corner if filled else events_of(corner, lengths)

    def rectangle(x: Tensor) -> Tensor:
        wide = x if filled else spread(x, cells, n_histories * longest)
        return wide.view(n_histories, longest, heads, channels).transpose(1, 2)

    visible = None
    if not (is_causal or filled):
        # A history without events sees one zero, so that no softmax is over nothing.
        visible = torch.arange(longest, device=q.device) < lengths.clamp(min=1)[:, None, None, None]
    rectangles = (rectangle(q), rectangle(k), rectangle(v))
    attend = _with_dropout if dropout and q.device.type == "cpu" else F.scaled_dot_product_attention
    out = attend(*rectangles, attn_mask=visible, dropout_p=dropout, is_causal=is_causal)
    flat = out.transpose(1, 2).reshape(n_histories * longest, heads, channels)
    return flat if filled else pick(flat, cells)


def _with_dropout(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None, dropout_p: float, is_causal: bool
) -> Tensor:
    """The same plain products that torch falls back to on a CPU, with our dropout, which is several times faster."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if is_causal:
        scores = scores + scores.new_full(scores.shape[-2:], -torch.inf).triu(1)
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -torch.inf)
    return drop(scores.softmax(-1), dropout_p) @ v


def _resumed_rectangle(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, key_lengths: Tensor, dropout: float) -> Tensor:
    """The same where only the newest ``lengths`` of ``key_lengths`` events ask: [B, H, L, S] products."""
    n_histories, most, longest = len(lengths), int(lengths.max()), int(key_lengths.max())
    history = torch.arange(n_histories, device=q.device)
    asking, asked = (
        None if len(rows) == n_histories * length else events_of(history * length, own)
        for rows, own, length in ((q, lengths, most), (k, key_lengths, longest))
    )

    def rectangle(x: Tensor, cells: Tensor | None, length: int) -> Tensor:
        wide = x if cells is None else spread(x, cells, n_histories * length)
        return wide.view(n_histories, length, *x.shape[1:]).transpose(1, 2)

    visible = None
    if most > 1 or asked is not None:
        newest_key = (key_lengths - lengths)[:, None] + torch.arange(most, device=q.device)
        visible = (torch.arange(longest, device=q.device) <= newest_key[:, :, None])[:, None]
    heads = (rectangle(q, asking, most), rectangle(k, asked, longest), rectangle(v, asked, longest))
    attend = _with_dropout if dropout and q.device.type == "cpu" else F.scaled_dot_product_attention
    out = attend(*heads, attn_mask=visible, dropout_p=dropout, is_causal=False)
    flat = out.transpose(1, 2).reshape(n_histories * most, *q.shape[1:])
    return flat if asking is None else pick(flat, asking)
