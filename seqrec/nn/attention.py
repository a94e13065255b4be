"""Multi-head self-attention over packed histories, with a seat for a position encoding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor, nn

from seqrec.ops.attention import bidirectional_attention, causal_attention, join, resumed_attention
from seqrec.positions.base import AttentionPosition
from seqrec.sequences import Sequences

PositionFactory = Callable[[int], AttentionPosition]


@dataclass(frozen=True)
class AttentionMemory:
    """What attention remembers of histories: the key and the value of every event, and where each history's lie.

    It grows with the histories, by 2 D numbers per event.
    """

    keys: Float[Tensor, "S H C"]
    values: Float[Tensor, "S H C"]
    offsets: Int[Tensor, "bounds"]


class _Heads(nn.Module):
    """The linear maps into and out of H heads of attention."""

    def __init__(self, dim: int, n_heads: int, projects_output: bool = True) -> None:
        super().__init__()
        if dim % n_heads:
            raise ValueError(f"dim is {dim} and n_heads is {n_heads}; dim must be a multiple of n_heads.")
        self.n_heads = n_heads
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))
        self.output = nn.Linear(dim, dim) if projects_output else nn.Identity()

    def _split(self, asking: Float[Tensor, "T D"], asked: Float[Tensor, "T D"]) -> list[Float[Tensor, "T H C"]]:
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
        self.position = _Plain(dropout) if position is None else position(dim // n_heads)

    def forward(
        self,
        asking: Float[Tensor, "T D"],
        asked: Float[Tensor, "T D"],
        history: Sequences,
        memory: AttentionMemory | None,
    ) -> tuple[Float[Tensor, "T D"], AttentionMemory]:
        """What these events, which follow the remembered ones, take from the past and from each other.

        Queries are made from ``asking``; keys and values from ``asked``.
        """
        q, k, v = self._split(asking, asked)
        if memory is None:
            mixed, newest = self.position(q, k, v, history), AttentionMemory(k, v, history.offsets)
        else:
            newest = AttentionMemory(
                join(memory.keys, k, memory.offsets, history.offsets),
                join(memory.values, v, memory.offsets, history.offsets),
                memory.offsets + history.offsets,
            )
            mixed = self.position.proceed(q, newest.keys, newest.values, history, newest.offsets)
        return self.output(mixed.flatten(-2)), newest


class BidirectionalSelfAttention(_Heads):
    """Attention of every event to all events of its history, with a scale of ``1 / sqrt(C)``.

    Args:
        dim: width D of an event, a multiple of ``n_heads``.
        n_heads: number of heads H.
        dropout: share of attention weights dropped in training, in [0, 1).
    """

    def __init__(self, dim: int, n_heads: int, dropout: float = 0.0) -> None:
        super().__init__(dim, n_heads)
        self.dropout = dropout

    def forward(self, events: Float[Tensor, "T D"], history: Sequences) -> Float[Tensor, "T D"]:
        q, k, v = self._split(events, events)
        mixed = bidirectional_attention(q, k, v, history.offsets, self.dropout if self.training else 0.0)
        return self.output(mixed.flatten(-2))


class _Plain(AttentionPosition):
    """Attention that knows no distances."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout

    def forward(
        self, q: Float[Tensor, "T H C"], k: Float[Tensor, "T H C"], v: Float[Tensor, "T H C"], history: Sequences
    ) -> Float[Tensor, "T H C"]:
        return causal_attention(q, k, v, history.offsets, self.dropout if self.training else 0.0)

    def proceed(
        self,
        q: Float[Tensor, "T H C"],
        k: Float[Tensor, "S H C"],
        v: Float[Tensor, "S H C"],
        history: Sequences,
        offsets: Int[Tensor, "bounds"],
    ) -> Float[Tensor, "T H C"]:
        return resumed_attention(q, k, v, history.offsets, offsets, self.dropout if self.training else 0.0)
