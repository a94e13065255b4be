"""How SIGMA makes one vector of its branches: input-dependent gates and learned weights."""

from __future__ import annotations

from enum import Enum

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from seqrec.nn.dropout import Dropout


class _Softmax(nn.Module):
    def forward(self, weights: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        return weights.softmax(0)


class Mixing(Enum):
    """What is made of the three learned numbers that weigh the branches."""

    raw = nn.Identity  # the released code: they may become negative and grow
    softmax = _Softmax  # shares of 1, which begin at about 0.25, 0.25 and 0.50


class DenseSelectiveGates(nn.Module):
    """How much of itself each direction adds to itself, entry by entry.

    With ``A(v) = W_a silu(v) + b_a``, ``S(v) = W_s sigmoid(v) + b_s`` and ``p``, ``q`` each a residual linear map of
    what the direction read: ``g₁ = drop(A(p) + S(p))`` and ``g₂ = drop(A(q) + S(g₁))``. As in the released code the
    non-linearity comes before the linear map, so gates are unbounded; both directions share A and S; and the second
    gate squashes the first gate, not ``q``. Every form keeps to this; the paper's convolution inside is not there.

    Args:
        dim: width D.
        dropout: share of a gate's entries dropped, in [0, 1).
    """

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.forward_map, self.backward_map, self.silu_map, self.sigmoid_map = (nn.Linear(dim, dim) for _ in range(4))
        self.dropout = Dropout(dropout)

    def forward(
        self, forward_read: Float[Tensor, "T D"], backward_read: Float[Tensor, "T D"]
    ) -> tuple[Float[Tensor, "T D"], Float[Tensor, "T D"]]:
        p = forward_read + self.forward_map(forward_read)
        q = backward_read + self.backward_map(backward_read)
        forward_gate = self.dropout(self.silu_map(F.silu(p)) + self.sigmoid_map(p.sigmoid()))
        backward_gate = self.dropout(self.silu_map(F.silu(q)) + self.sigmoid_map(forward_gate.sigmoid()))
        return forward_gate, backward_gate


class BranchMixture(nn.Module):
    """Both directions, gated, and the recurrent branch, weighed and mapped.

    Args:
        dim: width D.
        gate_dropout: share of a gate's entries dropped, in [0, 1).
        mixing: what is made of the three learned numbers.
    """

    def __init__(self, dim: int, gate_dropout: float, mixing: Mixing) -> None:
        super().__init__()
        self.gates = DenseSelectiveGates(dim, gate_dropout)
        self.weights = nn.Parameter(torch.tensor([0.1, 0.1, 0.8]))  # recurrent, backward, forward
        self.mixing = mixing.value()
        self.leave = nn.Linear(dim, dim)

    def forward(
        self,
        forward_read: Float[Tensor, "T D"],
        backward_read: Float[Tensor, "T D"],
        forward_mamba: Float[Tensor, "T D"],
        backward_mamba: Float[Tensor, "T D"],
        recurrent: Float[Tensor, "T D"],
    ) -> Float[Tensor, "T D"]:
        forward_gate, backward_gate = self.gates(forward_read, backward_read)
        for_recurrent, for_backward, for_forward = self.mixing(self.weights)
        return self.leave(
            for_forward * forward_mamba * (1 + forward_gate)
            + for_backward * backward_mamba * (1 + backward_gate)
            + for_recurrent * recurrent
        )
