"""Training on the scorer's own scores where these are more than inner products, such as hyperbolic distances."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from seqrec.objectives.base import Auxiliary, Objective
from seqrec.ops.scored_cross_entropy import scored_cross_entropy
from seqrec.recommenders.base import Encoded


class ScoredSoftmax(Objective):
    """Cross-entropy of each target among the scores of all N items.

    The same as ``FullSoftmax`` where scores are inner products, which is then faster.

    Source: the objective of Zhang et al., "HMamba: Hyperbolic Mamba for Sequential Recommendation", 2025 (arXiv
    2505.09205), with ``scorers.Lorentz``. Differs from its code: there is no padding item, so none is a class.
    """

    def forward(self, encoded: Encoded) -> Float[Tensor, "M"]:
        return scored_cross_entropy(encoded.queries, encoded.keys(None), encoded.batch.targets, encoded.scores)


class KeyLength(Auxiliary):
    """The mean Euclidean length of the keys of the items in the histories: it holds hyperbolic points near the origin.

    Source: the released ``full`` code of HMamba, which adds it once (a weight of 1) with the time coordinate, as here.
    Differs from it: there is no padding to average over.

    Args:
        weight: how much of it is added to the objective.
    """

    name = "key_length"

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, encoded: Encoded) -> Float[Tensor, ""]:
        lengths = encoded.keys(encoded.batch.history.items).norm(dim=-1)
        return lengths.sum() / max(1, lengths.numel())  # no histories, no length
