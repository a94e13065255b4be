"""The Mamba block: a short convolution and a selective scan between two projections, with a gate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from seqrec.ops.conv import causal_conv1d, newest_inputs
from seqrec.ops.scan import selective_scan
from seqrec.sequences import Sequences


class StepInit(Enum):
    """How the step sizes Δ begin."""

    mamba = "mamba"  # spread log-uniformly over [0.001, 0.1]
    zero_bias = "zero_bias"  # about softplus(0) = 0.693 everywhere


@dataclass(frozen=True)
class MambaMemory:
    """What a block carries from the past of each history.

    Attributes:
        inputs: the newest K - 1 inputs of the convolution, oldest first.
        state: the state of the scan.
    """

    inputs: Float[Tensor, "B before convolved"]
    state: Float[Tensor, "B I N"]


class Mamba(nn.Module):
    """One Mamba-1 block, without norm and residual.

    Source: Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", 2023 (arXiv 2312.00752).

    Args:
        dim: width D of an event and of a state.
        d_state: states N per channel, at least 1.
        d_conv: events K that the convolution sees, at least 1.
        expand: inner width I as a multiple of D, at least 1.
        event_dim: width E of an event where it is not D.
        decay_map: changes the decays A [I, N] before they are used.
    """

    not_decayed = ("decay_log", "skip")
    keeps_start = ("decay_log",)

    def __init__(
        self,
        dim: int,
        d_state: int = 32,
        d_conv: int = 4,
        expand: int = 2,
        event_dim: int | None = None,
        decay_map: nn.Module | None = None,
    ) -> None:
        super().__init__()
        for name, value in {"d_state": d_state, "d_conv": d_conv, "expand": expand}.items():
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1.")
        inner, self.rank, self.d_state, self.d_conv = expand * dim, math.ceil(dim / 16), d_state, d_conv
        self.enter = nn.Linear(dim if event_dim is None else event_dim, 2 * inner, bias=False)
        self.conv = nn.Conv1d(inner, inner, d_conv, groups=inner)
        self.select = nn.Linear(inner, self.rank + 2 * d_state, bias=False)
        self.step = nn.Linear(self.rank, inner)
        self.decay_log = nn.Parameter(torch.arange(1.0, d_state + 1).log().repeat(inner, 1))
        self.decay_map = nn.Identity() if decay_map is None else decay_map
        self.skip = nn.Parameter(torch.ones(inner))
        self.leave = nn.Linear(inner, dim, bias=False)
        self.spread_steps()

    @torch.no_grad()
    def spread_steps(self) -> None:
        """Begin with step sizes spread log-uniformly over [0.001, 0.1]."""
        nn.init.uniform_(self.step.weight, -(self.rank**-0.5), self.rank**-0.5)
        steps = torch.empty_like(self.step.bias).uniform_(math.log(0.001), math.log(0.1)).exp()
        self.step.bias.copy_(steps + torch.log(-torch.expm1(-steps)))  # the inverse of softplus

    def forward(
        self, events: Float[Tensor, "T E"], history: Sequences, memory: MambaMemory | None = None
    ) -> tuple[Float[Tensor, "T D"], MambaMemory]:
        entered, gate = self.enter(events).chunk(2, dim=-1)
        past, state = (None, None) if memory is None else (memory.inputs, memory.state)
        u = F.silu(causal_conv1d(entered, self.conv.weight[:, 0], self.conv.bias, history.offsets, past))
        rank, b, c = self.select(u).split([self.rank, self.d_state, self.d_state], dim=-1)
        with torch.autocast(u.device.type, enabled=False):  # in half precision a small step of training moves no bias
            delta = F.softplus(self.step(rank.to(self.step.weight.dtype)))
        decay = self.decay_map(-self.decay_log.to(torch.promote_types(u.dtype, torch.float32)).exp())
        read, newest = selective_scan(u, delta, decay, b, c, history.offsets, state)
        out = self.leave((read + self.skip * u) * F.silu(gate))
        return out, MambaMemory(newest_inputs(entered, self.d_conv - 1, history.offsets, past), newest)
