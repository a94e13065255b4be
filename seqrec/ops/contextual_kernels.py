"""Contextual biases for a CPU, compiled by numba: one pass over the visible keys of each query."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from seqrec.ops.compiling import compiled
from seqrec.ops.threads import share_out

# Fewer keys than this are not worth another thread.
_SHARE = 2**14

_f32 = np.float32


def bias(gates: Tensor, columns: Tensor, n_visible: Tensor) -> Tensor:
    """The biases in float32, see ``ops.contextual.contextual_bias``."""
    gates, columns = (x.float() for x in (gates, columns))
    return _Bias.apply(gates, columns, n_visible.expand(gates.shape[:-1]).clamp(max=gates.shape[-1]))


class _Bias(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gates: Tensor, columns: Tensor, n_visible: Tensor) -> Tensor:
        gates, columns = gates.contiguous(), columns.contiguous()
        n_visible = n_visible.contiguous()
        out = torch.zeros_like(gates)
        work = [*_rows(gates, columns, out), n_visible.flatten().numpy()]
        share_out(_edges(gates), _SHARE, lambda first, last: _forward(first, last, *work))
        ctx.save_for_backward(gates, columns, n_visible)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        gates, columns, n_visible = ctx.saved_tensors
        for_gates, for_columns = torch.zeros_like(gates), torch.zeros_like(columns)
        work = [*_rows(gates, columns, gradients[0].contiguous(), for_gates, for_columns), n_visible.flatten().numpy()]
        share_out(_edges(gates), _SHARE, lambda first, last: _backward(first, last, *work))
        return for_gates, for_columns, None


def _rows(*tensors: Tensor) -> list[np.ndarray]:
    return [x.detach().flatten(0, -2).numpy() for x in tensors]


def _edges(gates: Tensor) -> np.ndarray:
    """Queries are the pieces that are shared out, each with as many keys."""
    n_rows = gates[..., 0].numel() if gates.shape[-1] else 0
    return np.arange(n_rows + 1) * gates.shape[-1]


@compiled
def _forward(first, last, gates, columns, out, n_visible):
    limit = _f32(columns.shape[1] - 1)
    for row in range(first, last):
        place = _f32(0)
        for j in range(n_visible[row] - 1, -1, -1):
            place += gates[row, j]
            bounded = min(place, limit)
            if not bounded >= 0:  # no number, which is no place to read at
                out[row, j] = np.nan
                continue
            low = np.int32(bounded)
            share = bounded - _f32(low)
            value = columns[row, low]
            if share > 0:
                value += share * (columns[row, low + 1] - value)
            out[row, j] = value


@compiled
def _backward(first, last, gates, columns, for_out, for_gates, for_columns, n_visible):
    limit = _f32(columns.shape[1] - 1)
    for row in range(first, last):
        place = _f32(0)
        for j in range(n_visible[row] - 1, -1, -1):
            place += gates[row, j]
            bounded = min(place, limit)
            if not bounded >= 0:
                for_gates[row, j] = np.nan
                continue
            low = np.int32(bounded)
            share = bounded - _f32(low)
            flow = for_out[row, j]
            for_columns[row, low] += flow * (1 - share)
            if share > 0:
                for_columns[row, low + 1] += flow * share
                for_gates[row, j] = flow * (columns[row, low + 1] - columns[row, low])
        # Key k counts for every key up to it.
        total = _f32(0)
        for j in range(n_visible[row]):
            total += for_gates[row, j]
            for_gates[row, j] = total
