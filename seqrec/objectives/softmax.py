"""The softmax over the whole catalog: every other item is a negative."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from seqrec.objectives.base import Objective
from seqrec.ops.cross_entropy import linear_cross_entropy
from seqrec.recommenders.base import Encoded


class FullSoftmax(Objective):
    """Cross-entropy of each target among all N items, without a tensor of all scores.

    Source: Klenitskiy and Vasilev, "Turning Dross Into Gold Loss: is BERT4Rec really better than SASRec?",
    RecSys 2023. Differs from its code: there is no padding item, so none is a class of the softmax.
    """

    def forward(self, encoded: Encoded) -> Float[Tensor, "M"]:
        return linear_cross_entropy(encoded.queries, encoded.keys(None), encoded.batch.targets, encoded.weights)
