"""How well fake users were told from genuine ones: pure functions of what was thought and what was true."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def precision(flagged: Bool[Tensor, "U"], is_fake: Bool[Tensor, "U"]) -> float:
    """Share of the flagged who are fake; not a number where nobody is flagged or nobody is fake."""
    return (is_fake & flagged).sum().item() / n if (n := int(flagged.sum())) and is_fake.any() else float("nan")


def recall(flagged: Bool[Tensor, "U"], is_fake: Bool[Tensor, "U"]) -> float:
    """Share of the fakes who are flagged; not a number where nobody is fake."""
    return (is_fake & flagged).sum().item() / n if (n := int(is_fake.sum())) else float("nan")


def auc(suspicion: Float[Tensor, "U"], is_fake: Bool[Tensor, "U"]) -> float:
    """How often a fake is more suspicious than a genuine user, a tie counting half; not a number without both kinds."""
    n_fakes = int(is_fake.sum())
    pairs = n_fakes * (is_fake.numel() - n_fakes)
    if not pairs:
        return float("nan")
    _, group, sizes = torch.unique(suspicion, return_inverse=True, return_counts=True)
    ranks = (sizes.cumsum(0).double() - (sizes - 1) / 2)[group]  # mean place of each value, from 1
    return (ranks[is_fake].sum().item() - n_fakes * (n_fakes + 1) / 2) / pairs


def auc_within(suspicion: Float[Tensor, "U"], is_fake: Bool[Tensor, "U"], group: Int[Tensor, "U"]) -> float:
    """The same, with each fake held against genuine users of its own group: the mean over fakes who have any.

    Not a number where none has.
    """
    total, n_fakes = 0.0, 0
    for each in group[is_fake].unique():
        alike = group == each
        if not is_fake[alike].all():
            n = int(is_fake[alike].sum())
            total, n_fakes = total + n * auc(suspicion[alike], is_fake[alike]), n_fakes + n
    return total / n_fakes if n_fakes else float("nan")
