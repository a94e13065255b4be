"""How far items are pushed: pure functions of the ranks that chosen items take for users who lack them."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Bool, Float, Int
from torch import Tensor

from seqrec.evaluation.metrics import ndcg, recall


def promotion(
    ranks: Int[Tensor, "targets U"], lacks: Bool[Tensor, "targets U"], cutoffs: Sequence[int] = (10, 20, 50)
) -> dict[str, float]:
    """``t_hr@k``, ``t_ndcg@k`` and ``t_rank``: the mean over each target's users, then the mean over targets.

    Source: the target metrics of Zhang et al., LoRec, SIGIR 2024. A target that nobody lacks is left out.

    Args:
        ranks: where each target stands for each user, 0 is best.
        lacks: whether the user counts for the target: neither has it nor is about to take it.
        cutoffs: list lengths k.

    Returns:
        The higher, the further the targets are pushed; but ``t_rank``, the mean rank, counted from 1.

    Raises:
        ValueError: every user has every target.
    """
    if not lacks.any():
        raise ValueError("Every user has every target, so nobody can be shown one; choose other targets.")
    flat, shape = ranks.flatten(), ranks.shape
    values = {f"t_hr@{k}": macro(recall(flat, k).view(shape), lacks) for k in cutoffs}
    values |= {f"t_ndcg@{k}": macro(ndcg(flat, k).view(shape), lacks) for k in cutoffs}
    return {**values, "t_rank": macro(ranks.double() + 1, lacks)}


def macro(values: Float[Tensor, "targets U"], counted: Bool[Tensor, "targets U"]) -> float:
    """The mean over the counted users of each row, then over the rows that have some."""
    sums, counts = (values * counted).sum(1), counted.sum(1)
    return (sums[counts > 0] / counts[counts > 0]).mean().item()
