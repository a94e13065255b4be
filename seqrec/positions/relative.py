"""Biases of the logits by how many events lie between query and key: learned, or falling in a straight line."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seqrec.ops.adjusted_attention import Pairs
from seqrec.ops.lookup import look_up
from seqrec.positions.base import LogitPosition


class RelativeBias(LogitPosition):
    """One learned number per distance, shared by the heads or one for each.

    Source: the position half of the bias of HSTU (Zhai et al., "Actions Speak Louder than Words", ICML 2024, arXiv
    2402.17152), where heads share it. Differs from it: a table of the distances that occur, 0 to ``max_length`` - 1;
    keys that are further away count as ``max_length`` - 1.

    Args:
        channels: width C of a head; not read.
        max_length: number of distances, at least 1.
        n_heads: 1 shares the numbers; otherwise the number of heads H, each with its own.
        init_std: standard deviation of the initial numbers, above 0.
    """

    def __init__(self, channels: int, max_length: int = 200, n_heads: int = 1, init_std: float = 0.02) -> None:
        super().__init__()
        if max_length < 1 or n_heads < 1:
            raise ValueError(f"max_length is {max_length} and n_heads is {n_heads}; both must be at least 1.")
        self.table = nn.Parameter(init_std * torch.randn(n_heads, max_length))

    def adjust(self, logits: Float[Tensor, "b H i j"], pairs: Pairs) -> Float[Tensor, "b H i j"]:
        self.demand_as_many_heads(len(self.table), logits.shape[1])
        lags = pairs.lags.clamp(0, self.table.shape[1] - 1)
        return logits + torch.stack([look_up(numbers, lags) for numbers in self.table], dim=1)


class ALiBi(LogitPosition):
    """Each event further away costs a head the same; the heads differ in how much. It learns nothing.

    Source: Press et al., "Train Short, Test Long: Attention with Linear Biases Enables Input Length Extrapolation",
    ICLR 2022 (arXiv 2108.12409). Of H heads the h-th, counted from 1, loses ``2^(-8 h / H)`` per event, also where H is
    no power of two, for which the paper interpolates.

    Args:
        channels: width C of a head; not read.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()

    def adjust(self, logits: Float[Tensor, "b H i j"], pairs: Pairs) -> Float[Tensor, "b H i j"]:
        n_heads = logits.shape[1]
        slopes = 2.0 ** (-8 * torch.arange(1, n_heads + 1, device=logits.device) / n_heads)
        return logits - slopes[:, None, None] * pairs.lags[:, None]
