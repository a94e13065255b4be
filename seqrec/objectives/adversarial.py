"""Training that holds when queries and keys are moved a little in the worst direction."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from seqrec.objectives.base import Auxiliary, Objective
from seqrec.objectives.softmax import FullSoftmax
from seqrec.recommenders.base import Encoded


class AdversarialPerturbation(Auxiliary):
    """The loss after every query and every key took a step of length ε up the gradient of the loss.

    Source: He et al., "Adversarial Personalized Ranking for Recommendation", SIGIR 2018. Differs from it: the vectors
    that are moved are the queries of a backbone and the keys of a scorer, and the loss is any objective, the full
    softmax by default, instead of BPR. It counts every user alike, whatever a reweighter says.

    Args:
        weight: how much of it is added to the objective.
        epsilon: ε, the length of the step, above 0.
        objective: the loss; None is ``FullSoftmax()``. One that draws negatives draws others each time.
    """

    name = "adversarial_perturbation"

    def __init__(self, weight: float = 0.1, epsilon: float = 0.02, objective: Objective | None = None) -> None:
        super().__init__()
        if epsilon <= 0:
            raise ValueError(f"epsilon is {epsilon}; the step must have a length above 0, e.g. 0.02.")
        self.weight, self.epsilon = weight, epsilon
        self.objective = objective or FullSoftmax()

    def forward(self, encoded: Encoded) -> Float[Tensor, ""]:
        queries, keys = encoded.queries, encoded.keys(None)
        at = [part.detach().requires_grad_() for part in (queries, keys)]
        with torch.enable_grad():
            loss = self._loss(encoded, *at)
        uphill = torch.autograd.grad(loss, at, allow_unused=True, materialize_grads=True)
        steps = (self.epsilon * F.normalize(slope.float(), dim=1) for slope in uphill)
        return self._loss(encoded, *(part.float() + step for part, step in zip((queries, keys), steps, strict=True)))

    def _loss(self, encoded: Encoded, queries: Tensor, keys: Tensor) -> Float[Tensor, ""]:
        def chosen(rows: Tensor | None) -> Tensor:
            return keys if rows is None else keys[rows]

        losses = self.objective(replace(encoded, queries=queries, keys=chosen))
        return losses.sum() / max(1, losses.numel())
