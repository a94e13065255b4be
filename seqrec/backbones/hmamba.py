"""HMamba: a Mamba block that reads points of hyperbolic space."""

from __future__ import annotations

import math
from enum import Enum

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from seqrec.backbones.base import ContinuingBackbone
from seqrec.nn.dropout import Dropout
from seqrec.nn.hyperbolic import Curvature, FixedCurvature, exp_origin, lift, log_origin
from seqrec.nn.mamba import Mamba, MambaMemory
from seqrec.nn.mamba_shell import Layer
from seqrec.sequences import Sequences

_EPS = 1e-12


class NormedPoint(nn.Module):
    """The point of an event, then dropout and a norm over its D + 1 coordinates, which take it off the hyperboloid."""

    def __init__(self, dim: int, dropout: float, curvature: Curvature) -> None:
        super().__init__()
        self.width, self.curvature = dim + 1, curvature
        self.dropout, self.norm = Dropout(dropout), nn.LayerNorm(dim + 1, eps=_EPS)

    def forward(self, events: Float[Tensor, "T D"]) -> Float[Tensor, "T E"]:
        point = exp_origin(events, self.curvature()).to(self.norm.weight.dtype)
        return self.norm(self.dropout(point))


class PointOfNormed(nn.Module):
    """Dropout and norm of the tangent vector, then its point, which is on the hyperboloid when Mamba reads it.

    The norm begins with vectors of length 1: one of length √D would be very far out.
    """

    def __init__(self, dim: int, dropout: float, curvature: Curvature) -> None:
        super().__init__()
        self.width, self.curvature = dim + 1, curvature
        self.dropout, self.norm = Dropout(dropout), nn.LayerNorm(dim, eps=_EPS)
        nn.init.constant_(self.norm.weight, 1 / math.sqrt(dim))

    def forward(self, events: Float[Tensor, "T D"]) -> Float[Tensor, "T E"]:
        return exp_origin(self.norm(self.dropout(events)), self.curvature())


class Flat(nn.Module):
    """Dropout and norm, as in Mamba4Rec: no hyperbolic space."""

    def __init__(self, dim: int, dropout: float, curvature: Curvature) -> None:
        super().__init__()
        self.width = dim
        self.dropout, self.norm = Dropout(dropout), nn.LayerNorm(dim, eps=_EPS)

    def forward(self, events: Float[Tensor, "T D"]) -> Float[Tensor, "T D"]:
        return self.norm(self.dropout(events))


class Entrance(Enum):
    """What Mamba reads of an event."""

    released = NormedPoint
    on_manifold = PointOfNormed
    euclidean = Flat


class SpaceCoordinates(nn.Module):
    """The block's output is the space coordinates of a point; a Lorentz scorer adds the time coordinate."""

    def __init__(self, curvature: Curvature) -> None:
        super().__init__()

    def forward(self, states: Float[Tensor, "T D"]) -> Float[Tensor, "T D"]:
        return states


class TangentVector(nn.Module):
    """The point is brought back to the tangent space of the origin, for the plain inner product."""

    def __init__(self, curvature: Curvature) -> None:
        super().__init__()
        self.curvature = curvature

    def forward(self, states: Float[Tensor, "T D"]) -> Float[Tensor, "T D"]:
        k = self.curvature()
        return log_origin(lift(states, k), k).to(states.dtype)


class Variant(Enum):
    """What a state is: ``full`` wants ``scorers.Lorentz``, ``half`` wants ``scorers.Dot``."""

    full = SpaceCoordinates
    half = TangentVector


class CurvedDecay(nn.Module):
    """The decay of the first state of every channel times √k."""

    def __init__(self, curvature: Curvature) -> None:
        super().__init__()
        self.curvature = curvature

    def forward(self, decay: Float[Tensor, "I N"]) -> Float[Tensor, "I N"]:
        return torch.cat([decay[:, :1] * self.curvature().sqrt(), decay[:, 1:]], dim=1)


class _Mixer(nn.Module):
    """A Mamba block behind its entrance."""

    def __init__(self, entrance: nn.Module, mamba: Mamba) -> None:
        super().__init__()
        self.entrance, self.mamba = entrance, mamba

    def forward(
        self, events: Float[Tensor, "T D"], history: Sequences, memory: MambaMemory | None
    ) -> tuple[Float[Tensor, "T D"], MambaMemory]:
        return self.mamba(self.entrance(events).to(self.mamba.enter.weight.dtype), history, memory)


class HMamba(ContinuingBackbone[MambaMemory]):
    """Mamba4Rec with events that are points of hyperbolic space, and states that are points or come from them.

    Source: Zhang et al., "HMamba: Hyperbolic Mamba for Sequential Recommendation", 2025 (arXiv 2505.09205). The
    defaults follow its released code, which is simpler than the paper: the scan knows nothing of the curvature, and
    what it reads was normalised off the hyperboloid. The paper's own ideas are options. Differs from the code:
    histories are packed, so no padding is read; layers that it builds and never calls are absent; a tangent vector
    counts as 10 √k long at most; the logarithmic map divides by the true length, where the code divides by at most 10.
    ``scorers.Lorentz`` takes the curvature from here, unless it is given one of its own. The code has one layer
    however many are asked for, so there is no such argument. The entrance drops event vectors, so the recommender's own
    dropout stays 0. With ``scorers.Cosine`` the logarithmic map of ``half`` does nothing, because it only scales a
    state; ``full`` is then the same.

    The paper's K(k) is read as one factor per state of the scan: √k for the first state of each channel, 1 for the
    others.

    Args:
        dim: width D of an event and of a state.
        dropout: share of activations dropped, in [0, 1).
        d_state: states N per channel.
        d_conv: events that the convolution sees.
        expand: inner width of the Mamba block as a multiple of D.
        variant: ``full`` or ``half``.
        entrance: ``released`` (norm after the exponential map), ``on_manifold`` (norm before it) or ``euclidean`` (the
            paper's figure of ``half``).
        curvature: of the space, which may be a ``LearnedCurvature``; fixed at k = 1 by default.
        curves_decay: whether the scan's decay depends on the curvature (the paper).
        init_std: standard deviation of the linear maps at the beginning, above 0: 0.02 in the released ``half``; None
            keeps torch's own initialisation, as in the released ``full``. Their biases begin at 0 in either case, and
            with them every Δ near 0.693.
    """

    causal = True

    def __init__(
        self,
        dim: int,
        dropout: float = 0.1,
        d_state: int = 32,
        d_conv: int = 4,
        expand: int = 2,
        variant: Variant = Variant.full,
        entrance: Entrance = Entrance.released,
        curvature: Curvature | None = None,
        curves_decay: bool = False,
        init_std: float | None = None,
    ) -> None:
        super().__init__(dim)
        curvature = curvature or FixedCurvature()
        reads = entrance.value(dim, dropout, curvature)
        decay_map = CurvedDecay(curvature) if curves_decay else None
        mamba = Mamba(dim, d_state, d_conv, expand, reads.width, decay_map)
        self.layer: Layer[MambaMemory] = Layer(_Mixer(reads, mamba), dim, dropout, has_residual=False)
        self.leave = variant.value(curvature)
        self._space = (curvature,)  # it belongs to those that were given it
        for linear in (part for part in self.modules() if isinstance(part, nn.Linear)):
            if init_std is not None:
                nn.init.normal_(linear.weight, std=init_std)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)

    @property
    def curvature(self) -> Curvature:
        """Of the space that events are points of."""
        return self._space[0]

    def proceed(
        self, events: Float[Tensor, "T D"], history: Sequences, memory: MambaMemory | None
    ) -> tuple[Float[Tensor, "T D"], MambaMemory]:
        states, newest = self.layer(events, history, memory)
        return self.leave(states), newest

    def proceed_at(
        self, events: Float[Tensor, "T D"], history: Sequences, at: Int[Tensor, "M"], memory: MambaMemory | None
    ) -> tuple[Float[Tensor, "M D"], MambaMemory]:
        states, newest = self.layer.forward_at(events, history, at, memory)
        return self.leave(states), newest
