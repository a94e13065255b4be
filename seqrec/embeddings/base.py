"""What an item embedding is: item rows in, vectors out."""

from __future__ import annotations

from abc import ABC, abstractmethod

from jaxtyping import Float, Int
from torch import Tensor, nn


class ItemEmbedding(nn.Module, ABC):
    """Turns catalog rows into vectors.

    Args:
        dim: width D of a vector.

    Attributes:
        by_item: names of its parameters and buffers that have one row per item of the catalog, in row order. A model
            that starts from another takes the rows of the former by raw id and makes the latter anew.
        free: name of the part that makes its free vectors, where other parts make others; "" where there is none.
    """

    by_item: tuple[str, ...] = ()
    free: str = ""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    @abstractmethod
    def forward(self, rows: Int[Tensor, "*n"] | None = None) -> Float[Tensor, "*rows D"]:
        """Vectors of these items, ``[*n, D]``; of the whole catalog, ``[N, D]``, when ``rows`` is None."""

    def parts(self, rows: Int[Tensor, "*n"]) -> tuple[Tensor, ...]:
        """The vectors ``[*n, D]`` that those of these items are made of; where there is one alone, that one."""
        return (self(rows),)

    def vectors_of(self, vectors: Float[Tensor, "n T"]) -> Float[Tensor, "n D"]:
        """Vectors of items that training never saw, from vectors of their texts, made by the same encoder.

        Raises:
            TypeError: this embedding makes nothing of texts.
            ValueError: text vectors have more or fewer numbers than those it was trained with.
        """
        raise TypeError(
            f"{type(self).__name__} knows an item only by its training, so it has no vector for one that nobody "
            "touched; train with an embedding that reads texts (configs/plugin/text-*.yaml)."
        )
