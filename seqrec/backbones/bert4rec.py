"""BERT4Rec: self-attention over each history in both directions."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from seqrec.backbones.base import Backbone
from seqrec.nn.attention import BidirectionalSelfAttention, PositionFactory
from seqrec.nn.dropout import Dropout
from seqrec.sequences import Sequences

_EPS = 1e-12


class Layer(nn.Module):
    """``h = LN(h + drop(attention(h))); h = LN(h + drop(W2 gelu(W1 h)))``."""

    def __init__(self, attention: BidirectionalSelfAttention, dim: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.attention = attention
        self.feed_forward = nn.Sequential(nn.Linear(dim, inner), nn.GELU(), nn.Linear(inner, dim))
        self.attention_norm, self.feed_forward_norm = (nn.LayerNorm(dim, eps=_EPS) for _ in range(2))
        self.dropout = Dropout(dropout)

    def forward(self, h: Float[Tensor, "T D"], history: Sequences) -> Float[Tensor, "T D"]:
        h = self.attention_norm(h + self.dropout(self.attention(h, history)))
        return self.feed_forward_norm(h + self.dropout(self.feed_forward(h)))


class BERT4Rec(Backbone):
    """A Transformer encoder that reads every event beside all that came before and after it.

    Source: Sun et al., "BERT4Rec: Sequential Recommendation with Bidirectional Encoder Representations from
    Transformer", CIKM 2019 (arXiv 1904.06690), after its released code: event vectors are normalised and then dropped
    before the first layer, so the recommender's own dropout stays 0. Differs from the code: histories are packed, so
    there is no padding to mask; positions and the mask are the recommender's; items have no bias when they are scored;
    initial weights are drawn from a normal distribution that is not cut off.

    Args:
        dim: width D of an event and of a state.
        n_layers: stacked layers, at least 1.
        n_heads: attention heads; D must be a multiple of it.
        dropout: share of attention weights and activations dropped, in [0, 1).
        feed_forward_multiple: inner width of the feed-forward network as a multiple of D.
        transforms_states: whether a linear map, a GELU and a norm follow the last layer, as in the released code; the
            baseline of Klenitskiy and Vasilev, RecSys 2023, has none.
        init_std: standard deviation of the linear maps at the beginning, above 0; their biases start at 0.
        position: builds a position encoding inside attention for each layer, from the width of a head: one that turns
            queries and keys, as RotaryPosition does, since what adds to logits counts events back from a query.
    """

    causal = False

    def __init__(
        self,
        dim: int,
        n_layers: int = 2,
        n_heads: int = 2,
        dropout: float = 0.2,
        feed_forward_multiple: int = 4,
        transforms_states: bool = True,
        init_std: float = 0.02,
        position: PositionFactory | None = None,
    ) -> None:
        super().__init__(dim)
        if n_layers < 1:
            raise ValueError(f"n_layers is {n_layers}; it must be at least 1.")
        self.norm = nn.LayerNorm(dim, eps=_EPS)
        self.dropout = Dropout(dropout)
        self.layers = nn.ModuleList(
            Layer(
                BidirectionalSelfAttention(dim, n_heads, dropout, position), dim, feed_forward_multiple * dim, dropout
            )
            for _ in range(n_layers)
        )
        self.transform = (
            nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.LayerNorm(dim, eps=_EPS))
            if transforms_states
            else nn.Identity()
        )
        for linear in (module for module in self.modules() if isinstance(module, nn.Linear)):
            nn.init.normal_(linear.weight, std=init_std)
            nn.init.zeros_(linear.bias)

    def forward(self, events: Float[Tensor, "T D"], history: Sequences) -> Float[Tensor, "T D"]:
        h = self.dropout(self.norm(events))
        for layer in self.layers:
            h = layer(h, history)
        return self.transform(h)
