"""What scores of impressions are worth where each was clicked or not: pure functions of scores, clicks and users."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F


def user_aucs(
    scores: Float[Tensor, "n"], clicked: Bool[Tensor, "n"], users: Int[Tensor, "n"]
) -> tuple[Float[Tensor, "u"], Int[Tensor, "u"]]:
    """AUC of every user with clicks and non-clicks, in order of users, and how many impressions each had.

    An AUC is the share of pairs of a clicked and an unclicked impression in which the clicked one scores higher; a tie
    counts half.

    Raises:
        FloatingPointError: a score is not finite.
    """
    if not scores.isfinite().all():
        raise FloatingPointError(f"{int((~scores.isfinite()).sum())} of {scores.numel()} scores are not finite.")
    _, user, shown = torch.unique(users, return_inverse=True, return_counts=True)
    level = torch.unique(scores, return_inverse=True)[1]
    _, tied, sizes = torch.unique(user * scores.numel() + level, return_inverse=True, return_counts=True)
    sizes = sizes.double()  # a rank among all of them may be beyond float32
    ranks = (sizes.cumsum(0) - (sizes - 1) / 2)[tied] - (shown.cumsum(0) - shown)[user]  # from 1; ties share their mean
    hits = torch.bincount(user, clicked.double(), minlength=len(shown))
    misses = shown - hits
    # Mann and Whitney: the ranks of the clicked, less what they would be without any unclicked below them.
    won = torch.bincount(user, ranks * clicked, minlength=len(shown)) - hits * (hits + 1) / 2
    both = (hits > 0) & (misses > 0)
    return (won / (hits * misses))[both], shown[both]


def auc(scores: Float[Tensor, "n"], clicked: Bool[Tensor, "n"]) -> float:
    """AUC of all impressions together, whoever saw them; not a number where all or none were clicked."""
    return user_aucs(scores, clicked, torch.zeros_like(clicked, dtype=torch.long))[0].mean().item()


def gauc(scores: Float[Tensor, "n"], clicked: Bool[Tensor, "n"], users: Int[Tensor, "n"]) -> float:
    """Mean AUC of users, each weighed by the number of its impressions; users who clicked all or none are left out.

    Not a number where all users are.
    """
    aucs, shown = user_aucs(scores, clicked, users)
    return ((aucs * shown).sum() / shown.sum()).item()


def log_loss(logits: Float[Tensor, "n"], clicked: Bool[Tensor, "n"]) -> float:
    """Mean of -ln of the probability that was given to what happened; a logit is the log-odds of a click."""
    return F.binary_cross_entropy_with_logits(logits.double(), clicked.double()).item()
