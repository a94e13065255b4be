"""Items that came after training, beside those that were trained."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from seqrec.embeddings.base import ItemEmbedding


class ExtendedEmbedding(ItemEmbedding):
    """An embedding of N items, followed by M items whose vectors are given and never trained.

    Args:
        known: the trained embedding.
        n_known: how many items N it knows.
        added: the vectors of the items N, N + 1, …
    """

    added: Tensor

    def __init__(self, known: ItemEmbedding, n_known: int, added: Float[Tensor, "M D"]) -> None:
        super().__init__(known.dim)
        if added.shape[1] != known.dim:
            raise ValueError(f"The added vectors are {added.shape[1]} wide, those known {known.dim}; give the same.")
        self.known, self.n_known = known, n_known
        self.register_buffer("added", added)

    def forward(self, rows: Int[Tensor, "*n"] | None = None) -> Float[Tensor, "*rows D"]:
        if rows is None:
            return torch.cat([self.known(None), self.added])
        is_added = rows >= self.n_known
        known = self.known(rows.masked_fill(is_added, 0))
        added = F.embedding((rows - self.n_known).masked_fill(~is_added, 0), self.added)
        return torch.where(is_added[..., None], added, known)

    def vectors_of(self, vectors: Float[Tensor, "n T"]) -> Float[Tensor, "n D"]:
        return self.known.vectors_of(vectors)
