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
