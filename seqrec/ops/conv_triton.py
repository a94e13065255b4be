"""The causal convolution for a GPU, in Triton: a program takes some channels of some events, whosever they are."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

_ROWS, _CHANNELS = 32, 64  # events and channels that one program holds at once


def convolution(x: Tensor, weight: Tensor, bias: Tensor | None, offsets: Tensor, initial: Tensor | None) -> Tensor:
    """The causal convolution with sums in float32, see ``ops.conv.causal_conv1d``."""
    kind = torch.promote_types(x.dtype, weight.dtype)
    start = None if initial is None else initial.to(kind).contiguous()
    filters, added = weight.contiguous(), None if bias is None else bias.contiguous()
    n_histories = len(offsets) - 1
    owners = torch.arange(n_histories, device=x.device)
    owners = torch.repeat_interleave(owners, offsets.diff(), output_size=len(x))
    x = x if x.stride(1) == 1 else x.contiguous()  # part of wider rows is read where it lies
    return _Convolution.apply(x, filters, added, start, offsets.contiguous(), owners)


class _Convolution(torch.autograd.Function):
    """Only the inputs are kept for the way back.

    Nothing is added atomically: what is summed over events is laid side by side first, and a second kernel makes the
    gradient of the pasts, of which each row gathers what it gave to the first events of its history.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        initial: Tensor | None,
        offsets: Tensor,
        owners: Tensor,
    ) -> Tensor:
        y = x.new_empty(x.shape, dtype=torch.promote_types(x.dtype, weight.dtype))
        grid, sizes = _sizes(weight, len(x))
        with torch.cuda.device_of(x):
            _forward[grid](x, weight, bias, initial, offsets, owners, y, x.stride(0), len(x), **sizes)
        ctx.save_for_backward(x, weight, bias, initial, offsets, owners)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, initial, offsets, owners = ctx.saved_tensors
        for_y = gradients[0].contiguous()
        grid, sizes = _sizes(weight, len(x))
        for_x = x.new_empty(x.shape)
        for_weight = x.new_empty(grid[0], weight.shape[1], weight.shape[0], dtype=torch.float32)
        for_bias = None if bias is None else x.new_empty(grid[0], len(bias), dtype=torch.float32)
        for_initial = None if initial is None else torch.empty_like(initial)
        inputs = (x, weight, initial, offsets, owners, for_y)
        with torch.cuda.device_of(x):
            _backward[grid](*inputs, for_x, for_weight, for_bias, x.stride(0), len(x), **sizes)
            if for_initial is not None and for_initial.numel():
                n_rows = for_initial.shape[0] * for_initial.shape[1]
                grid, sizes = _sizes(weight, n_rows)
                _backward_into_pasts[grid](weight, offsets, for_y, for_initial, n_rows, **sizes)
        of_weight = for_weight.sum(0).T.to(weight.dtype)
        of_bias = None if bias is None or for_bias is None else for_bias.sum(0).to(bias.dtype)
        return for_x, of_weight, of_bias, for_initial, None, None


def _sizes(weight: Tensor, n_rows: int) -> tuple[tuple[int, int], dict[str, Any]]:
    """Programs by block of rows and block of channels, and the sizes it is compiled for."""
    channels, width = weight.shape
    block = min(triton.next_power_of_2(channels), _CHANNELS)
    sizes = {"CHANNELS": channels, "WIDTH": width, "ROWS": _ROWS, "BLOCK": block, "num_warps": 4}
    return (triton.cdiv(n_rows, _ROWS), triton.cdiv(channels, block)), sizes


@triton.jit
def _places(n_rows, CHANNELS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """The rows and channels of this program, and which of them there are."""
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    return rows, i, (rows < n_rows)[:, None] & (i < CHANNELS)[None, :]


@triton.jit
def _read(x, stride, rows, i, real):
    """What these rows have in these channels, zero where they are not real: nothing is read there."""
    return tl.load(x + rows[:, None] * stride + i[None, :], mask=real, other=0).to(tl.float32)


@triton.jit
def _weights(weight, place, i, CHANNELS: tl.constexpr, WIDTH: tl.constexpr):
    """One weight of the filter of each channel."""
    return tl.load(weight + i * WIDTH + place, mask=i < CHANNELS, other=0).to(tl.float32)[None, :]


@triton.jit
def _inputs(
    x,
    initial,
    stride,
    t,
    place,
    history,
    i,
    real,
    BACK: tl.constexpr,
    CHANNELS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """The inputs so many events before these, from the past of a history, if it has one, where that begins later."""
    found = _read(x, stride, t - BACK, i, real & (place >= BACK)[:, None])
    if initial is not None:
        row = (history + 1) * (WIDTH - 1) + place - BACK
        found += _read(initial, CHANNELS, row, i, real & (place < BACK)[:, None])
    return found


@triton.jit
def _forward(
    x,
    weight,
    bias,
    initial,
    offsets,
    owners,
    y,
    stride,
    n_events,
    CHANNELS: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    t, i, real = _places(n_events, CHANNELS, ROWS, BLOCK)
    history = tl.load(owners + t, mask=t < n_events, other=0)
    place = t - tl.load(offsets + history)
    total = tl.zeros([ROWS, BLOCK], tl.float32)
    for back in tl.static_range(WIDTH):  # pyright: ignore[reportGeneralTypeIssues]
        found = _inputs(x, initial, stride, t, place, history, i, real, back, CHANNELS, WIDTH)
        total += _weights(weight, WIDTH - 1 - back, i, CHANNELS, WIDTH) * found
    if bias is not None:
        total += tl.load(bias + i, mask=i < CHANNELS, other=0).to(tl.float32)[None, :]
    tl.store(y + t[:, None] * CHANNELS + i[None, :], total, mask=real)


@triton.jit
def _backward(
    x,
    weight,
    initial,
    offsets,
    owners,
    for_y,
    for_x,
    for_weight,
    for_bias,
    stride,
    n_events,
    CHANNELS: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    t, i, real = _places(n_events, CHANNELS, ROWS, BLOCK)
    own_row = tl.program_id(0).to(tl.int64)
    history = tl.load(owners + t, mask=t < n_events, other=0)
    place, left = t - tl.load(offsets + history), tl.load(offsets + history + 1) - t
    flow = _read(for_y, CHANNELS, t, i, real)
    of_x = tl.zeros([ROWS, BLOCK], tl.float32)
    for back in tl.static_range(WIDTH):  # pyright: ignore[reportGeneralTypeIssues]
        later = _read(for_y, CHANNELS, t + back, i, real & (left > back)[:, None])
        of_x += _weights(weight, WIDTH - 1 - back, i, CHANNELS, WIDTH) * later
        found = _inputs(x, initial, stride, t, place, history, i, real, back, CHANNELS, WIDTH)
        part = for_weight + (own_row * WIDTH + WIDTH - 1 - back) * CHANNELS + i
        tl.store(part, tl.sum(flow * found, 0), mask=i < CHANNELS)
    tl.store(for_x + t[:, None] * CHANNELS + i[None, :], of_x, mask=real)
    if for_bias is not None:
        tl.store(for_bias + own_row * CHANNELS + i, tl.sum(flow, 0), mask=i < CHANNELS)


@triton.jit
def _backward_into_pasts(
    weight,
    offsets,
    for_y,
    for_initial,
    n_rows,
    CHANNELS: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    rows, i, real = _places(n_rows, CHANNELS, ROWS, BLOCK)
    of_past = tl.zeros([ROWS, BLOCK], tl.float32)
    history = rows // (WIDTH - 1)
    begin = tl.load(offsets + history, mask=rows < n_rows, other=0)
    end = tl.load(offsets + history + 1, mask=rows < n_rows, other=0)
    first = begin - (WIDTH - 1) + rows % (WIDTH - 1)  # where the row would lie among the events
    for back in tl.static_range(1, WIDTH):  # pyright: ignore[reportGeneralTypeIssues]
        t = first + back
        reached = real & ((t >= begin) & (t < end))[:, None]
        of_past += _weights(weight, WIDTH - 1 - back, i, CHANNELS, WIDTH) * _read(for_y, CHANNELS, t, i, reached)
    tl.store(for_initial + rows[:, None] * CHANNELS + i[None, :], of_past, mask=real)
