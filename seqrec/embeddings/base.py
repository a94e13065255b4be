"""What an item embedding is: item rows in, vectors out."""

from __future__ import annotations

from abc import ABC, abstractmethod

from jaxtyping import Float, Int
from torch import Tensor, nn


class ItemEmbedding(nn.Module, ABC):
    """Turns catalog rows into vectors.

    Args:
        dim: width D of a vector.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    @abstractmethod
    def forward(self, rows: Int[Tensor, "*n"] | None = None) -> Float[Tensor, "*rows D"]:
        """Vectors of these items, ``[*n, D]``; of the whole catalog, ``[N, D]``, when ``rows`` is None."""

    def vectors_of(self, vectors: Float[Tensor, "n T"]) -> Float[Tensor, "n D"]:
        """Vectors of items that came after training, from what is known of them.

        Args:
            vectors: vectors of their texts, made as those that the model was trained on and as wide.

        Raises:
            TypeError: the embedding knows items by their training alone.
            ValueError: the vectors have another width.
        """
        raise TypeError(
            f"{type(self).__name__} knows an item only by its training, so a new one has no vector; train again with "
            "the new items, or train an embedding that reads texts, such as seqrec.embeddings.pretrained.TextTower."
        )
