"""Reweighters that weigh users."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from seqrec.audience import Audience
from seqrec.objectives.base import Reweighter, Weighting
from seqrec.objectives.trail import Trail
from seqrec.recommenders.base import Encoded


class UserReweighter(Reweighter, ABC):
    """Gives every prediction the weight of the user who makes it; until there are weights, all count the same.

    What it learns lies outside of its parameters, so no optimiser of the run touches it; checkpoints carry it as extra
    state. Those who build on this class say what that is.

    Attributes:
        weights: of every user of the log; None while all count the same.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weights: Float[Tensor, "U"] | None = None

    @abstractmethod
    def begin(self, audience: Callable[[], Audience]) -> None: ...

    def forward(self, encoded: Encoded) -> Weighting:
        batch, queries = encoded.batch, encoded.queries
        penalty = queries.new_zeros((), dtype=torch.float32)
        if self.weights is None:
            return Weighting(torch.ones_like(queries[:, 0], dtype=torch.float32), penalty)
        self.weights = self.weights.to(queries.device)
        return Weighting(self.weights[batch.users[batch.history.owners[batch.predict_at]]], penalty)

    def get_extra_state(self) -> dict[str, Any]:
        weights = None if self.weights is None else self.weights.cpu()
        return {"weights": weights, "trail": self.trail.state(), "own": self.own_state()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.weights, self.trail = state["weights"], Trail.restored(state["trail"])
        self.take_own_state(state["own"])

    def own_state(self) -> dict[str, Any]:
        """What else is needed to go on, as plain values and tensors."""
        return {}

    def take_own_state(self, state: dict[str, Any]) -> None:
        """Go on from what ``own_state`` gave."""
