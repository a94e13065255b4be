"""The softmax over the target and a few drawn negatives, for catalogs too large to walk at every step."""

from __future__ import annotations

from abc import abstractmethod
from itertools import pairwise
from math import log

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seqrec.objectives.base import Objective
from seqrec.objectives.negatives import NegativeSampler, Uniform, score_each
from seqrec.recommenders.base import Encoded


class _AmongNegatives(Objective):
    def __init__(
        self,
        negatives: NegativeSampler,
        n_negatives: int = 256,
        log_q: bool = False,
        temperature: float = 1.0,
        masks_accidental_hits: bool = True,
    ) -> None:
        super().__init__()
        if n_negatives < 1:
            raise ValueError(f"n_negatives is {n_negatives}; a softmax needs at least 1 negative, e.g. 256.")
        if temperature <= 0:
            raise ValueError(f"temperature is {temperature}; it must be above 0, e.g. 1.0.")
        self.negatives = negatives
        self.n_negatives = n_negatives
        self.log_q = log_q
        self.temperature = temperature
        self.masks_accidental_hits = masks_accidental_hits

    @abstractmethod
    def _draw(self, encoded: Encoded) -> Int[Tensor, "_ S"]:
        """Rows of the negatives: one line for all predictions, or a line for each."""

    @abstractmethod
    def _score(self, encoded: Encoded, rows: Int[Tensor, "_ S"]) -> tuple[Float[Tensor, "M"], Float[Tensor, "M S"]]:
        """Float32 scores of the targets and of the negatives."""

    def forward(self, encoded: Encoded) -> Float[Tensor, "M"]:
        targets, rows = encoded.batch.targets, self._draw(encoded)
        with torch.autocast(encoded.queries.device.type, enabled=False):
            of_target, of_negatives = (scores / self.temperature for scores in self._score(encoded, rows))
            if self.log_q:
                of_negatives = of_negatives - self._log_expected_count(encoded, rows)
                if not self.masks_accidental_hits:
                    of_target = of_target - self._log_expected_count(encoded, targets)
            if self.masks_accidental_hits:
                of_negatives = of_negatives.masked_fill(rows == targets[:, None], -torch.inf)
            return torch.cat([of_target[:, None], of_negatives], dim=1).logsumexp(1) - of_target

    def _log_expected_count(self, encoded: Encoded, rows: Int[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        return self.negatives.log_probability(encoded, rows) + log(self.n_negatives)


class SampledSoftmax(_AmongNegatives):
    """Cross-entropy of each target among one pool of negatives that the whole batch shares.

    Sharing makes the scores one small matrix product, [M, K] times [K, S], and touches the keys of S + M items only.

    With ``log_q`` every candidate's score is lowered by the logarithm of how often it is expected among the
    candidates, so that the sum over the pool estimates the sum over the catalog without bias. Where accidental hits
    are masked the target stands there exactly once and keeps its score (Khrylchenko et al., "Correcting the LogQ
    Correction", RecSys 2025); where they are kept it is lowered like the others (Yi et al., "Sampling-Bias-Corrected
    Neural Modeling for Large Corpus Item Recommendations", RecSys 2019).

    Args:
        negatives: where the pool comes from.
        n_negatives: size S of the pool, at least 1.
        log_q: whether scores are corrected for how often the sampler draws each item.
        temperature: scores are divided by this, above 0.
        masks_accidental_hits: whether a negative that is a prediction's own target is left out for that prediction.
    """

    def _draw(self, encoded: Encoded) -> Int[Tensor, "1 S"]:
        return self.negatives.draw(encoded, self.n_negatives)[None, :]

    def _score(self, encoded: Encoded, rows: Int[Tensor, "1 S"]) -> tuple[Float[Tensor, "M"], Float[Tensor, "M S"]]:
        queries, targets = encoded.queries.float(), encoded.batch.targets
        of_targets, of_pool = encoded.keys(torch.cat([targets, rows[0]])).float().tensor_split([targets.numel()])
        return (queries * of_targets).sum(1), queries @ of_pool.T


class IndependentSampledSoftmax(_AmongNegatives):
    """Cross-entropy of each target among negatives of its own, drawn anew for each prediction.

    Source: the objective of eSASRec (Tikhonovich et al., "eSASRec: Enhancing Transformer-based Recommendations in a
    Modular Fashion", RecSys 2025) with ``Uniform`` negatives and ``masks_accidental_hits=False``. Slower than the
    shared pool of ``SampledSoftmax``: it gathers S keys per prediction, in chunks of bounded size. ``log_q`` corrects
    as there.

    Args:
        negatives: where the negatives come from.
        n_negatives: negatives S of each prediction, at least 1.
        log_q: whether scores are corrected for how often the sampler draws each item.
        temperature: scores are divided by this, above 0.
        masks_accidental_hits: whether a negative that is a prediction's own target is left out for that prediction.
    """

    def _draw(self, encoded: Encoded) -> Int[Tensor, "M S"]:
        n_predictions = encoded.batch.targets.numel()
        return self.negatives.draw(encoded, n_predictions * self.n_negatives).view(n_predictions, self.n_negatives)

    def _score(self, encoded: Encoded, rows: Int[Tensor, "M S"]) -> tuple[Float[Tensor, "M"], Float[Tensor, "M S"]]:
        candidates = torch.cat([encoded.batch.targets[:, None], rows], dim=1)
        scores = score_each(encoded.queries, encoded.keys(None), candidates)
        return scores[:, 0], scores[:, 1:]


class HistorySampledSoftmax(IndependentSampledSoftmax):
    """Cross-entropy of each target among negatives that all predictions of its history share.

    They are drawn uniformly and without replacement among the items that the history neither holds nor predicts; where
    these are fewer, all of them are taken. A draw costs one random number per item of the catalog and history.

    Source: the sampled softmax of SASRec+ (Klenitskiy & Vasilev, "Turning Dross Into Gold Loss: is BERT4Rec really
    better than SASRec?", RecSys 2023), which has 3,000 negatives. Differs from it: every item of the catalog may be
    drawn, also one that training never saw.

    Args:
        n_negatives: negatives S of each history, at least 1.
        temperature: scores are divided by this, above 0.
    """

    def __init__(self, n_negatives: int = 3000, temperature: float = 1.0) -> None:
        super().__init__(Uniform(), n_negatives, temperature=temperature)

    def _draw(self, encoded: Encoded) -> Int[Tensor, "M S"]:
        """Where a history has too few unseen items its line is filled up with the target, which is masked."""
        batch, n_items = encoded.batch, encoded.counts.numel()
        asking = batch.history.owners[batch.predict_at]
        size = min(self.n_negatives, n_items)
        pools = torch.empty(len(batch.history), size, dtype=torch.long, device=asking.device)
        for each, (start, end) in enumerate(pairwise(batch.history.offsets.tolist())):
            order = torch.rand(n_items, device=asking.device)
            order[batch.history.items[start:end]] = -1.0
            order[batch.targets[asking == each]] = -1.0
            drawn = order.topk(size)
            pools[each] = torch.where(drawn.values < 0, -1, drawn.indices)
        rows = pools[asking]
        return torch.where(rows < 0, batch.targets[:, None], rows)
