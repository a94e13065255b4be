"""Short causal convolutions over packed histories, one filter per channel."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from seqrec.ops.dispatch import Op, lacks_triton

_WIDEST = 16  # weights of a filter in Triton, where each lengthens the kernel


@Op
def causal_conv1d(
    x: Float[Tensor, "T I"],
    weight: Float[Tensor, "I K"],
    bias: Float[Tensor, "I"] | None,
    offsets: Int[Tensor, "bounds"],
    initial: Float[Tensor, "B before I"] | None = None,
) -> Float[Tensor, "T I"]:
    """Each event's sum over itself (last weight) and the K - 1 events before it in the same history.

    In the finer precision of inputs and filters, also under autocast.

    Args:
        x: inputs.
        weight: one filter per channel, oldest event first.
        bias: added to every event.
        offsets: where each history begins and ends.
        initial: the K - 1 inputs before each history, oldest first; None is zero.
    """
    channels, width = weight.shape
    x = x.to(torch.promote_types(x.dtype, weight.dtype))
    histories = []
    for history, (start, end) in enumerate(pairwise(offsets.tolist())):
        past = x.new_zeros(width - 1, channels) if initial is None else initial[history].to(x.dtype)
        if end > start:
            whole = torch.cat([past, x[start:end]]).T[None]
            with torch.autocast(x.device.type, enabled=False):
                histories.append(F.conv1d(whole, weight[:, None, :], bias, groups=channels)[0].T)
    return torch.cat(histories) if histories else torch.zeros_like(x)


def causal_conv1d_step(
    past: Float[Tensor, "B before I"],
    x: Float[Tensor, "B I"],
    weight: Float[Tensor, "I K"],
    bias: Float[Tensor, "I"] | None,
) -> tuple[Float[Tensor, "B I"], Float[Tensor, "B before I"]]:
    """One more event of each history: its sum, and the K - 1 inputs that the next one needs. See ``causal_conv1d``."""
    window = torch.cat([past, x[:, None]], dim=1)
    y = (window * weight.T).sum(1)  # no product of matrices, which autocast would round
    return y if bias is None else y + bias, window[:, 1:]


def newest_inputs(
    x: Float[Tensor, "T I"],
    n: int,
    offsets: Int[Tensor, "bounds"],
    initial: Float[Tensor, "B before I"] | None = None,
) -> Float[Tensor, "B n I"]:
    """The last ``n`` inputs of each history, oldest first, reaching back into ``initial`` or zeros."""
    past = x.new_zeros(len(offsets) - 1, n, x.shape[1]) if initial is None else initial.to(x.dtype)
    lengths = offsets.diff()[:, None]
    wanted = torch.arange(-n, 0, device=x.device)
    in_past = (wanted + lengths + n).clamp(0, n - 1) if n else wanted[None].expand(len(lengths), 0)
    kept = past.gather(1, in_past[:, :, None].expand(-1, -1, x.shape[1]))
    if not x.shape[0]:
        return kept
    fresh = x[(offsets[1:, None] + wanted).clamp(min=0)]
    return torch.where((wanted + lengths >= 0)[:, :, None], fresh, kept)


@causal_conv1d.exported
def _exported(x: Tensor, weight: Tensor, bias: Tensor | None, offsets: Tensor, initial: Tensor | None = None) -> Tensor:
    n_events, before = x.shape[0], weight.shape[1] - 1
    whole = F.pad(x, (0, 0, before, 0))
    shifted = [weight[:, place] * whole[place : n_events + place] for place in range(before + 1)]
    return torch.stack(shifted).sum(0) if bias is None else torch.stack(shifted).sum(0) + bias


def _never(*_: Any, **__: Any) -> str | None:
    return None


@causal_conv1d.implementation("shifted", refuses=_never)
def _shifted(x: Tensor, weight: Tensor, bias: Tensor | None, offsets: Tensor, initial: Tensor | None = None) -> Tensor:
    """The packed events as they lie, shifted and weighed, with what crosses into another history left out."""
    if initial is not None:
        return _with_past(x, weight, bias, offsets, initial)
    lengths = offsets.diff()
    place = torch.arange(len(x), device=x.device)
    place = place - torch.repeat_interleave(offsets[:-1], lengths, output_size=len(x))
    return _Shifted.apply(x, weight, bias, place)


def _with_past(x: Tensor, weight: Tensor, bias: Tensor | None, offsets: Tensor, initial: Tensor) -> Tensor:
    """The past laid before each history, convolved with it and cut off again."""
    before = initial.shape[1]
    lengths, n_histories = offsets.diff(), len(initial)
    shift = torch.repeat_interleave(
        torch.arange(1, n_histories + 1, device=x.device) * before, lengths, output_size=len(x)
    )
    own = torch.arange(len(x), device=x.device) + shift
    starts = offsets[:-1] + torch.arange(n_histories, device=x.device) * before
    past = (starts[:, None] + torch.arange(before, device=x.device)).flatten()
    whole = x.new_zeros(len(x) + past.numel(), x.shape[1])
    whole = whole.index_copy(0, own, x).index_copy(0, past, initial.to(x.dtype).flatten(0, 1))
    return _shifted(whole, weight, bias, F.pad((lengths + before).cumsum(0), (1, 0)))[own]


class _Shifted(torch.autograd.Function):
    """Only the inputs are kept for the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, place: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, place)
        ctx.has_bias = bias is not None
        y = x * weight[:, -1]
        if bias is not None:
            y += bias
        for back in range(1, min(weight.shape[1], len(x))):
            y[back:].addcmul_(x[:-back], weight[:, -1 - back] * (place[back:] >= back)[:, None])
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, place = ctx.saved_tensors
        (for_y,) = gradients
        for_x = for_y * weight[:, -1]
        for_weight = torch.zeros_like(weight)
        for_weight[:, -1] = (for_y * x).sum(0)
        for back in range(1, min(weight.shape[1], len(x))):
            flow = for_y[back:] * (place[back:] >= back)[:, None]
            for_x[:-back].addcmul_(flow, weight[:, -1 - back])
            for_weight[:, -1 - back] = (flow * x[:-back]).sum(0)
        return for_x, for_weight, for_y.sum(0) if ctx.has_bias else None, None


def _needs_triton(x: Tensor, weight: Tensor, *_: Any, **__: Any) -> str | None:
    width = weight.shape[1]
    too_wide = f"filters have {width} weights, it is written out for {_WIDEST} at most" if width > _WIDEST else None
    return lacks_triton(x) or lacks_triton(weight) or too_wide


@causal_conv1d.implementation("triton", refuses=_needs_triton)
def _triton(x: Tensor, weight: Tensor, bias: Tensor | None, offsets: Tensor, initial: Tensor | None = None) -> Tensor:
    from seqrec.ops.conv_triton import convolution

    return convolution(x, weight, bias, offsets, initial)
