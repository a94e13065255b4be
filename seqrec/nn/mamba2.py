"""The Mamba-2 block: like Mamba's, with one decay per head and a norm before the way out."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from seqrec.nn.mamba import MambaMemory
from seqrec.ops.conv import causal_conv1d, newest_inputs
from seqrec.ops.ssd import ssd_scan
from seqrec.sequences import Sequences


class Mamba2(nn.Module):
    """One Mamba-2 block, without norm before it and without residual.

    Source: Dao and Gu, "Transformers are SSMs", 2024 (arXiv 2405.21060), with one group of b and c.

    Args:
        dim: width D of an event and of a state.
        d_state: states N per channel, at least 1.
        d_conv: events K that the convolution sees, at least 1.
        expand: inner width I as a multiple of D, at least 1.
        n_heads: heads H, each with a decay and a step size of its own; I must be a multiple of it.
    """

    not_decayed = ("decay_log", "skip", "step_bias")

    def __init__(self, dim: int, d_state: int = 32, d_conv: int = 4, expand: int = 2, n_heads: int = 4) -> None:
        super().__init__()
        inner = expand * dim
        for name, value in {"d_state": d_state, "d_conv": d_conv, "expand": expand, "n_heads": n_heads}.items():
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1.")
        if inner % n_heads:
            raise ValueError(
                f"The inner width is {inner} (expand times dim) and must be a multiple of {n_heads}, the heads; choose "
                "another dim or expand."
            )
        self.inner, self.d_state, self.d_conv, self.n_heads = inner, d_state, d_conv, n_heads
        self.enter = nn.Linear(dim, 2 * inner + 2 * d_state + n_heads, bias=False)
        self.conv = nn.Conv1d(inner + 2 * d_state, inner + 2 * d_state, d_conv, groups=inner + 2 * d_state)
        self.decay_log = nn.Parameter(torch.empty(n_heads).uniform_(1, 16).log())
        self.step_bias = nn.Parameter(torch.empty(n_heads))
        self.skip = nn.Parameter(torch.ones(n_heads))
        self.norm = nn.RMSNorm(inner, eps=1e-5)
        self.leave = nn.Linear(inner, dim, bias=False)
        self.spread_steps()

    @torch.no_grad()
    def spread_steps(self) -> None:
        """Begin with step sizes spread log-uniformly over [0.001, 0.1]."""
        steps = torch.empty_like(self.step_bias).uniform_(math.log(0.001), math.log(0.1)).exp()
        self.step_bias.copy_(steps + torch.log(-torch.expm1(-steps)))  # the inverse of softplus

    def forward(
        self, events: Float[Tensor, "T D"], history: Sequences, memory: MambaMemory | None = None
    ) -> tuple[Float[Tensor, "T D"], MambaMemory]:
        widths = [self.inner, self.inner + 2 * self.d_state, self.n_heads]
        gate, entered, step = self.enter(events).split(widths, dim=-1)
        past, state = (None, None) if memory is None else (memory.inputs, memory.state)
        mixed = F.silu(causal_conv1d(entered, self.conv.weight[:, 0], self.conv.bias, history.offsets, past))
        u, b, c = mixed.split([self.inner, self.d_state, self.d_state], dim=-1)
        u = u.unflatten(-1, (self.n_heads, -1))
        kind = torch.promote_types(u.dtype, torch.float32)
        delta = F.softplus(step.to(kind) + self.step_bias.to(kind))
        before = None if state is None else state.unflatten(1, (self.n_heads, -1))
        read, newest = ssd_scan(u, delta, -self.decay_log.to(kind).exp(), b, c, history.offsets, before)
        read = (read + self.skip[:, None] * u).flatten(1)
        out = self.leave(self.norm(read * F.silu(gate)))
        return out, MambaMemory(newest_inputs(entered, self.d_conv - 1, history.offsets, past), newest.flatten(1, 2))
