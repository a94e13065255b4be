"""Biases read from columns at real-valued positions, which are sums of gates counted back from the newest key."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seqrec.ops.dispatch import Op, lacks


@Op
def contextual_bias(
    gates: Float[Tensor, "*r j"], columns: Float[Tensor, "*r M"], n_visible: Int[Tensor, "*r"]
) -> Float[Tensor, "*r j"]:
    """The column at the position of every key, interpolated between the two next to it; zero behind the visible keys.

    The position of key j is ``min(Σ_{j ≤ k < n_visible} gates_k, M - 1)``. No gradient flows through a position that is
    a whole number or that the last column bounds. Where a gate is not a number, neither are the biases up to it.

    Args:
        gates: what each key adds to the positions of all keys up to it, in [0, 1].
        columns: what stands at the whole positions.
        n_visible: how many keys count, always the first ones.
    """
    counts = torch.arange(gates.shape[-1], device=gates.device) < n_visible[..., None]
    places = (gates * counts).flip(-1).cumsum(-1).flip(-1).clamp(max=columns.shape[-1] - 1)
    below = places.detach().floor()
    above = places.detach().ceil()
    share = places - below
    low, high = (columns.gather(-1, each.nan_to_num().long()) for each in (below, above))
    return (low + share * (high - low)) * counts


contextual_bias.exported(contextual_bias.reference)


def _needs_numba(gates: Tensor, *_: Any) -> str | None:
    return lacks(gates, "cpu", "numba", "cpu")


@contextual_bias.implementation("compiled", refuses=_needs_numba)
def _compiled(gates: Tensor, columns: Tensor, n_visible: Tensor) -> Tensor:
    from seqrec.ops.contextual_kernels import bias

    return bias(gates, columns, n_visible)
