"""SASRec: causal self-attention over each history."""

from __future__ import annotations

from enum import Enum

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
from seqrec.nn.feed_forward import FeedForward
from seqrec.nn.layers import stacked
from seqrec.sequences import Sequences


class Activation(Enum):
    """The non-linearity between the two maps of the feed-forward network."""

    relu = nn.ReLU
    gelu = nn.GELU


class Block(AttentionLayer):
    """One layer in the original layout: only queries are normalised, and residuals start from normalised vectors.

    ``q = LN(h); u = q + attention(q, h); z = LN(u); h = z + ffn(z)``. No dropout on the attention's output.
    """

    def __init__(self, attention: SelfAttention, feed_forward: FeedForward, dim: int, dropout: float) -> None:
        super().__init__()
        self.attention, self.feed_forward = attention, feed_forward
        self.attention_norm, self.feed_forward_norm = (nn.LayerNorm(dim, eps=1e-8) for _ in range(2))
        self.dropout = Dropout(dropout)

    def ask(
        self, h: Float[Tensor, "T D"], history: Sequences, at: Int[Tensor, "M"] | slice, memory: AttentionMemory | None
    ) -> tuple[Float[Tensor, "M D"], Float[Tensor, "M I"], AttentionMemory]:
        q = self.attention_norm(h)
        mixed, newest = self.attention(q[at], h, history, memory)
        return q[at], mixed, newest

    def refine(self, kept: Float[Tensor, "M D"], mixed: Float[Tensor, "M D"]) -> Float[Tensor, "M D"]:
        z = self.feed_forward_norm(kept + mixed)
        return z + self.feed_forward(z)


class PreNormBlock(Block):
    """``h = h + attention(LN(h)); h = h + ffn(LN(h))``: residuals carry un-normalised vectors."""

    def ask(
        self, h: Float[Tensor, "T D"], history: Sequences, at: Int[Tensor, "M"] | slice, memory: AttentionMemory | None
    ) -> tuple[Float[Tensor, "M D"], Float[Tensor, "M I"], AttentionMemory]:
        q = self.attention_norm(h)
        mixed, newest = self.attention(q[at], q, history, memory)
        return h[at], mixed, newest

    def refine(self, kept: Float[Tensor, "M D"], mixed: Float[Tensor, "M D"]) -> Float[Tensor, "M D"]:
        h = kept + self.dropout(mixed)
        return h + self.feed_forward(self.feed_forward_norm(h))


class PostNormBlock(Block):
    """``h = LN(h + attention(h)); h = LN(h + ffn(h))``, as in BERT."""

    def ask(
        self, h: Float[Tensor, "T D"], history: Sequences, at: Int[Tensor, "M"] | slice, memory: AttentionMemory | None
    ) -> tuple[Float[Tensor, "M D"], Float[Tensor, "M I"], AttentionMemory]:
        mixed, newest = self.attention(h[at], h, history, memory)
        return h[at], mixed, newest

    def refine(self, kept: Float[Tensor, "M D"], mixed: Float[Tensor, "M D"]) -> Float[Tensor, "M D"]:
        h = self.attention_norm(kept + self.dropout(mixed))
        return self.feed_forward_norm(h + self.feed_forward(h))


class Norm(Enum):
    """Where a layer normalises."""

    original = Block
    pre = PreNormBlock
    post = PostNormBlock


class SASRec(AttentionBackbone):
    """Self-attentive sequential recommendation.

    Source: Kang & McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018. Differs from the paper: histories are
    packed, so there is no padding to mask; ``norm=pre`` is the default, because the original layout was measured to be
    slightly worse and does not train at eight layers; positions are a part of their own, outside the backbone.

    Args:
        dim: width D of an event and of a state.
        n_layers: stacked blocks, at least 1.
        n_heads: attention heads; D must be a multiple of it.
        dropout: share of attention weights and activations dropped, in [0, 1).
        norm: ``original`` (released code of the paper), ``pre`` or ``post``.
        feed_forward_multiple: inner width of the feed-forward network as a multiple of D.
        activation: ``relu`` (the paper) or ``gelu``.
        projects_output: whether attention ends in a linear map; the released code has none.
        final_norm: whether the last states are normalised once more.
        init_std: standard deviation of the initial weights of all linear maps, whose biases start at 0; None keeps
            torch's own initialisation.
        position: builds a position encoding inside attention for each layer, from the width of a head.
    """

    def __init__(
        self,
        dim: int,
        n_layers: int = 2,
        n_heads: int = 2,
        dropout: float = 0.2,
        norm: Norm = Norm.pre,
        feed_forward_multiple: int = 1,
        activation: Activation = Activation.relu,
        projects_output: bool = True,
        final_norm: bool = True,
        init_std: float | None = None,
        position: PositionFactory | None = None,
    ) -> None:
        super().__init__(dim)
        self.blocks = stacked(
            n_layers,
            lambda: norm.value(
                SelfAttention(dim, n_heads, dropout, projects_output, position),
                FeedForward(dim, feed_forward_multiple, dropout, activation.value(), norm is not Norm.post),
                dim,
                dropout,
            ),
        )
        self.final_norm = nn.LayerNorm(dim, eps=1e-8) if final_norm else nn.Identity()
        if init_std is not None:
            for linear in (module for module in self.modules() if isinstance(module, nn.Linear)):
                nn.init.normal_(linear.weight, std=init_std)
                nn.init.zeros_(linear.bias)

    @property
    def layers(self) -> nn.ModuleList:
        return self.blocks

    def finish(self, states: Float[Tensor, "M D"]) -> Float[Tensor, "M D"]:
        return self.final_norm(states)
