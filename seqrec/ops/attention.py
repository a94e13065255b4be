"""Attention over packed histories: causal, causal where only the newest events ask, and bidirectional."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.nn import functional as F

from seqrec.ops.dispatch import Op
from seqrec.ops.dropout import drop
from seqrec.ops.rectangles import Rectangles

_MANY = 128  # histories
_FEW = 0.4  # remembered events per new one


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
def continued_attention(
    q: Float[Tensor, "M H C"],
    k: Float[Tensor, "T H C"],
    v: Float[Tensor, "T H C"],
    offsets: Int[Tensor, "bounds"],
    past_k: Float[Tensor, "P H C"],
    past_v: Float[Tensor, "P H C"],
    past_offsets: Int[Tensor, "bounds"],
    query_offsets: Int[Tensor, "bounds"] | None = None,
    dropout: float = 0.0,
) -> Float[Tensor, "M H C"]:
    """`resumed_attention` of events behind keys and values that are remembered, which nobody has joined yet.

    Args:
        q: queries of the new events, or of the newest of them.
        k: keys of the new events.
        v: their values.
        offsets: where the new events of each history begin and end; a history may have none.
        past_k: keys that are remembered.
        past_v: values that are remembered.
        past_offsets: where those of each history begin and end; a history may have none.
        query_offsets: where the queries of each history begin and end; None: all new events ask.
        dropout: share of attention weights dropped, in [0, 1); pass 0 outside training.
    """
    both = joiner(past_offsets, offsets, len(past_k), len(k))
    asking = offsets if query_offsets is None else query_offsets
    return resumed_attention(q, both(past_k, k), both(past_v, v), asking, past_offsets + offsets, dropout)


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
    if not len(q):
        return torch.zeros_like(v)
    attend = _attend(q, dropout)
    if len(lengths) == 1:
        heads = [x.transpose(0, 1)[None] for x in (q, k, v)]
        return attend(*heads, dropout_p=dropout, is_causal=is_causal)[0].transpose(0, 1)
    groups = _alike(octave(lengths, _shortest(lengths)).where(lengths > 0, -1))
    rectangles = Rectangles(offsets, groups, q.shape[1], len(q))
    states = []
    for members, *heads in zip(groups, *(rectangles.lay(x) for x in (q, k, v)), strict=True):
        visible, longest = None, heads[1].shape[2]
        if not is_causal:
            visible = torch.arange(longest, device=q.device) < lengths[members][:, None, None, None]
        states.append(attend(*heads, attn_mask=visible, dropout_p=dropout, is_causal=is_causal))
    return rectangles.gather(states).to(v.dtype)


@resumed_attention.implementation("grouped", refuses=_never)
def _resumed_in_groups(
    q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, key_offsets: Tensor, dropout: float = 0.0
) -> Tensor:
    """Histories that ask with a like number of events, of a like number, are computed together."""
    lengths, key_lengths = offsets.diff(), key_offsets.diff()
    if not len(q):
        return torch.zeros_like(q)
    attend = _attend(q, dropout)
    if len(lengths) == 1:
        heads = [x.transpose(0, 1)[None] for x in (q, k, v)]
        visible = _newest_see(lengths, key_lengths, len(q), len(k)) if len(q) > 1 else None
        return attend(*heads, attn_mask=visible, dropout_p=dropout)[0].transpose(0, 1)
    groups = groups_of(key_lengths, lengths, _shortest(key_lengths))
    asked = Rectangles(key_offsets, groups, k.shape[1], len(k))
    return _behind_a_mask(q, asked.lay(k), asked.lay(v), offsets, lengths, key_lengths, groups, dropout)


def _alone(q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, *_: Any, **__: Any) -> str | None:
    return "there is one history" if len(offsets) == 2 else None


@continued_attention.implementation("grouped", refuses=_alone)
def _continued_in_groups(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    offsets: Tensor,
    past_k: Tensor,
    past_v: Tensor,
    past_offsets: Tensor,
    query_offsets: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """What is remembered is laid before the new events. Where it is little and all of them ask, it is cheaper to let
    that ask, too, than to mask what each event sees."""
    lengths = offsets.diff()
    if not len(q):
        return torch.zeros_like(q)
    whole = lengths + past_offsets.diff()
    queries = offsets if query_offsets is None else query_offsets
    asking, unmasked = queries.diff(), query_offsets is None and len(past_k) <= _FEW * len(q)
    groups = groups_of(whole, torch.where(asking > 0, whole, 0) if unmasked else asking, _shortest(whole))
    asked = Rectangles(offsets, groups, k.shape[1], len(k), past_offsets)
    heads = asked.lay(k, past_k), asked.lay(v, past_v)
    if unmasked:
        attend = _attend(q, dropout)
        laid = zip(asked.lay(q), *heads, strict=True)
        return asked.gather([attend(*each, dropout_p=dropout, is_causal=True) for each in laid]).to(v.dtype)
    return _behind_a_mask(q, *heads, queries, asking, whole, groups, dropout)


def _behind_a_mask(
    q: Tensor,
    keys: list[Tensor],
    values: list[Tensor],
    offsets: Tensor,
    lengths: Tensor,
    key_lengths: Tensor,
    groups: list[Tensor],
    dropout: float,
) -> Tensor:
    """Attention of the newest events to keys and values that are laid in rectangles."""
    attend, asking = _attend(q, dropout), Rectangles(offsets, groups, q.shape[1], len(q))
    states = []
    for members, *heads in zip(groups, asking.lay(q), keys, values, strict=True):
        visible = _newest_see(lengths[members], key_lengths[members], heads[0].shape[2], heads[1].shape[2])
        states.append(attend(*heads, attn_mask=visible, dropout_p=dropout))
    return asking.gather(states).to(q.dtype)


def groups_of(key_lengths: Int[Tensor, "B"], lengths: Int[Tensor, "B"], shortest: int = 16) -> list[Tensor]:
    """Histories of like lengths that ask with a like number of events; those that do not ask are in no group."""
    return _alike((64 * octave(key_lengths, shortest) + octave(lengths, shortest)).where(lengths > 0, -1))


def _alike(group: Int[Tensor, "B"]) -> list[Tensor]:
    """The histories of each group but those of the group -1."""
    return [(group == each).nonzero().squeeze(1) for each in group.unique().tolist() if each >= 0]


def _newest_see(lengths: Tensor, key_lengths: Tensor, most: int, longest: int) -> Bool[Tensor, "b 1 i j"]:
    """What each of the newest ``lengths`` of ``key_lengths`` events sees: itself and what came before."""
    newest_key = (key_lengths - lengths)[:, None] + torch.arange(most, device=lengths.device)
    return (torch.arange(longest, device=lengths.device) <= newest_key[:, :, None])[:, None]


def _shortest(lengths: Tensor) -> int:
    """Up to how many events histories share a group: on a CPU, fewer where so many are short that a group pays."""
    return 4 if lengths.device.type == "cpu" and len(lengths) >= _MANY else 16


def octave(lengths: Int[Tensor, "B"], shortest: int = 16) -> Int[Tensor, "B"]:
    """Half-octaves of length: at most three tenths of a rectangle is filling. Shorter ones than that are one group."""
    return (lengths.clamp(min=shortest).to(torch.float32).log2() * 2).long()


def events_of(starts: Tensor, lengths: Tensor) -> Tensor:
    """The places of all events of histories that start here and have these lengths."""
    total = int(lengths.sum())
    firsts = torch.repeat_interleave(starts - (lengths.cumsum(0) - lengths), lengths, output_size=total)
    return firsts + torch.arange(total, device=starts.device)


def _attend(q: Tensor, dropout: float) -> Callable[..., Tensor]:
    return _with_dropout if dropout and q.device.type == "cpu" else F.scaled_dot_product_attention


def _with_dropout(
    q: Tensor, k: Tensor, v: Tensor, dropout_p: float, attn_mask: Tensor | None = None, is_causal: bool = False
) -> Tensor:
    """The same plain products that torch falls back to on a CPU, with our dropout, which is several times faster."""
    n_queries, n_keys = q.shape[-2], k.shape[-2]
    unseen = q.new_full((n_queries, n_keys), -torch.inf).triu(1) if is_causal else q.new_zeros(())
    products = torch.baddbmm(unseen, q.flatten(0, 1), k.flatten(0, 1).mT, alpha=q.shape[-1] ** -0.5)
    scores = products.view(*q.shape[:2], n_queries, n_keys)
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -torch.inf)
    return drop(scores.softmax(-1), dropout_p) @ v
