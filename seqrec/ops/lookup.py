"""Numbers of a short table at very many places."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from seqrec.ops.dispatch import Op


@Op
def look_up(table: Float[Tensor, "n"], places: Int[Tensor, "*d"]) -> Float[Tensor, "*d"]:
    """``table[places]``."""
    return table[places]


@look_up.exported
def _exported(table: Tensor, places: Tensor) -> Tensor:
    return table[places.long()]  # ONNX has no other indices


def _never(*_: Any) -> str | None:
    return None


@look_up.implementation("counted", refuses=_never)
def _counted(table: Tensor, places: Tensor) -> Tensor:
    return _LookUp.apply(table, places)


class _LookUp(torch.autograd.Function):
    """The gradient is a weighted count, in float64, where indexing would add number by number."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        ctx.size = len(table)
        return table.index_select(0, places.flatten()).view(places.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (places,) = ctx.saved_tensors
        (gradient,) = gradients
        counted = torch.bincount(places.flatten(), gradient.double().flatten(), minlength=ctx.size)
        return counted.to(gradient.dtype), None
