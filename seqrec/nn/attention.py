"""Multi-head self-attention over packed histories, with a seat for a position encoding."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from seqrec.nn.layers import MixingLayer
from seqrec.ops.adjusted_attention import Stand, Weigh, adjusted_attention, head_scale, softmax
from seqrec.ops.attention import (
    bidirectional_attention,
    causal_attention,
    continued_attention,
    joiner,
    resumed_attention,
)
from seqrec.positions.base import AttentionPosition, TurningPosition
from seqrec.sequences import Sequences, bounds

PositionFactory = Callable[[int], AttentionPosition]


@dataclass(frozen=True)
class AttentionMemory:
    """What attention remembers of histories: the key and the value of every event, and where each history's lie.

    It grows with the histories, by 2 D numbers per event.

    Attributes:
        keys: turned by the position encoding where it turns them.
        values: what is mixed.
        offsets: where those of each history begin and end.
        places: how many events of the same history came before each.
        times: when each happened, in seconds since 1970; None where nobody needs it.
    """

    keys: Float[Tensor, "S H C"]
    values: Float[Tensor, "S H V"]
    offsets: Int[Tensor, "bounds"]
    places: Int[Tensor, "S"]
    times: Int[Tensor, "S"] | None

    @property
    def next_places(self) -> Int[Tensor, "B"]:
        """How many events came before the next one of each history."""
        behind = torch.cat([self.places.new_full((1,), -1), self.places])  # the place before the first event
        return torch.where(self.offsets.diff() > 0, behind[self.offsets[1:]] + 1, 0)

    def stand_before(self, new: Stand, offsets: Int[Tensor, "bounds"]) -> Stand:
        """Where what is remembered stands, and these events of the same histories behind it."""
        both = joiner(self.offsets, offsets, len(self.places), len(new.places))
        times = None if self.times is None or new.times is None else both(self.times, new.times)
        return Stand(both(self.places, new.places), times)

    def newest(self, n: int) -> AttentionMemory:
        """What is left when all but the newest ``n`` events of each history are forgotten."""
        lengths = self.offsets.diff()
        kept = lengths.clamp(max=n)
        owners = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
        stays = torch.arange(len(owners), device=owners.device) >= (self.offsets[1:] - kept)[owners]
        return AttentionMemory(
            self.keys[stays],
            self.values[stays],
            torch.cat([kept.new_zeros(1), kept.cumsum(0)]),
            self.places[stays],
            None if self.times is None else self.times[stays],
        )

    def followed_by(self, new: AttentionMemory) -> AttentionMemory:
        """What is remembered when these events happen, too."""
        return _Continued.of(self, new)


class _Continued(AttentionMemory):
    """Remembered events and the new ones behind them; joined when somebody reads them, which a request does not."""

    @classmethod
    def of(cls, past: AttentionMemory, new: AttentionMemory) -> AttentionMemory:
        continued = cls.__new__(cls)
        vars(continued)["_parts"] = past, new
        return continued

    def __getattr__(self, name: str) -> Any:
        if name not in AttentionMemory.__dataclass_fields__:
            raise AttributeError(name)
        parts = vars(self).get("_parts")
        if parts is None:  # another thread has joined them meanwhile
            return vars(self)[name]
        past, new = parts
        both = joiner(past.offsets, new.offsets, len(past.keys), len(new.keys))
        vars(self).update(
            keys=both(past.keys, new.keys),
            values=both(past.values, new.values),
            offsets=past.offsets + new.offsets,
            places=both(past.places, new.places),
            times=None if past.times is None or new.times is None else both(past.times, new.times),
        )
        vars(self).pop("_parts", None)  # or every event would keep all memories that led to it
        return vars(self)[name]


def condensed(before: list[AttentionMemory] | None, after: list[AttentionMemory], n: int) -> list[AttentionMemory]:
    """What every layer remembers when all but the newest ``n`` events since ``before`` are forgotten.

    Raises:
        ValueError: there is one layer, whose keys and values know of no other event.
    """
    if len(after) < 2:
        raise ValueError(
            "In one layer a token is read before it has read anything, so that nothing would be remembered; give the "
            "backbone at least 2 layers."
        )
    kept = [layer.newest(n) for layer in after]
    return kept if before is None else [past.followed_by(new) for past, new in zip(before, kept, strict=True)]


def stored(memory: list[AttentionMemory]) -> dict[str, Tensor]:
    """Memories of all layers as tensors, history by history; all must hold as many events.

    Raises:
        TypeError: one history has more of them than another.
    """
    lengths = memory[0].offsets.diff()
    if not bool((lengths == lengths[:1]).all()):
        raise TypeError(
            "Attention remembers every event, so longer histories take more room in a file; wrap the backbone in "
            "seqrec.backbones.compressed.Compressed, which remembers as much of everyone."
        )
    shape = (len(lengths), int(lengths[0]) if len(lengths) else 0)
    tensors = {
        "keys": torch.stack([layer.keys.unflatten(0, shape) for layer in memory], 1),
        "values": torch.stack([layer.values.unflatten(0, shape) for layer in memory], 1),
        "places": memory[0].places.view(shape),
    }
    return tensors if memory[0].times is None else {**tensors, "times": memory[0].times.view(shape)}


def restored(tensors: dict[str, Tensor]) -> list[AttentionMemory]:
    """The memories that ``stored`` made tensors of."""
    n_histories, n_rows = tensors["places"].shape
    offsets = torch.arange(n_histories + 1, device=tensors["places"].device) * n_rows
    places, times = tensors["places"].flatten(), tensors.get("times")
    times = None if times is None else times.flatten()
    layers = zip(tensors["keys"].unbind(1), tensors["values"].unbind(1), strict=True)
    return [AttentionMemory(k.flatten(0, 1), v.flatten(0, 1), offsets, places, times) for k, v in layers]


class CausalAttention(nn.Module):
    """What each event takes from its past: mixed values, by what its query and their keys have to do with each other.

    Args:
        position: tells it where events stand; None attends without knowing.
        dropout: share of attention weights dropped in training, in [0, 1).
        weigh: makes weights of logits.
        scale: what logits are multiplied by; None is ``1 / sqrt(C)``.
    """

    def __init__(
        self,
        position: AttentionPosition | None = None,
        dropout: float = 0.0,
        weigh: Weigh = softmax,
        scale: float | None = None,
    ) -> None:
        super().__init__()
        self.position = nowhere() if position is None else position
        self.dropout, self.weigh, self.scale = dropout, weigh, scale

    def forward(
        self,
        q: Float[Tensor, "M H C"],
        k: Float[Tensor, "T H C"],
        v: Float[Tensor, "T H V"],
        history: Sequences,
        memory: AttentionMemory | None,
    ) -> tuple[Float[Tensor, "M H V"], AttentionMemory]:
        """What these events, which follow the remembered ones, take from the past and from each other.

        Either all of them ask or the newest of each history that has any.

        Raises:
            ValueError: the position reads times that the histories do not carry.
            TypeError: something is remembered, and the position means something else once the history goes on.
        """
        position = self.position
        places = history.places
        if memory is not None:
            position.demand_that_it_continues()
            places = places + memory.next_places[history.owners]
        if position.reads_clock and history.times is None:
            raise ValueError(f"{type(position).__name__} reads when events happened, but the histories carry no times.")
        if position.reads_asked_at and history.asked_at is None:
            raise ValueError(
                f"{type(position).__name__} reads when a prediction is asked for, but nobody said; give asked_at."
            )
        offsets, asking = history.offsets, Stand(places, history.asked_at if position.reads_asked_at else None)
        if q.shape[0] < k.shape[0]:  # not len, which would fix the length of an exported program
            happened = history.lengths > 0
            offsets, asking = bounds(happened.long()), asking.at(history.newest[happened])
        q, k = position.turn(q, asking.places), position.turn(k, places)
        new = AttentionMemory(k, v, history.offsets, places, history.times)
        whole = new if memory is None else memory.followed_by(new)
        past = None if memory is None else (memory.keys, memory.values, memory.offsets)
        dropout = self.dropout if self.training else 0.0
        if not position.changes_logits and self.weigh is softmax and self.scale is None:
            if past is not None:
                newest = None if offsets is history.offsets else offsets
                return continued_attention(q, k, v, history.offsets, *past, newest, dropout), whole
            if offsets is history.offsets:
                return causal_attention(q, k, v, offsets, dropout), whole
            return resumed_attention(q, k, v, offsets, history.offsets, dropout), whole
        asked = Stand(places, history.times if position.reads_clock else None)
        mixed = adjusted_attention(
            q,
            k,
            v,
            offsets,
            history.offsets,
            asking,
            asked if memory is None else memory.stand_before(asked, history.offsets),
            position.adjust,
            self.weigh,
            head_scale(q.shape[-1]) if self.scale is None else self.scale,
            dropout,
            past,
        )
        return mixed, whole


class _Heads(nn.Module):
    """The linear maps into and out of H heads of attention."""

    def __init__(self, dim: int, n_heads: int, projects_output: bool = True) -> None:
        super().__init__()
        if dim % n_heads:
            raise ValueError(f"dim is {dim} and n_heads is {n_heads}; dim must be a multiple of n_heads.")
        self.n_heads = n_heads
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))
        self.output = nn.Linear(dim, dim) if projects_output else nn.Identity()

    def _split(self, asking: Float[Tensor, "M D"], asked: Float[Tensor, "T D"]) -> list[Float[Tensor, "_ H C"]]:
        """Queries, keys and values, head by head."""
        maps = ((self.query, asking), (self.key, asked), (self.value, asked))
        return [map_(x).unflatten(-1, (self.n_heads, -1)) for map_, x in maps]


class SelfAttention(_Heads):
    """Causal attention with a plain split into heads and a scale of ``1 / sqrt(C)``.

    Args:
        dim: width D of an event, a multiple of ``n_heads``.
        n_heads: number of heads H.
        dropout: share of attention weights dropped in training, in [0, 1).
        projects_output: whether the heads are mixed by one more linear map, which the first SASRec lacked.
        position: builds the position encoding of one layer from the width C of a head; None attends without one.
    """

    def __init__(
        self,
        dim: int,
        n_heads: int,
        dropout: float = 0.0,
        projects_output: bool = True,
        position: PositionFactory | None = None,
    ) -> None:
        super().__init__(dim, n_heads, projects_output)
        self.attention = CausalAttention(None if position is None else position(dim // n_heads), dropout)

    @property
    def position(self) -> AttentionPosition:
        return self.attention.position

    def forward(
        self,
        asking: Float[Tensor, "M D"],
        asked: Float[Tensor, "T D"],
        history: Sequences,
        memory: AttentionMemory | None,
    ) -> tuple[Float[Tensor, "M D"], AttentionMemory]:
        """What these events, which follow the remembered ones, take from the past and from each other.

        Queries are made from ``asking``; keys and values from ``asked``. Either all events ask or the newest of each
        history that has any.
        """
        mixed, newest = self.attention(*self._split(asking, asked), history, memory)
        return self.output(mixed.flatten(-2)), newest


class AttentionLayer(MixingLayer[AttentionMemory]):
    """A layer that mixes by causal attention, where the newest events can ask alone."""

    @abstractmethod
    def ask(
        self, h: Float[Tensor, "T D"], history: Sequences, at: Int[Tensor, "M"] | slice, memory: AttentionMemory | None
    ) -> tuple[Float[Tensor, "M D"], Float[Tensor, "M I"], AttentionMemory]:
        """``mix_at``, where ``at`` is all events or the newest of each history that has any."""

    def mix(
        self, h: Float[Tensor, "T D"], history: Sequences, memory: AttentionMemory | None
    ) -> tuple[Float[Tensor, "T D"], Float[Tensor, "T I"], AttentionMemory]:
        return self.ask(h, history, slice(None), memory)

    def mix_at(
        self, h: Float[Tensor, "T D"], history: Sequences, at: Int[Tensor, "M"], memory: AttentionMemory | None
    ) -> tuple[Float[Tensor, "M D"], Float[Tensor, "M I"], AttentionMemory]:
        if torch.compiler.is_compiling() or not torch.equal(at, history.newest[history.lengths > 0]):
            return super().mix_at(h, history, at, memory)
        return self.ask(h, history, at, memory)


class BidirectionalSelfAttention(_Heads):
    """Attention of every event to all events of its history, with a scale of ``1 / sqrt(C)``.

    Args:
        dim: width D of an event, a multiple of ``n_heads``.
        n_heads: number of heads H.
        dropout: share of attention weights dropped in training, in [0, 1).
        position: builds a position encoding that turns queries and keys, from the width C of a head; None attends
            without one.

    Raises:
        ValueError: the position changes logits by what lies behind a query, and here a query sees what lies ahead, too.
    """

    def __init__(self, dim: int, n_heads: int, dropout: float = 0.0, position: PositionFactory | None = None) -> None:
        super().__init__(dim, n_heads)
        self.dropout = dropout
        self.position = nowhere() if position is None else position(dim // n_heads)
        if self.position.changes_logits:
            raise ValueError(
                f"{type(self.position).__name__} counts events back from a query, but in attention to both sides half "
                "of them lie ahead; use RotaryPosition, or a position in the input."
            )

    def forward(self, events: Float[Tensor, "T D"], history: Sequences) -> Float[Tensor, "T D"]:
        q, k, v = self._split(events, events)
        q, k = (self.position.turn(x, history.places) for x in (q, k))
        mixed = bidirectional_attention(q, k, v, history.offsets, self.dropout if self.training else 0.0)
        return self.output(mixed.flatten(-2))


class _Nowhere(TurningPosition):
    """No position."""

    def turn(self, x: Float[Tensor, "T H C"], places: Int[Tensor, "T"]) -> Float[Tensor, "T H C"]:
        return x


def nowhere() -> AttentionPosition:
    """The position of attention that does not know where events stand."""
    return _Nowhere()
