"""LiGR: pre-normalised attention blocks whose every addition is gated by the stream it is added to."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from seqrec.backbones.attention import AttentionBackbone
from seqrec.nn.attention import (
    AttentionLayer,
    AttentionMemory,
    PositionFactory,
    SelfAttention,
)
from seqrec.nn.dropout import Dropout
from seqrec.nn.feed_forward import SwiGLU
from seqrec.nn.layers import stacked
from seqrec.sequences import Sequences


class Block(AttentionLayer):
    """``h += σ(G1 h) ⊙ drop(attention(LN h)); h += σ(G2 h) ⊙ drop(swiglu(LN h))``."""

    def __init__(self, attention: SelfAttention, feed_forward: SwiGLU, dim: int, dropout: float) -> None:
        super().__init__()
        self.attention, self.feed_forward = attention, feed_forward
        self.attention_norm, self.feed_forward_norm = (nn.LayerNorm(dim) for _ in range(2))
        self.attention_gate, self.feed_forward_gate = (nn.Linear(dim, dim) for _ in range(2))
        self.dropout = Dropout(dropout)

    def ask(
        self, h: Float[Tensor, "T D"], history: Sequences, at: Int[Tensor, "M"] | slice, memory: AttentionMemory | None
    ) -> tuple[Float[Tensor, "M D"], Float[Tensor, "M I"], AttentionMemory]:
        q = self.attention_norm(h)
        mixed, newest = self.attention(q[at], q, history, memory)
        return h[at], mixed, newest

    def refine(self, kept: Float[Tensor, "M D"], mixed: Float[Tensor, "M D"]) -> Float[Tensor, "M D"]:
        h = kept + torch.sigmoid(self.attention_gate(kept)) * self.dropout(mixed)
        z = self.feed_forward(self.feed_forward_norm(h))
        return h + torch.sigmoid(self.feed_forward_gate(h)) * self.dropout(z)


class LiGR(AttentionBackbone):
    """The gated block that eSASRec is built of.

    Source: arXiv 2502.03417, in the form used by Tikhonovich et al., "eSASRec", RecSys 2025 (arXiv 2508.06450): the
    gates read the un-normalised stream, and nothing is normalised after the last block.

    Args:
        dim: width D of an event and of a state.
        n_layers: stacked blocks, at least 1.
        n_heads: attention heads; D must be a multiple of it.
        dropout: share of attention weights and activations dropped, in [0, 1).
        feed_forward_multiple: inner width of the SwiGLU as a multiple of D.
        position: builds a position encoding inside attention for each layer, from the width of a head.
    """

    def __init__(
        self,
        dim: int,
        n_layers: int = 2,
        n_heads: int = 1,
        dropout: float = 0.2,
        feed_forward_multiple: int = 4,
        position: PositionFactory | None = None,
    ) -> None:
        super().__init__(dim)
        self.blocks = stacked(
            n_layers,
            lambda: Block(
                SelfAttention(dim, n_heads, dropout, position=position),
                SwiGLU(dim, feed_forward_multiple, dropout),
                dim,
                dropout,
            ),
        )

    @property
    def layers(self) -> nn.ModuleList:
        return self.blocks
