"""The selective scan for a CPU, compiled by numba: the state of a history stays in cache while its events go by."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from seqrec.ops.compiling import compiled
from seqrec.ops.threads import share_out

_LOG2_E = 1.4426950408889634
_STRIDE = 8
# Fewer events than this are not worth another thread.
_SHARE = 256

# Sums may be reordered; infinities and NaN keep their meaning.
_compiled = partial(compiled, fastmath={"reassoc", "contract", "nsz", "arcp", "afn"})
_f32 = np.float32


def scan(
    u: Tensor, delta: Tensor, decay: Tensor, b: Tensor, c: Tensor, offsets: Tensor, initial: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The selective scan in float32, see ``ops.scan.selective_scan``."""
    inputs, steps, decay, b, c = (x.float().contiguous() for x in (u, delta, decay.T, b, c))
    start = None if initial is None else initial.float().transpose(1, 2).contiguous()
    learns = torch.is_grad_enabled() and any(
        x is not None and x.requires_grad for x in (inputs, steps, decay, b, c, start)
    )
    y, newest = _Scan.apply(inputs, steps, decay, b, c, start, offsets, learns)
    return y.to(u.dtype), newest.transpose(1, 2)


class _Scan(torch.autograd.Function):
    """One state in ``_STRIDE`` is kept for the way back; the others are computed again there.

    States lie as [N, I] within an event, so that the innermost loop runs over neighbouring channels.
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
        y, newest = torch.empty_like(u), decay.new_empty(len(offsets) - 1, *decay.shape)
        marked = (offsets.diff() - 1).div(_STRIDE, rounding_mode="floor").clamp(min=0)
        first_mark = torch.cat([marked.new_zeros(1), marked.cumsum(0)])
        marks = decay.new_empty(int(first_mark[-1]) if learns else 0, *decay.shape)
        before = decay.new_empty(0, *decay.shape) if initial is None else initial
        work = _arrays(offsets, first_mark, delta * u, delta, decay * _LOG2_E, b, c, before, newest, y, marks)
        share_out(offsets.numpy(), _SHARE, lambda first, last: _forward(first, last, *work))
        ctx.save_for_backward(u, delta, decay, b, c, before, offsets, first_mark, marks)
        ctx.has_initial = initial is not None
        ctx.set_materialize_grads(False)  # training asks for no gradient of the newest states
        return y, newest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        u, delta, decay, b, c, before, offsets, first_mark, marks = ctx.saved_tensors
        for_y = torch.zeros_like(u) if gradients[0] is None else gradients[0].contiguous()
        for_newest = decay.new_empty(0, *decay.shape) if gradients[1] is None else gradients[1].contiguous()
        gained, for_gained, for_delta, for_b, for_c = delta * u, *(torch.empty_like(x) for x in (u, u, b, c))
        for_initial = torch.empty_like(before)
        work = _arrays(
            *(offsets, first_mark, gained, delta, decay * _LOG2_E, decay, b, c, before, marks),
            *(for_y, for_newest, for_gained, for_delta, for_b, for_c, for_initial),
        )

        def share(first: int, last: int) -> Tensor:
            for_decay, flow = torch.zeros_like(decay), torch.empty_like(decay)
            kept, states = (decay.new_empty(n, *decay.shape) for n in (_STRIDE, _STRIDE + 1))
            _backward(first, last, *work, *_arrays(for_decay, flow, kept, states))
            return for_decay

        for_decay = torch.stack(share_out(offsets.numpy(), _SHARE, share)).sum(0)
        for_u, for_delta = for_gained * delta, for_delta.addcmul_(for_gained, u)
        return for_u, for_delta, for_decay, for_b, for_c, for_initial if ctx.has_initial else None, None, None


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    return [x.detach().numpy() for x in tensors]


@_compiled
def _power_of_two(x):
    """2 to the power of x within ±126: an exponent for the nearest integer, a Taylor series for the rest (1e-7)."""
    x = min(max(x, _f32(-126)), _f32(126))
    whole = np.int32(x + _f32(126.5))
    rest = (x - (_f32(whole) - _f32(126))) * _f32(0.6931471805599453)
    p = _f32(1 / 720) * rest + _f32(1 / 120)
    p = p * rest + _f32(1 / 24)
    p = p * rest + _f32(1 / 6)
    p = p * rest + _f32(1 / 2)
    p = p * rest + _f32(1)
    p = p * rest + _f32(1)
    return np.int32((whole + 1) << 23).view(np.float32) * p


@_compiled
def _begin(state, states, h):
    """The state of a history; zero where there are no states."""
    if len(states):
        state[:] = states[h]
    else:
        state[:] = 0


@_compiled
def _forward(first, last, offsets, first_mark, gained, delta, rate, b, c, initial, newest, y, marks):
    n_states, n_channels = rate.shape
    for h in range(first, last):
        mark = first_mark[h]
        _begin(newest[h], initial, h)
        for t in range(offsets[h], offsets[h + 1]):
            place = t - offsets[h]
            if place and place % _STRIDE == 0 and len(marks):
                marks[mark] = newest[h]
                mark += 1
            for i in range(n_channels):
                y[t, i] = 0
            for n in range(n_states):
                enters, reads = b[t, n], c[t, n]
                for i in range(n_channels):
                    s = _power_of_two(delta[t, i] * rate[n, i]) * newest[h, n, i] + gained[t, i] * enters
                    newest[h, n, i] = s
                    y[t, i] += s * reads


@_compiled
def _backward(
    first,
    last,
    offsets,
    first_mark,
    gained,
    delta,
    rate,
    decay,
    b,
    c,
    initial,
    marks,
    for_y,
    for_newest,
    for_gained,
    for_delta,
    for_b,
    for_c,
    for_initial,
    for_decay,
    flow,
    kept,
    states,
):
    n_states, n_channels = rate.shape
    for h in range(first, last):
        start, end = offsets[h], offsets[h + 1]
        _begin(flow, for_newest, h)
        for segment in range((end - start + _STRIDE - 1) // _STRIDE - 1, -1, -1):
            begin = start + segment * _STRIDE
            stop = min(end, begin + _STRIDE)
            if segment:
                states[0] = marks[first_mark[h] + segment - 1]
            else:
                _begin(states[0], initial, h)
            for t in range(begin, stop):
                place = t - begin
                for n in range(n_states):
                    enters = b[t, n]
                    for i in range(n_channels):
                        keeps = _power_of_two(delta[t, i] * rate[n, i])
                        kept[place, n, i] = keeps
                        states[place + 1, n, i] = keeps * states[place, n, i] + gained[t, i] * enters
            for t in range(stop - 1, begin - 1, -1):
                place = t - begin
                for i in range(n_channels):
                    for_gained[t, i] = 0
                    for_delta[t, i] = 0
                for n in range(n_states):
                    enters, reads = b[t, n], c[t, n]
                    of_b, of_c = _f32(0), _f32(0)
                    for i in range(n_channels):
                        of_c += for_y[t, i] * states[place + 1, n, i]
                        arrives = flow[n, i] + for_y[t, i] * reads
                        for_gained[t, i] += enters * arrives
                        of_b += gained[t, i] * arrives
                        leaves = arrives * kept[place, n, i]
                        flow[n, i] = leaves
                        changed = leaves * states[place, n, i]
                        for_decay[n, i] += changed * delta[t, i]
                        for_delta[t, i] += changed * decay[n, i]
                    for_b[t, n] = of_b
                    for_c[t, n] = of_c
        if len(for_initial):
            for_initial[h] = flow
