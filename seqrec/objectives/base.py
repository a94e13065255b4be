"""What tells a model how wrong it was: objectives, auxiliaries and reweighters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seqrec.recommenders.base import Encoded


class Objective(nn.Module, ABC):
    """The loss of each prediction."""

    @abstractmethod
    def forward(self, encoded: Encoded) -> Float[Tensor, "M"]: ...


class Auxiliary(nn.Module, ABC):
    """A term that is added to the objective, ``weight`` times."""

    name: str
    weight: float

    @abstractmethod
    def forward(self, encoded: Encoded) -> Float[Tensor, ""]: ...


@dataclass(frozen=True)
class Weighting:
    """How much each prediction counts, and a penalty of the reweighter's own."""

    weights: Float[Tensor, "M"]
    penalty: Float[Tensor, ""]


class Reweighter(nn.Module, ABC):
    """Says how much each prediction counts."""

    @abstractmethod
    def forward(self, encoded: Encoded) -> Weighting: ...


class EqualWeights(Reweighter):
    """Every prediction counts the same: the neutral element."""

    def forward(self, encoded: Encoded) -> Weighting:
        queries = encoded.queries
        return Weighting(
            torch.ones_like(queries[:, 0], dtype=torch.float32), queries.new_zeros((), dtype=torch.float32)
        )
