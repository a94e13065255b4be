"""How suspicion becomes a weight: a standing per user that falls and rises, and whose sum never changes."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

FIRST = 3.0


def weights_of(standing: Float[Tensor, "U"], first: float = FIRST, clip_above: float = 0.5) -> Float[Tensor, "U"]:
    """``σ(standing) / σ(first)``, where anything between ``clip_above`` and 1 counts as 1.

    So a user must fall well below the others before anything happens, and no weight exceeds ``1 / σ(first)``.
    """
    weights = torch.sigmoid(standing) / torch.sigmoid(torch.tensor(first, dtype=standing.dtype))
    return torch.where((weights > clip_above) & (weights < 1), 1.0, weights).float()


def judged(scores: Float[Tensor, "U"]) -> Bool[Tensor, "U"]:
    """Who is more suspicious than the mean."""
    return scores > scores.mean()


def moved(standing: Float[Tensor, "U"], flagged: Bool[Tensor, "U"]) -> Float[Tensor, "U"] | None:
    """Flagged users lose 1, and the others share what was lost; None, no change, if a third or more are flagged."""
    n, lost = flagged.numel(), int(flagged.sum())
    if 3 * lost >= n:
        return None
    return standing + torch.where(flagged, -1.0, lost / (n - lost))
