"""The Lorentz model of hyperbolic space, in float32 at least.

A point is written (x0, xs): one time coordinate and D space coordinates with ``-x0² + |xs|² = -k`` and ``x0 > 0``, for
a curvature of -1/k. The origin is (√k, 0), and vectors that are tangent there are given by their D space coordinates.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

_LONGEST = 10.0  # of a tangent vector, in units of √k: sinh(10) is 11,013, whose square float32 still holds well
_LEAST_K = 1e-4


class Curvature(nn.Module, ABC):
    """How curved a space is; the same one may be given to several parts, which then share it."""

    @abstractmethod
    def forward(self) -> Float[Tensor, ""]:
        """k, above 0: the curvature is -1/k."""


class FixedCurvature(Curvature):
    """A curvature that stays.

    Args:
        k: above 0; towards infinity the space becomes flat. Inner products are about as large as k, so that beyond some
            hundreds those of near items are no longer told apart in float32.
    """

    k: Tensor

    def __init__(self, k: float = 1.0) -> None:
        super().__init__()
        if k <= 0:
            raise ValueError(f"k is {k}; a hyperbolic space needs k above 0, e.g. 1.0.")
        self.register_buffer("k", torch.tensor(float(k)), persistent=False)

    def forward(self) -> Float[Tensor, ""]:
        return self.k


class LearnedCurvature(Curvature):
    """A curvature that is trained through a softplus, which keeps k above 0.0001.

    Args:
        k: where training starts, above 0.0001.
    """

    not_decayed = ("raw",)

    def __init__(self, k: float = 1.0) -> None:
        super().__init__()
        if k <= _LEAST_K:
            raise ValueError(f"k is {k}; a learned curvature starts with k above {_LEAST_K}, e.g. 1.0.")
        over = k - _LEAST_K
        self.raw = nn.Parameter(torch.tensor(over + math.log(-math.expm1(-over))))  # the inverse of softplus

    def forward(self) -> Float[Tensor, ""]:
        return F.softplus(self.raw) + _LEAST_K


def lorentz_product(x: Float[Tensor, "*n E"], y: Float[Tensor, "*n E"]) -> Float[Tensor, "*n"]:
    """``-x0 y0 + xs · ys``."""
    return (x[..., 1:] * y[..., 1:]).sum(-1) - x[..., 0] * y[..., 0]


def lift(space: Float[Tensor, "*n D"], k: Float[Tensor, ""]) -> Float[Tensor, "*n E"]:
    """The point that has these space coordinates; E is D + 1."""
    space = _wide(space)
    return torch.cat([_hypot(_length(space), k.sqrt()), space], dim=-1)


def exp_origin(tangent: Float[Tensor, "*n D"], k: Float[Tensor, ""]) -> Float[Tensor, "*n E"]:
    """The exponential map at the origin: walk straight along a tangent vector, as far as it is long.

    Longer vectors than 10 √k count as that long, so that nothing overflows.
    """
    tangent = _wide(tangent)
    radius, length = k.sqrt(), _length(tangent)
    longest = _LONGEST * radius
    shortened = tangent * (longest / torch.maximum(length, longest))
    return lift(shortened * _sinh_ratio(torch.minimum(length, longest) / radius), k)


def log_origin(point: Float[Tensor, "*n E"], k: Float[Tensor, ""]) -> Float[Tensor, "*n D"]:
    """The logarithmic map at the origin: the tangent vector that leads to a point."""
    space = _wide(point)[..., 1:]
    return space * _asinh_ratio(_length(space) / k.sqrt())


def distance(x: Float[Tensor, "*n E"], y: Float[Tensor, "*n E"], k: Float[Tensor, ""]) -> Float[Tensor, "*n"]:
    """How long the shortest way from one point to the other within the space is, ``√k arcosh(-<x, y> / k)``.

    Computed as ``2 √k asinh(|x - y| / (2 √k))`` with the Lorentz length of the difference, which keeps far more digits
    of short distances. Coordinates grow exponentially away from the origin, and with them what their rounding does to
    the distance of neighbours: in float32, 8 √k away, 0.1 √k along the ray is lost. Where that leaves no length, as
    between a point and itself, distance and gradient are 0.
    """
    gap = _wide(x) - _wide(y)
    squared = lorentz_product(gap, gap)
    apart = squared > 0
    chord = torch.where(apart, squared, 1).sqrt()
    return torch.where(apart, 2 * k.sqrt() * torch.asinh(chord / (2 * k.sqrt())), 0)


def arcosh(theta: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """The inverse of cosh; below 1.0000001, where its gradient would explode, it stays what it is there."""
    return torch.acosh(theta.clamp(min=1 + 1e-7))


def _hypot(a: Tensor, b: Tensor) -> Tensor:
    """``sqrt(a² + b²)`` of numbers that are not negative, not both 0, whose squares may overflow."""
    if not torch.compiler.is_exporting():
        return torch.hypot(a, b)
    larger = torch.maximum(a, b)  # ONNX has no hypot
    return larger * (1 + (torch.minimum(a, b) / larger).square()).sqrt()


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _length(x: Float[Tensor, "*n D"]) -> Float[Tensor, "*n 1"]:
    """The Euclidean norm, without squares that overflow and with gradient 0 at 0."""
    unit = x.detach().abs().amax(-1, keepdim=True).clamp(min=1)
    return unit * torch.linalg.vector_norm(x / unit, dim=-1, keepdim=True)


def _sinh_ratio(t: Tensor) -> Tensor:
    """``sinh(t) / t``."""
    near = t < 0.03
    square, far = torch.where(near, t, 0).square(), torch.where(near, 1, t)
    series = 1 + square / 6 * (1 + square / 20 * (1 + square / 42))
    return torch.where(near, series, far.sinh() / far)


def _asinh_ratio(t: Tensor) -> Tensor:
    """``asinh(t) / t``."""
    near = t < 0.03
    square, far = torch.where(near, t, 0).square(), torch.where(near, 1, t)
    series = 1 - square / 6 * (1 - square * 9 / 20 * (1 - square * 25 / 42))
    return torch.where(near, series, far.asinh() / far)
