"""Scorers map states to queries and items to keys; a score is their inner product.

Because every scorer is two maps, one cross-entropy trains all of them and one inner-product index serves all of them.
What a scorer calls its score may be any function that rises with the inner product: an objective that wants it asks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import Enum, member

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from seqrec.nn.hyperbolic import Curvature, FixedCurvature, arcosh, exp_origin, lift


class Scorer(nn.Module, ABC):
    def meet(self, backbone: nn.Module) -> None:  # most share nothing
        """Take from the backbone, whose states will be scored, what both of them share."""

    @abstractmethod
    def queries(self, states: Float[Tensor, "*n D"]) -> Float[Tensor, "*n K"]: ...

    @abstractmethod
    def keys(self, items: Float[Tensor, "*n D"]) -> Float[Tensor, "*n K"]: ...

    @abstractmethod
    def scores(self, products: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """What inner products of queries and keys mean; it never falls where they rise."""


class Dot(Scorer):
    """The plain inner product of state and item vector."""

    def queries(self, states: Float[Tensor, "*n D"]) -> Float[Tensor, "*n K"]:
        return states

    def keys(self, items: Float[Tensor, "*n D"]) -> Float[Tensor, "*n K"]:
        return items

    def scores(self, products: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        return products


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

    def scores(self, products: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        return products


def _negative_distance(theta: Tensor, k: Tensor) -> Tensor:
    return -2 * k.sqrt() * arcosh(theta)


def _squared_distance(theta: Tensor, k: Tensor) -> Tensor:
    return -2 - 2 * k * arcosh(theta).square()


def _released(theta: Tensor, k: Tensor) -> Tensor:
    return _squared_distance(theta.clamp(max=10), k)


class DistanceScore(Enum):
    """What a distance d is worth: ``negative_distance`` -2 d (the paper of HMamba), ``squared_distance`` -2 - 2 d².

    ``released`` is the latter as HMamba's code has it: an item that is further than √k arcosh 10 counts as that far and
    gets no gradient.
    """

    negative_distance = member(_negative_distance)
    squared_distance = member(_squared_distance)
    released = member(_released)


class Lorentz(Scorer):
    """Hyperbolic distance: the nearest item is best.

    States are the space coordinates of points, item vectors are tangent to the origin. The inner product of query and
    key is the Lorentz product of the two points, -k cosh(d/√k), which falls as their distance d grows; queries carry
    the time coordinate with its sign turned. Both are float32 at least.

    Source: Zhang et al., "HMamba: Hyperbolic Mamba for Sequential Recommendation", 2025 (arXiv 2505.09205). Differs
    from its code: see ``exp_origin`` for very long item vectors.

    Args:
        curvature: of the space; None takes that of the backbone, so that both learn one, or k = 1 where it has none.
        score: what objectives that read scores make of a distance; ranks are the same for all, but for the ties beyond
            the ceiling of ``released``, which do not reach the inner products.
    """

    def __init__(
        self, curvature: Curvature | None = None, score: DistanceScore = DistanceScore.squared_distance
    ) -> None:
        super().__init__()
        self.curvature = curvature or FixedCurvature()
        self.takes_curvature = curvature is None
        self.score = score

    def meet(self, backbone: nn.Module) -> None:
        theirs = getattr(backbone, "curvature", None)
        if self.takes_curvature and isinstance(theirs, Curvature):
            self.curvature = theirs

    def queries(self, states: Float[Tensor, "*n D"]) -> Float[Tensor, "*n K"]:
        point = lift(states, self.curvature())
        return torch.cat([-point[..., :1], point[..., 1:]], dim=-1)

    def keys(self, items: Float[Tensor, "*n D"]) -> Float[Tensor, "*n K"]:
        return exp_origin(items, self.curvature())

    def scores(self, products: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        k = self.curvature()
        return self.score.value(-products / k, k)
