"""Dropout whose random bits are not wasted."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from seqrec.ops.dispatch import Op


@Op
def drop(x: Float[Tensor, "*d"], share: float) -> Float[Tensor, "*d"]:
    """Each number is zero with probability ``share``, in [0, 1), and otherwise divided by ``1 - share``."""
    return F.dropout(x, share)


def _only_on_cpu(x: Tensor, share: float) -> str | None:
    if x.device.type != "cpu":
        return f"tensors are on {x.device}"
    return None


@drop.implementation("four_of_64_bits", refuses=_only_on_cpu)
def _four_of_64_bits(x: Tensor, share: float) -> Tensor:
    """Four numbers are decided by one draw of 64 bits, where torch draws once for each and on one core.

    The share is rounded to a multiple of 2⁻¹⁶, and what is kept is divided by what that leaves.
    """
    below = min(round(share * 2**16), 2**16 - 1)
    draws = torch.randint(-(2**63), 2**63 - 1, ((x.numel() + 3) // 4,))
    kept = draws.view(torch.int16)[: x.numel()].view(x.shape) >= below - 2**15
    return (x * kept).mul_(2**16 / (2**16 - below))
