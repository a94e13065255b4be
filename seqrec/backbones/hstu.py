"""HSTU: pointwise attention whose weights need not sum to one, gated by the event itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from seqrec.backbones.attention import AttentionBackbone
from seqrec.nn.attention import (
    AttentionLayer,
    AttentionMemory,
    CausalAttention,
    PositionFactory,
)
from seqrec.nn.dropout import Dropout
from seqrec.nn.layers import stacked
from seqrec.sequences import Sequences

_EPS = 1e-6


@dataclass(frozen=True)
class PointwiseSiLU:
    """``silu(logits) / n`` where something is visible, with the same n whatever the length of a history."""

    n: int

    def __call__(self, logits: Float[Tensor, "b H i j"], visible: Bool[Tensor, "#b 1 i j"]) -> Float[Tensor, "b H i j"]:
        return (F.silu(logits) / self.n).masked_fill(~visible, 0)


class Block(AttentionLayer):
    """``U, V, Q, K = silu(W LN(x)); y = LN(pointwise attention); x + W_o drop(U ⊙ y)``; the norms learn nothing."""

    def __init__(
        self,
        dim: int,
        n_heads: int,
        head_dim: int,
        dropout: float,
        max_length: int,
        concatenates: bool,
        position: PositionFactory | None,
    ) -> None:
        super().__init__()
        inner = n_heads * head_dim
        self.n_heads, self.concatenates = n_heads, concatenates
        self.norm = nn.LayerNorm(dim, eps=_EPS, elementwise_affine=False)
        self.mixed_norm = nn.LayerNorm(inner, eps=_EPS, elementwise_affine=False)
        self.enter = nn.Linear(dim, 4 * inner, bias=False)
        self.attention = CausalAttention(
            None if position is None else position(head_dim), weigh=PointwiseSiLU(max_length), scale=1.0
        )
        self.dropout = Dropout(dropout)
        self.leave = nn.Linear(3 * inner if concatenates else inner, dim)
        nn.init.normal_(self.enter.weight, std=0.02)
        nn.init.xavier_uniform_(self.leave.weight)

    def ask(
        self, h: Float[Tensor, "T D"], history: Sequences, at: Int[Tensor, "M"] | slice, memory: AttentionMemory | None
    ) -> tuple[Float[Tensor, "M D"], Float[Tensor, "M I"], AttentionMemory]:
        gate, v, q, k = F.silu(self.enter(self.norm(h))).chunk(4, dim=-1)
        heads = [each.unflatten(-1, (self.n_heads, -1)) for each in (q[at], k, v)]
        mixed, newest = self.attention(*heads, history, memory)
        gate, y = gate[at], self.mixed_norm(mixed.flatten(-2))
        return h[at], torch.cat([gate, y, gate * y], dim=-1) if self.concatenates else gate * y, newest

    def refine(self, kept: Float[Tensor, "M D"], mixed: Float[Tensor, "M I"]) -> Float[Tensor, "M D"]:
        return kept + self.leave(self.dropout(mixed))


class HSTU(AttentionBackbone):
    """Hierarchical sequential transduction units.

    Source: Zhai et al., "Actions Speak Louder than Words: Trillion-Parameter Sequential Transducers for Generative
    Recommendations", ICML 2024 (arXiv 2402.17152), after its released code for public data. Its bias of positions and
    times is a part of its own: ``position=Stacked([RelativeBias, TimeBias])``. Differs from the code: histories are
    packed, so there is no padding to mask; the input's √D, its positions and its dropout are the recommender's, cosines
    are those of ``scorers.Cosine``; without a final norm, as there; weights are divided by the longest window, there by
    11 more, as its table of positions has that much room to spare; no loss belongs to it, there it is a softmax over
    128 negatives. The port in PerSRec's code never uses its bias.

    Args:
        dim: width D of an event and of a state.
        n_layers: stacked units, at least 1.
        n_heads: attention heads; without ``head_dim`` D must be a multiple of it.
        dropout: share of what a unit adds dropped, in [0, 1); attention weights are never dropped.
        head_dim: width of a head; None is D / ``n_heads``.
        max_length: what the weights are divided by, the longest window; the same for every history.
        concatenates: whether a unit's output reads gate, mixture and their product instead of the product alone.
        position: builds a position encoding inside attention for each layer, from the width of a head.
    """

    def __init__(
        self,
        dim: int,
        n_layers: int = 2,
        n_heads: int = 1,
        dropout: float = 0.2,
        head_dim: int | None = None,
        max_length: int = 200,
        concatenates: bool = False,
        position: PositionFactory | None = None,
    ) -> None:
        super().__init__(dim)
        if head_dim is None and dim % n_heads:
            raise ValueError(f"dim is {dim} and n_heads is {n_heads}; dim must be a multiple of n_heads.")
        if max_length < 1:
            raise ValueError(f"max_length is {max_length}; it must be at least 1, as data.max_length.")
        width = dim // n_heads if head_dim is None else head_dim
        self.units = stacked(n_layers, lambda: Block(dim, n_heads, width, dropout, max_length, concatenates, position))

    @property
    def layers(self) -> nn.ModuleList:
        return self.units
