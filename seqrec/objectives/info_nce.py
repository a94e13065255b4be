"""InfoNCE: each target among negatives that the batch shares, by cosines and a temperature that is learned."""

from __future__ import annotations

from math import log

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from seqrec.objectives.base import Objective
from seqrec.objectives.negatives import NegativeSampler
from seqrec.recommenders.base import Encoded

_LARGEST_SCALE = 100.0


class InfoNCE(Objective):
    """Cross-entropy of each target among shared negatives; a score is s · cos(query, key), with s = 1 / temperature.

    A negative is left out for a prediction whose target it is, or whose target it is all but equal to: its key points
    where the target's does, as those of two items with the same text do.

    Queries and keys are normalised here, so the temperature of ``scorers.Cosine`` changes neither this loss nor a rank.
    That scorer belongs to it, because it ranks by the cosine that was trained; with ``scorers.Dot`` the length of an
    item's vector, which nothing trains, would decide as well.

    Scores are one [M, S] matrix in float32, in no blocks: 2,000 predictions among as many negatives take 16 MB a copy.

    Source: the loss of Chen et al., "HLLM: Enhancing Sequential Recommendations via Hierarchical Large Language Models
    for Item and User Modeling", 2024 (arXiv 2409.12740). Differs from its code: by default the negatives are the
    targets of the batch, each once however often it occurs, instead of random items, and no device sees those of
    another. Popular items, which are negatives more often, are not corrected for it.

    Args:
        negatives: draws the negatives; None takes the distinct targets of the batch.
        n_negatives: how many it draws, at least 1; not used where ``negatives`` is None.
        temperature: 1 / s in the beginning, or for good, at least 0.01.
        learns_temperature: whether log s is trained; s is held at 100 or below.
        similarity_limit: a negative is left out if the cosine of its key and the target's is above this, which is
            above 0; 1 leaves out the target itself alone.
    """

    not_decayed = ("log_scale",)

    def __init__(
        self,
        negatives: NegativeSampler | None = None,
        n_negatives: int = 256,
        temperature: float = 0.07,
        learns_temperature: bool = True,
        similarity_limit: float = 0.99,
    ) -> None:
        super().__init__()
        if n_negatives < 1:
            raise ValueError(f"n_negatives is {n_negatives}; InfoNCE needs at least 1 negative, e.g. 256.")
        if temperature < 1 / _LARGEST_SCALE:
            raise ValueError(f"temperature is {temperature}; it must be at least {1 / _LARGEST_SCALE}, e.g. 0.07.")
        if not 0 < similarity_limit <= 1:
            raise ValueError(f"similarity_limit is {similarity_limit}; it must be above 0 and at most 1, e.g. 0.99.")
        self.negatives = negatives
        self.n_negatives = n_negatives
        self.similarity_limit = similarity_limit
        self.log_scale = nn.Parameter(torch.tensor(-log(temperature)), requires_grad=learns_temperature)

    def forward(self, encoded: Encoded) -> Float[Tensor, "M"]:
        targets = encoded.batch.targets
        drawn = targets.unique() if self.negatives is None else self.negatives.draw(encoded, self.n_negatives)
        # Every item is embedded once: under dropout a second copy of a target would not be like it.
        rows, places = torch.cat([targets, drawn]).unique(return_inverse=True)
        keys = encoded.keys(rows)
        with torch.autocast(keys.device.type, enabled=False):
            queries, keys = (F.normalize(vectors.float(), dim=1) for vectors in (encoded.queries, keys))
            of_targets, of_drawn = keys[places].tensor_split([targets.numel()])
            alike = of_targets.detach() @ of_drawn.detach().T > self.similarity_limit
            queries = self._scale() * queries
            target_scores = (queries * of_targets).sum(1)
            scores = (queries @ of_drawn.T).masked_fill(alike | (drawn == targets[:, None]), -torch.inf)
            return F.softplus(scores.logsumexp(1) - target_scores)

    def _scale(self) -> Float[Tensor, ""]:
        # The parameter itself is held: clamped on its way into the loss it would get no gradient back from beyond.
        with torch.no_grad():
            self.log_scale.clamp_(max=log(_LARGEST_SCALE))
        return self.log_scale.exp()
