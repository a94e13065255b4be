"""Multi-head self-attention over packed histories, with a seat for a position encoding."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from seqrec.ops.attention import causal_attention
from seqrec.positions.base import AttentionPosition
from seqrec.sequences import Sequences

PositionFactory = Callable[[int], AttentionPosition]


class SelfAttention(nn.Module):
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
        super().__init__()
        if dim % n_heads:
            raise ValueError(f"dim is {dim} and n_heads is {n_heads}; dim must be a multiple of n_heads.")
        self.n_heads = n_heads
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))
        self.output = nn.Linear(dim, dim) if projects_output else nn.Identity()
        self.position = _Plain(dropout) if position is None else position(dim // n_heads)

    def forward(
        self, asking: Float[Tensor, "T D"], asked: Float[Tensor, "T D"], history: Sequences
    ) -> Float[Tensor, "T D"]:
        """Queries are made from ``asking``; keys and values from ``asked``."""
        q, k, v = (
            map_(x).unflatten(-1, (self.n_heads, -1))
            for map_, x in ((self.query, asking), (self.key, asked), (self.value, asked))
        )
        return self.output(self.position(q, k, v, history).flatten(-2))


class _Plain(AttentionPosition):
    """Attention that knows no distances."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout

    def forward(
        self, q: Float[Tensor, "T H C"], k: Float[Tensor, "T H C"], v: Float[Tensor, "T H C"], history: Sequences
    ) -> Float[Tensor, "T H C"]:
        return causal_attention(q, k, v, history.offsets, self.dropout if self.training else 0.0)
