"""Attention whose logits something may change first, such as what is known of places and times."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from seqrec.ops.attention import groups_of, joiner
from seqrec.ops.dispatch import Op
from seqrec.ops.dropout import drop
from seqrec.ops.rectangles import Rectangles

# Logits at hand at once: two MiB of float32, of which a step keeps some ten sets.
_CELLS = {"cpu": 2**19, "cuda": 2**26}


@dataclass(frozen=True)
class Stand:
    """Where and when events stand.

    Attributes:
        places: how many events of the same history came before each, those remembered included.
        times: in seconds since 1970: when a key happened, and when what follows a query is asked for; None where nobody
            needs them.
    """

    places: Int[Tensor, "*n"]
    times: Int[Tensor, "*n"] | None = None

    def at(self, index: Any) -> Stand:
        """That of some events, indexed as tensors are."""
        return Stand(self.places[index], None if self.times is None else self.times[index])


@dataclass(frozen=True)
class Pairs:
    """Queries of some histories beside keys of the same histories; a first dimension of 1 means the same for all.

    Where a history has no such query or key, and where a key is later than the query, nothing is visible, and what is
    said about it is thrown away.

    Attributes:
        queries: as they came, without the scale of the logits.
        asking: where the queries stand, ``[b i]``.
        asked: where the keys stand, ``[b j]``.
        n_visible: how many keys a query sees, always the first ones.
        n_later: how many keys of its history it does not see; a key that counts half may be half a key.
    """

    queries: Float[Tensor, "b H i C"]
    asking: Stand
    asked: Stand
    n_visible: Int[Tensor, "b i"]
    n_later: Shaped[Tensor, "b i"]

    @property
    def visible(self) -> Bool[Tensor, "b 1 i j"]:
        keys = torch.arange(self.asked.places.shape[1], device=self.n_visible.device)
        return keys < self.n_visible[:, None, :, None]

    @property
    def lags(self) -> Int[Tensor, "b i j"]:
        """How many events before the query the key happened."""
        return self.asking.places[:, :, None] - self.asked.places[:, None, :]


# Keys, values and offsets of what was remembered of each history.
Remembered = tuple[Float[Tensor, "P H C"], Float[Tensor, "P H V"], Int[Tensor, "bounds"]]
Adjust = Callable[[Tensor, Pairs], Tensor]
Weigh = Callable[[Tensor, Tensor], Tensor]


def softmax(logits: Float[Tensor, "b H i j"], visible: Bool[Tensor, "b 1 i j"]) -> Float[Tensor, "b H i j"]:
    """Weights that sum to 1 over what a query sees."""
    return logits.masked_fill(~visible, -torch.inf).softmax(-1)


@Op
def adjusted_attention(
    q: Float[Tensor, "T H C"],
    k: Float[Tensor, "S H C"],
    v: Float[Tensor, "S H V"],
    offsets: Int[Tensor, "bounds"],
    key_offsets: Int[Tensor, "bounds"],
    asking: Stand,
    asked: Stand,
    adjust: Adjust,
    weigh: Weigh = softmax,
    scale: float = 1.0,
    dropout: float = 0.0,
    past: Remembered | None = None,
) -> Float[Tensor, "T H V"]:
    """Causal attention of the newest events of each history, with other logits and other weights.

    Per history: ``weigh(adjust(scale · q kᵀ), visible) v``. Products of q and k are made in the precision at hand, say
    that of autocast; all that is made of them is float32 at least.

    Args:
        q: queries of the newest events of each history; a history may have none.
        k: keys of all its events, the asking ones included, but for those that ``past`` brings.
        v: values of the same events.
        offsets: where the queries of each history begin and end.
        key_offsets: where its keys and values begin and end.
        asking: where the queries stand.
        asked: where the keys stand, those of ``past`` before the others of their history.
        adjust: called with logits ``[b H i j]`` and their ``Pairs``; returns other logits. It may have parameters.
        weigh: called with logits and visibility; returns weights, which are zero where nothing is visible.
        scale: what the inner products are multiplied by.
        dropout: share of weights dropped, in [0, 1); pass 0 outside training.
        past: keys and values that stand before the others of their history, and where they begin and end; nobody need
            join them.
    """
    if past is not None:
        both = joiner(past[2], key_offsets, len(past[0]), len(k))
        k, v, key_offsets = both(past[0], k), both(past[1], v), past[2] + key_offsets
    out = [torch.zeros_like(v[:0])]
    for (start, end), (first, last) in zip(*(pairwise(o.tolist()) for o in (offsets, key_offsets)), strict=True):
        if end > start:
            asks, keys = asking.at((None, slice(start, end))), asked.at((None, slice(first, last)))
            n_visible = torch.arange(last - first - (end - start), last - first, device=q.device)[None] + 1
            wants, has, told = (x.transpose(0, 1)[None] for x in (q[start:end], k[first:last], v[first:last]))
            pairs = Pairs(wants, asks, keys, n_visible, last - first - n_visible)
            out.append(_attend(wants, has, told, pairs, adjust, weigh, scale, dropout)[0].transpose(0, 1))
    return torch.cat(out)


@adjusted_attention.exported
def _exported(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    offsets: Tensor,
    key_offsets: Tensor,
    asking: Stand,
    asked: Stand,
    adjust: Adjust,
    weigh: Weigh = softmax,
    scale: float = 1.0,
    dropout: float = 0.0,
    past: Remembered | None = None,
) -> Tensor:
    n_visible = torch.arange(1, q.shape[0] + 1, device=q.device)[None]
    wants, has, told = (x.transpose(0, 1)[None] for x in (q, k, v))
    pairs = Pairs(wants, asking.at(None), asked.at(None), n_visible, q.shape[0] - n_visible)
    return _attend(wants, has, told, pairs, adjust, weigh, scale, dropout)[0].transpose(0, 1)


def _never(*_: object, **__: object) -> str | None:
    return None


@adjusted_attention.implementation("grouped", refuses=_never)
def _grouped(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    offsets: Tensor,
    key_offsets: Tensor,
    asking: Stand,
    asked: Stand,
    adjust: Adjust,
    weigh: Weigh = softmax,
    scale: float = 1.0,
    dropout: float = 0.0,
    past: Remembered | None = None,
) -> Tensor:
    """Histories of like length are laid in rectangles, which are worked off in blocks of some histories, or of some
    queries of one long history. Logits are made again on the way back, so only those of one block are held. One small
    history that is only read, such as that of a request, is not worth being laid anywhere."""
    if not len(q):
        return v.new_zeros(0, *v.shape[1:])
    past_keys, past_values, past_offsets = (None, None, None) if past is None else past
    n_keys = len(k) if past_keys is None else len(k) + len(past_keys)
    if len(offsets) == 2 and not torch.is_grad_enabled() and len(q) * n_keys * q.shape[1] <= _CELLS["cpu"]:
        of_all = (q, k, v, offsets, key_offsets, asking, asked, adjust, weigh, scale, dropout, past)
        return adjusted_attention.reference(*of_all)
    whole = key_offsets if past_offsets is None else key_offsets + past_offsets
    lengths, key_lengths = offsets.diff(), whole.diff()
    groups = groups_of(key_lengths, lengths)
    queries = Rectangles(offsets, groups, q.shape[1], len(q))
    keys = Rectangles(key_offsets, groups, k.shape[1], len(k), past_offsets)
    states = []
    laid = zip(groups, queries.lay(q), keys.lay(k, past_keys), keys.lay(v, past_values), strict=True)
    for members, wants, has, told in laid:
        own, all_own = lengths[members], key_lengths[members]
        asks = _alike(asking.at(_laid(offsets[:-1][members], own, wants.shape[2])), own)
        stands = _alike(asked.at(_laid(whole[:-1][members], all_own, has.shape[2])), all_own)
        states.append(_rectangle(wants, has, told, asks, stands, own, all_own, adjust, weigh, scale, dropout))
    return queries.gather(states)


def _laid(starts: Tensor, lengths: Tensor, width: int) -> Tensor:
    """The places of the events of histories that start here, each filled up with its newest event."""
    place = torch.arange(width, device=starts.device)
    return starts[:, None] + torch.minimum(place, lengths[:, None] - 1)


def _rectangle(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    asking: Stand,
    asked: Stand,
    lengths: Tensor,
    key_lengths: Tensor,
    adjust: Adjust,
    weigh: Weigh,
    scale: float,
    dropout: float,
) -> Tensor:
    """Attention of histories that lie side by side, filled up behind their newest event."""
    n_histories, n_heads, most = q.shape[:3]
    longest = k.shape[2]
    n_visible = (key_lengths - lengths)[:, None] + torch.arange(1, most + 1, device=q.device)
    n_later = (key_lengths[:, None] - n_visible).clamp(min=0)
    budget = _CELLS.get(q.device.type, _CELLS["cuda"]) // n_heads
    together = max(1, budget // (most * longest))
    rows = most if together > 1 else max(16, budget // longest)
    blocks = []
    for first in range(0, n_histories, together):
        some = slice(first, first + together)
        parts = []
        for start in range(0, most, rows):
            asks = slice(start, start + rows)
            sees = int(n_visible[some, asks].max().clamp(max=longest))
            pairs = Pairs(
                q[some, :, asks],
                asking.at((_some(asking, some), asks)),
                asked.at((_some(asked, some), slice(sees))),
                n_visible[some, asks],
                n_later[some, asks],
            )
            arguments = (pairs.queries, k[some, :, :sees], v[some, :, :sees], pairs)
            rest = (adjust, weigh, scale, dropout)
            if torch.is_grad_enabled():
                parts.append(checkpoint(_attend, *arguments, *rest, use_reentrant=False))
            else:
                parts.append(_attend(*arguments, *rest))
        blocks.append(parts[0] if len(parts) == 1 else torch.cat(parts, 2))
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks)


def _attend(
    q: Tensor, k: Tensor, v: Tensor, pairs: Pairs, adjust: Adjust, weigh: Weigh, scale: float, dropout: float
) -> Tensor:
    logits = (q * scale) @ k.transpose(-1, -2)
    logits = adjust(logits.to(torch.promote_types(logits.dtype, torch.float32)), pairs)
    weights = weigh(logits, pairs.visible)
    return (drop(weights, dropout) if dropout else weights).to(v.dtype) @ v


def _some(stand: Stand, some: slice) -> slice:
    """Those histories of a stand, or the only one where it is the same for all."""
    return some if len(stand.places) > 1 else slice(None)


def _alike(stand: Stand, lengths: Tensor) -> Stand:
    """One row for all histories where places are all that is known and are the same in each as far as it goes."""
    if stand.times is not None:
        return stand
    longest = stand.places[lengths.argmax()]
    beyond = torch.arange(stand.places.shape[1], device=lengths.device) >= lengths[:, None]
    return Stand(longest[None]) if bool(((stand.places == longest) | beyond).all()) else stand


def head_scale(channels: int) -> float:
    """``1 / sqrt(C)``, by which the logits of softmax attention are scaled."""
    return 1 / math.sqrt(channels)
