"""Rotary positions: queries and keys turn with their place, so that their product knows the distance alone."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seqrec.positions.base import TurningPosition


class RotaryPosition(TurningPosition):
    """Each pair of channels turns by an angle of place times ``base^(-2 c / C)``.

    Source: Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021 (arXiv 2104.09864). Differs
    from it: channel c is paired with channel c + C / 2, as in most programs, not with its neighbour. It learns nothing.

    Args:
        channels: width C of a head, even.
        base: the slowest pair turns by about 1 / base per event, above 1.
    """

    pace: Tensor

    def __init__(self, channels: int, base: float = 10_000.0) -> None:
        super().__init__()
        if channels % 2:
            raise ValueError(
                f"A head is {channels} wide, but channels turn in pairs; choose dim and n_heads otherwise."
            )
        if base <= 1:
            raise ValueError(f"base is {base}; it must be above 1, e.g. 10000.")
        self.register_buffer("pace", base ** (-torch.arange(0, channels, 2) / channels), persistent=False)

    def turn(self, x: Float[Tensor, "T H C"], places: Int[Tensor, "T"]) -> Float[Tensor, "T H C"]:
        angles = (places[:, None] * self.pace)[:, None, :]
        sine, cosine = angles.sin(), angles.cos()
        first, second = x.float().chunk(2, dim=-1) if x.dtype != torch.float64 else x.chunk(2, dim=-1)
        return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1).to(x.dtype)
