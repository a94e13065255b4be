"""Binary cross-entropy: was this item the next one, asked of the target and of a few negatives."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from seqrec.objectives.base import Objective
from seqrec.objectives.negatives import Uniform, draw_unseen, score_each
from seqrec.recommenders.base import Encoded


class BinaryCrossEntropy(Objective):
    """Mean binary cross-entropy of the target (yes) and of uniform negatives (no), drawn for each prediction.

    Source: Kang and McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018. Differs from the paper: the terms
    are averaged instead of summed, which is half of its loss with one negative, and the items a user is known to have
    are those of the window in the batch, not of all training.

    Args:
        n_negatives: negatives of each prediction, at least 1.
        excludes_history: whether negatives are drawn among the items that the history neither holds nor predicts.
    """

    def __init__(self, n_negatives: int = 1, excludes_history: bool = True) -> None:
        super().__init__()
        self.n_negatives = _at_least_one(n_negatives)
        self.excludes_history = excludes_history

    def forward(self, encoded: Encoded) -> Float[Tensor, "M"]:
        return _losses(encoded, _draw(encoded, self.n_negatives, self.excludes_history), positive_weight=1.0)


class GBCE(Objective):
    """Generalised binary cross-entropy: the target's probability is raised to a power β that undoes overconfidence.

    Sampling few negatives makes a model believe in every item; β = 1 - t (1 - α), with α the share of the other items
    that are drawn, takes this back. The power is applied as β log σ(score) in float32, which equals the paper's
    transform of the score without its float64 and its clamps.

    Source: Petrov and Macdonald, "gSASRec: Reducing Overconfidence in Sequential Recommendation Trained with Negative
    Sampling", RecSys 2023.

    Args:
        n_negatives: uniform negatives of each prediction, at least 1; more than N - 1 count as N - 1 in α.
        t: calibration in [0, 1]; 0 is plain binary cross-entropy, 1 gives calibrated probabilities.
        excludes_history: whether negatives are drawn among the items that the history neither holds nor predicts;
            the paper draws from the whole catalog.
    """

    def __init__(self, n_negatives: int = 256, t: float = 0.75, excludes_history: bool = False) -> None:
        super().__init__()
        if not 0 <= t <= 1:
            raise ValueError(f"t is {t}; the calibration of gBCE lies between 0 and 1, e.g. 0.75.")
        self.n_negatives = _at_least_one(n_negatives)
        self.t = t
        self.excludes_history = excludes_history

    def beta(self, n_items: int) -> float:
        """The power β for a catalog of this many items."""
        sampling_rate = min(1.0, self.n_negatives / max(1, n_items - 1))
        return 1 - self.t * (1 - sampling_rate)

    def forward(self, encoded: Encoded) -> Float[Tensor, "M"]:
        negatives = _draw(encoded, self.n_negatives, self.excludes_history)
        return _losses(encoded, negatives, positive_weight=self.beta(encoded.counts.numel()))


def _at_least_one(n_negatives: int) -> int:
    if n_negatives < 1:
        raise ValueError(f"n_negatives is {n_negatives}; binary cross-entropy needs at least 1 negative.")
    return n_negatives


def _draw(encoded: Encoded, n: int, excludes_history: bool) -> Int[Tensor, "M n"]:
    if excludes_history:
        return draw_unseen(encoded, n)
    n_predictions = encoded.batch.targets.numel()
    return Uniform().draw(encoded, n_predictions * n).view(n_predictions, n)


def _losses(encoded: Encoded, negatives: Int[Tensor, "M n"], positive_weight: float) -> Float[Tensor, "M"]:
    candidates = torch.cat([encoded.batch.targets[:, None], negatives], dim=1)
    scores = score_each(encoded.queries, encoded.keys(None), candidates)
    # log(1 - σ(x)) = log σ(-x)
    terms = torch.cat([positive_weight * F.logsigmoid(scores[:, :1]), F.logsigmoid(-scores[:, 1:])], dim=1)
    return -terms.mean(dim=1)
