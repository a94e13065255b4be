"""Dropout as a layer."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from seqrec.ops.dropout import drop


def share_of(dropout: float) -> float:
    """The same number, if it is a share that can be dropped.

    Raises:
        ValueError: it is below 0, or leaves nothing.
    """
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout is {dropout}; it must be at least 0 and below 1, e.g. 0.2.")
    return dropout


class Dropout(nn.Module):
    """Drops numbers in training only, see ``ops.dropout.drop``.

    Args:
        share: probability that a number is dropped, in [0, 1).
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share_of(share)

    def forward(self, x: Float[Tensor, "*d"]) -> Float[Tensor, "*d"]:
        if not (self.training and self.share):
            return x
        if torch.compiler.is_compiling():  # where torch's own dropout melts into its neighbours
            return F.dropout(x, self.share)
        return drop(x, self.share)

    def extra_repr(self) -> str:
        return f"{self.share}"
