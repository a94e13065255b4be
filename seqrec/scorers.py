"""Scorers map states to queries and items to keys; a score is their inner product.

Because every scorer is two maps, one cross-entropy trains all of them and one inner-product index serves all of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class Scorer(nn.Module, ABC):
    @abstractmethod
    def queries(self, states: Float[Tensor, "*n D"]) -> Float[Tensor, "*n K"]: ...

    @abstractmethod
    def keys(self, items: Float[Tensor, "*n D"]) -> Float[Tensor, "*n K"]: ...


class Dot(Scorer):
    """The plain inner product of state and item vector."""

    def queries(self, states: Float[Tensor, "*n D"]) -> Float[Tensor, "*n K"]:
        return states

    def keys(self, items: Float[Tensor, "*n D"]) -> Float[Tensor, "*n K"]:
        return items


class Cosine(Scorer):
    """The cosine of state and item vector, sharpened by a temperature.

    Args:
        temperature: scores are cosines divided by this, above 0; 0.05 is common.
    """

    def __init__(self, temperature: float = 0.05) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature is {temperature}; it must be above 0, e.g. 0.05.")
        self.temperature = temperature

    def queries(self, states: Float[Tensor, "*n D"]) -> Float[Tensor, "*n K"]:
        return F.normalize(states, dim=-1) / self.temperature

    def keys(self, items: Float[Tensor, "*n D"]) -> Float[Tensor, "*n K"]:
        return F.normalize(items, dim=-1)
