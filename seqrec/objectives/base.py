"""What tells a model how wrong it was: objectives, auxiliaries and reweighters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seqrec.audience import Audience
from seqrec.batch import Batch
from seqrec.objectives.trail import Trail
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
    """Says how much each prediction counts.

    One that has to look at all users does so before training begins and after every epoch; what it learns there must
    neither reach the recommender nor be a parameter of this module, for those belong to the optimiser of the run.

    Attributes:
        trail: what was decided about users; empty where nothing was.
    """

    def __init__(self) -> None:
        super().__init__()
        self.trail = Trail()

    @abstractmethod
    def forward(self, encoded: Encoded) -> Weighting: ...

    def begin(self, audience: Callable[[], Audience]) -> None:
        """Before the first step, also of a resumed run, whose state is there already.

        Args:
            audience: everyone who is trained on; costs nothing until it is called.

        Raises:
            ValueError: the data lack something that this reweighter needs.
        """

    def end_epoch(self, epochs: int, read: Callable[[Batch], Encoded]) -> None:
        """After every epoch, before the checkpoint is written.

        Args:
            epochs: how many are done.
            read: what the recommender makes of a batch, as in evaluation and without gradients.
        """


class EqualWeights(Reweighter):
    """Every prediction counts the same: the neutral element."""

    def forward(self, encoded: Encoded) -> Weighting:
        queries = encoded.queries
        return Weighting(
            torch.ones_like(queries[:, 0], dtype=torch.float32), queries.new_zeros((), dtype=torch.float32)
        )
