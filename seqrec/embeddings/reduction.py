"""Fewer numbers for a vector: its principal components, fitted once to the items of a catalog."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class PCA:
    """The directions in which vectors differ most: ``z = (x - mean) U``, or whitened, divided by their deviations.

    Args:
        dim: directions Q that are kept, at least 1 and at most as many as vectors have numbers.
        whitens: whether each kept direction is scaled to a variance of 1.
        floor: added to the variances before they divide, at least 0.
    """

    dim: int
    whitens: bool = False
    floor: float = 1e-6

    def __post_init__(self) -> None:
        if self.dim < 1 or self.floor < 0:
            raise ValueError(
                f"dim is {self.dim} and floor is {self.floor} of PCA; keep at least 1 direction, with a floor of 0 or "
                "more."
            )

    def fit(self, vectors: Float[Tensor, "N T"]) -> tuple[Float[Tensor, "T"], Float[Tensor, "T Q"]]:
        """The mean, and the map from what differs from it to the kept directions.

        Raises:
            ValueError: vectors have fewer numbers than directions are to be kept.
        """
        if vectors.shape[1] < self.dim:
            raise ValueError(
                f"PCA is to keep {self.dim} directions of vectors of {vectors.shape[1]} numbers; keep at most as many."
            )
        exact = vectors.double()
        mean = exact.mean(0)
        centred = exact - mean
        variances, directions = torch.linalg.eigh(centred.T @ centred / max(len(vectors), 1))
        kept = directions[:, -self.dim :].flip(1)
        # The sign of a direction means nothing; fixed, so that two machines give the same one.
        kept = kept * kept.gather(0, kept.abs().argmax(0, keepdim=True)).sign()
        if self.whitens:
            kept = kept / (variances[-self.dim :].flip(0).clamp(min=0) + self.floor).sqrt()
        return mean.float(), kept.float()
