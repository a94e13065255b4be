"""The small transformer that looks at what a recommender makes of a history and says how fake it seems."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from seqrec.nn.attention import BidirectionalSelfAttention
from seqrec.nn.dropout import Dropout
from seqrec.ops.attention import join, resumed_attention
from seqrec.recommenders.base import Encoded
from seqrec.sequences import Sequences


def seen_by(encoded: Encoded) -> Float[Tensor, "T W"]:
    """What a calibrator looks at: the key of each event's item, which is the item's vector as the scorer compares it,
    beside the state after the event. Neither carries a gradient back."""
    keys = encoded.keys(encoded.batch.history.items)
    return torch.cat([keys, encoded.states.to(keys.dtype)], dim=1).detach().float()


class Calibrator(nn.Module):
    """One vector for each history, read at a learned event behind its newest one, and from it a score.

    Source: the LCT of Zhang et al., LoRec, SIGIR 2024, after its released code. Differs from it: histories are packed,
    so there are no rows of zeros to attend to; inputs are scaled by running statistics, because those of recommenders
    are of any size, and mapped to a width of their own, which costs less; the last block computes its output at the
    learned event alone, which is all that is read.

    Args:
        width: numbers per event.
        knowledge: width of the text vector of a user; None leaves the knowledge branch out.
        dim: width of the vectors, a multiple of twice the heads.
        n_layers: blocks, at least 1.
        n_heads: attention heads.
        hidden_dim: width inside the feed-forward networks and of the head.
        dropout: share dropped in training, in [0, 1).
    """

    pace: Tensor

    def __init__(
        self,
        width: int,
        knowledge: int | None,
        dim: int,
        n_layers: int,
        n_heads: int,
        hidden_dim: int,
        dropout: float,
    ) -> None:
        super().__init__()
        if dim % (2 * n_heads):
            raise ValueError(f"dim is {dim} and n_heads is {n_heads}; dim must be a multiple of twice the heads.")
        self.width = width
        self.scale, self.enter = nn.BatchNorm1d(width, affine=False), nn.Linear(width, dim)
        self.asking = nn.Parameter(torch.randn(dim) * dim**-0.5)
        self.blocks = nn.ModuleList(_Block(dim, n_heads, hidden_dim, dropout) for _ in range(n_layers - 1))
        self.last = _Block(dim, n_heads, hidden_dim, dropout)
        self.narrow, self.score = nn.Linear(dim, hidden_dim), nn.Linear(hidden_dim, 1)
        self.norm, self.score_norm = nn.BatchNorm1d(hidden_dim), nn.BatchNorm1d(1)
        self.dropout = Dropout(dropout)
        self.knowledge = None if knowledge is None else nn.Linear(knowledge, dim)
        self.register_buffer("pace", 10_000.0 ** (-torch.arange(0, dim, 2) / dim), persistent=False)

    def forward(self, seen: Float[Tensor, "T W"], histories: Sequences) -> Float[Tensor, "B D"]:
        """One vector per history."""
        events = self.enter(self.scale(seen))
        ages = (histories.lengths - 1)[histories.owners] - histories.places  # 0 for the newest
        angles = ages[:, None] * self.pace
        events = events + torch.cat([angles.sin(), angles.cos()], dim=1)
        n = len(histories)
        one_each = torch.arange(n + 1, device=events.device)
        rows = join(events, self.asking.expand(n, -1).to(events.dtype), histories.offsets, one_each)
        offsets = histories.offsets + one_each
        whole = Sequences(rows.new_zeros(len(rows), dtype=torch.long), offsets)
        for block in self.blocks:
            rows = block(rows, whole)
        return self.last.newest(rows, whole)

    def logits(self, vectors: Float[Tensor, "B D"]) -> Float[Tensor, "B"]:
        """The score of each history before the sigmoid: the higher, the more it seems fake."""
        hidden = self.dropout(self.norm(self.narrow(vectors)))
        return self.score_norm(self.score(F.gelu(hidden))).squeeze(1).float()

    def agreement(self, vectors: Float[Tensor, "B D"], texts: Float[Tensor, "B S"]) -> Float[Tensor, ""]:
        """Mean cosine of the histories' vectors and what their texts become."""
        if self.knowledge is None:
            return vectors.new_zeros(())
        return F.cosine_similarity(vectors.float(), F.gelu(self.knowledge(texts)).float(), dim=1).mean()


class _Block(nn.Module):
    """``h = LN(h + attention(h)); h = LN(h + ffn(h))``."""

    def __init__(self, dim: int, n_heads: int, hidden_dim: int, dropout: float) -> None:
        super().__init__()
        self.attention = BidirectionalSelfAttention(dim, n_heads, dropout)
        self.widen, self.narrow = nn.Linear(dim, hidden_dim), nn.Linear(hidden_dim, dim)
        self.attention_norm, self.norm = (nn.LayerNorm(dim) for _ in range(2))
        self.dropout = Dropout(dropout)

    def forward(self, rows: Float[Tensor, "S D"], histories: Sequences) -> Float[Tensor, "S D"]:
        return self._then(rows, self.attention(rows, histories))

    def newest(self, rows: Float[Tensor, "S D"], histories: Sequences) -> Float[Tensor, "B D"]:
        """The same, of the newest row of each history alone."""
        heads, asking = self.attention, rows[histories.newest]
        one_each = torch.arange(len(histories) + 1, device=rows.device)
        q, k, v = (
            map_(x).unflatten(-1, (heads.n_heads, -1))
            for map_, x in ((heads.query, asking), (heads.key, rows), (heads.value, rows))
        )
        dropout = heads.dropout if self.training else 0.0
        mixed = resumed_attention(q, k, v, one_each, histories.offsets, dropout)
        return self._then(asking, heads.output(mixed.flatten(-2)))

    def _then(self, h: Tensor, mixed: Tensor) -> Tensor:
        h = self.attention_norm(h + self.dropout(mixed))
        return self.norm(h + self.dropout(self.narrow(F.gelu(self.widen(h)))))
