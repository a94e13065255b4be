"""Contrastive losses between vectors that belong together, each against all the others of the batch."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F


def symmetric_contrast(
    ones: Float[Tensor, "N D"],
    others: Float[Tensor, "N D"],
    temperature: float,
    left_out: Bool[Tensor, "N N"] | None = None,
) -> Float[Tensor, ""]:
    """NT-Xent: each of the 2 N vectors must find its partner among the 2 N - 1 others, by inner products.

    Args:
        ones: vectors, not normalised here.
        others: the partner of each.
        temperature: divides the inner products, above 0.
        left_out: pairs of rows that are no negatives of each other; a row and its own partner stay.

    Returns:
        the mean over the 2 N vectors in float32; 0 where there is none.
    """
    n = len(ones)
    both = torch.cat([ones, others]).float()
    scores = both @ both.T / temperature
    never = torch.eye(2 * n, dtype=torch.bool, device=both.device)
    if left_out is not None:
        apart = ~torch.eye(n, dtype=torch.bool, device=both.device)
        never |= (left_out & apart).repeat(2, 2)
    partners = torch.arange(2 * n, device=both.device).roll(n)
    return _mean_loss(scores.masked_fill(never, -torch.inf), partners)


def one_sided_contrast(
    ones: Float[Tensor, "N D"],
    others: Float[Tensor, "N D"],
    temperature: float,
    left_out: Bool[Tensor, "N N"] | None = None,
) -> Float[Tensor, ""]:
    """Each of ``ones`` must find its partner among ``others``; arguments and result as in ``symmetric_contrast``."""
    scores = ones.float() @ others.float().T / temperature
    if left_out is not None:
        scores = scores.masked_fill(left_out & ~torch.eye(len(ones), dtype=torch.bool, device=ones.device), -torch.inf)
    return _mean_loss(scores, torch.arange(len(ones), device=ones.device))


def _mean_loss(scores: Float[Tensor, "R C"], partners: Tensor) -> Float[Tensor, ""]:
    return F.cross_entropy(scores, partners, reduction="sum") / max(len(scores), 1)
