"""Fixed waves of many lengths, added to events by their place."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from seqrec.positions.base import InputPosition
from seqrec.sequences import Sequences


class SinusoidalPosition(InputPosition):
    """Sine and cosine of the place, over wavelengths from 2π to 2π times ``base`` events. It learns nothing.

    Source: Vaswani et al., "Attention Is All You Need", NeurIPS 2017 (arXiv 1706.03762). Differs from it: sines stand
    in the first half of the channels and cosines in the second; all are multiplied by ``scale``, since item vectors
    begin far smaller than 1.

    Args:
        dim: width D of an event, even.
        base: the longest wavelength is 2π times this, above 1.
        scale: what the waves are multiplied by, above 0.
    """

    pace: Tensor

    def __init__(self, dim: int, base: float = 10_000.0, scale: float = 0.02) -> None:
        super().__init__()
        if dim % 2:
            raise ValueError(f"dim is {dim}; sines and cosines come in pairs, so it must be even.")
        if base <= 1 or scale <= 0:
            raise ValueError(f"base is {base} and scale is {scale}; base must be above 1 and scale above 0.")
        self.scale = scale
        self.dim = dim
        self.register_buffer("pace", base ** (-torch.arange(0, dim, 2) / dim), persistent=False)

    def forward(self, events: Float[Tensor, "T D"], history: Sequences) -> Float[Tensor, "T D"]:
        angles = history.all_places[:, None] * self.pace
        return events + self.scale * torch.cat([angles.sin(), angles.cos()], dim=-1)
