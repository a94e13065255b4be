"""The selective scan for a GPU, in Triton: a program takes some channels of one history through its events."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

_STRIDE = 8
# States that one program, a single warp, holds in registers.
_TILE = 512


def scan(
    u: Tensor, delta: Tensor, decay: Tensor, b: Tensor, c: Tensor, offsets: Tensor, initial: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The selective scan with states in float32, see ``ops.scan.selective_scan``."""
    u, delta, decay, b, c = (x.contiguous() for x in (u, delta, decay.float(), b, c))
    start = None if initial is None else initial.float().contiguous()
    learns = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (u, delta, decay, b, c, start))
    return _Scan.apply(u, delta, decay, b, c, start, offsets, learns)


class _Scan(torch.autograd.Function):
    """The state before every ``_STRIDE``-th event is kept for the way back; the others are computed again there.

    Nothing is added atomically: what is summed over histories or channels is laid side by side first.
    """

    @staticmethod
    def forward(
        ctx: Any,
        u: Tensor,
        delta: Tensor,
        decay: Tensor,
        b: Tensor,
        c: Tensor,
        initial: Tensor | None,
        offsets: Tensor,
        learns: bool,
    ) -> tuple[Tensor, Tensor]:
        n_histories = len(offsets) - 1
        y, newest = torch.empty_like(u), decay.new_empty(n_histories, *decay.shape)
        # A program puts its marks where those of the histories before it cannot reach.
        marks = decay.new_empty(len(u) // _STRIDE + n_histories if learns else 0, *decay.shape)
        grid, sizes = _sizes(decay, n_histories)
        sizes["KEEPS_MARKS"] = learns
        with torch.cuda.device_of(u):
            _forward[grid](u, delta, decay, b, c, offsets, initial, y, newest, marks, **sizes)
        ctx.save_for_backward(u, delta, decay, b, c, offsets, marks)
        ctx.has_initial = initial is not None
        ctx.set_materialize_grads(False)  # training asks for no gradient of the newest states
        return y, newest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        u, delta, decay, b, c, offsets, marks = ctx.saved_tensors
        for_y, for_newest = (None if x is None else x.contiguous() for x in gradients)
        for_y = torch.zeros_like(u) if for_y is None else for_y
        grid, sizes = _sizes(decay, len(offsets) - 1)
        for_u, for_delta = torch.empty_like(u), torch.empty_like(delta)
        for_decay = decay.new_empty(grid[0], *decay.shape)
        for_b, for_c = (decay.new_empty(grid[1], *b.shape) for _ in range(2))
        for_initial = torch.empty_like(for_decay) if ctx.has_initial else None
        inputs = (u, delta, decay, b, c, offsets, marks, for_y, for_newest)
        with torch.cuda.device_of(u):
            _backward[grid](*inputs, for_u, for_delta, for_decay, for_b, for_c, for_initial, len(u), **sizes)
        of_b, of_c = for_b.sum(0).to(b.dtype), for_c.sum(0).to(c.dtype)
        return for_u, for_delta, for_decay.sum(0), of_b, of_c, for_initial, None, None


def _sizes(decay: Tensor, n_histories: int) -> tuple[tuple[int, int], dict[str, Any]]:
    """Programs by history and block of channels, and the sizes it is compiled for."""
    channels, states = decay.shape
    wide = triton.next_power_of_2(states)
    block = max(1, min(triton.next_power_of_2(channels), _TILE // wide))
    sizes = {"CHANNELS": channels, "STATES": states, "BLOCK": block, "WIDE": wide, "STRIDE": _STRIDE, "num_warps": 1}
    return (n_histories, triton.cdiv(channels, block)), sizes


@triton.jit
def _places(CHANNELS: tl.constexpr, STATES: tl.constexpr, BLOCK: tl.constexpr, WIDE: tl.constexpr):
    """The history of this program, its channels, the states of a channel, and both within an array of states."""
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    n = tl.arange(0, WIDE)
    real = (i < CHANNELS)[:, None] & (n < STATES)[None, :]
    return tl.program_id(0).to(tl.int64), i, n, i[:, None] * STATES + n[None, :], real


@triton.jit
def _row(x, t, places, SIZE: tl.constexpr):
    """What an event has at these places, zero beyond the last."""
    return tl.load(x + t * SIZE + places, mask=places < SIZE, other=0).to(tl.float32)


@triton.jit
def _event(u, delta, decay, b, t, i, n, CHANNELS: tl.constexpr, STATES: tl.constexpr):
    """What an event leaves of the states before it, and what it adds to them."""
    step = _row(delta, t, i, CHANNELS)
    keeps = tl.exp2(step[:, None] * (decay * 1.4426950408889634))
    return keeps, (step * _row(u, t, i, CHANNELS))[:, None] * _row(b, t, n, STATES)[None, :]


@triton.jit
def _forward(
    u,
    delta,
    decay,
    b,
    c,
    offsets,
    initial,
    y,
    newest,
    marks,
    KEEPS_MARKS: tl.constexpr,
    CHANNELS: tl.constexpr,
    STATES: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
    STRIDE: tl.constexpr,
):
    history, i, n, tile, real = _places(CHANNELS, STATES, BLOCK, WIDE)
    decay = tl.load(decay + tile, mask=real, other=0)
    state = tl.zeros([BLOCK, WIDE], tl.float32)
    if initial is not None:
        state = tl.load(initial + history * CHANNELS * STATES + tile, mask=real, other=0)
    begin, end = tl.load(offsets + history), tl.load(offsets + history + 1)
    for t in range(begin, end):
        if KEEPS_MARKS:  # noqa: SIM102  known when the kernel is compiled, unlike the other
            if (t - begin) % STRIDE == 0:
                mark = begin // STRIDE + history + (t - begin) // STRIDE
                tl.store(marks + mark * CHANNELS * STATES + tile, state, mask=real)
        keeps, added = _event(u, delta, decay, b, t, i, n, CHANNELS, STATES)
        state = keeps * state + added
        tl.store(y + t * CHANNELS + i, tl.sum(state * _row(c, t, n, STATES)[None, :], 1), mask=i < CHANNELS)
    tl.store(newest + history * CHANNELS * STATES + tile, state, mask=real)


@triton.jit
def _backward(
    u,
    delta,
    decay,
    b,
    c,
    offsets,
    marks,
    for_y,
    for_newest,
    for_u,
    for_delta,
    for_decay,
    for_b,
    for_c,
    for_initial,
    n_events,
    CHANNELS: tl.constexpr,
    STATES: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
    STRIDE: tl.constexpr,
):
    history, i, n, tile, real = _places(CHANNELS, STATES, BLOCK, WIDE)
    own_row = tl.program_id(1).to(tl.int64) * n_events
    decay = tl.load(decay + tile, mask=real, other=0)
    flow = tl.zeros([BLOCK, WIDE], tl.float32)
    if for_newest is not None:
        flow = tl.load(for_newest + history * CHANNELS * STATES + tile, mask=real, other=0)
    of_decay = tl.zeros([BLOCK, WIDE], tl.float32)
    begin, end = tl.load(offsets + history), tl.load(offsets + history + 1)
    n_segments = (end - begin + STRIDE - 1) // STRIDE
    for later in range(n_segments):
        segment = n_segments - 1 - later
        first = begin + segment * STRIDE
        last = tl.minimum(first + STRIDE, end)
        mark = tl.load(marks + (begin // STRIDE + history + segment) * CHANNELS * STATES + tile, mask=real, other=0)
        for ago in range(last - first):
            t = last - 1 - ago
            before = mark
            for earlier in range(first, t):
                keeps, added = _event(u, delta, decay, b, earlier, i, n, CHANNELS, STATES)
                before = keeps * before + added
            keeps, added = _event(u, delta, decay, b, t, i, n, CHANNELS, STATES)
            x, step, read = _row(u, t, i, CHANNELS), _row(delta, t, i, CHANNELS), _row(for_y, t, i, CHANNELS)[:, None]
            tl.store(for_c + (own_row + t) * STATES + n, tl.sum(read * (keeps * before + added), 0), mask=n < STATES)
            flow += read * _row(c, t, n, STATES)[None, :]
            of_gained = tl.sum(flow * _row(b, t, n, STATES)[None, :], 1)
            tl.store(for_b + (own_row + t) * STATES + n, tl.sum(flow * (step * x)[:, None], 0), mask=n < STATES)
            flow *= keeps
            of_decay += flow * before * step[:, None]
            tl.store(for_u + t * CHANNELS + i, of_gained * step, mask=i < CHANNELS)
            tl.store(for_delta + t * CHANNELS + i, of_gained * x + tl.sum(flow * before * decay, 1), mask=i < CHANNELS)
    tl.store(for_decay + history * CHANNELS * STATES + tile, of_decay, mask=real)
    if for_initial is not None:
        tl.store(for_initial + history * CHANNELS * STATES + tile, flow, mask=real)
