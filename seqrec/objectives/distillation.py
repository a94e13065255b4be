"""Distillation: a history learns from those that its text is most alike."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from seqrec.objectives.base import Auxiliary
from seqrec.objectives.views import newest_of
from seqrec.recommenders.base import Encoded


class NeighbourDistillation(Auxiliary):
    """The state of a history is drawn to the mean of those of its neighbours by text, which are not drawn to it.

    Source: the self-distillation of Liu et al., "LLM-ESR: Large Language Models Enhancement for Long-tailed Sequential
    Recommendation", NeurIPS 2024 (arXiv 2405.20646): the mean squared error. Differs from it: neighbours are training
    prefixes of other users, always the nearest k, where the code draws ten of the hundred nearest users; the history
    is read once more with dropout of its own.

    Args:
        weight: how much of it is added to the objective; 0.1 in the source.
        view: name of the view that brings, for each history, itself and its neighbours.
    """

    name = "neighbour_distillation"

    def __init__(self, weight: float = 0.1, view: str = "neighbours") -> None:
        super().__init__()
        self.weight, self.view = weight, view

    def forward(self, encoded: Encoded) -> Float[Tensor, ""]:
        newest, n = newest_of(self, encoded, self.view), len(encoded.batch.history)
        if n == 0:
            return newest.sum().float() * 0
        with torch.autocast(newest.device.type, enabled=False):
            states = newest.float().unflatten(0, (n, -1))
            return F.mse_loss(states[:, 0], states[:, 1:].detach().mean(1))
