"""The selective scan over packed histories: a recurrence whose decay and input depend on the event."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seqrec.ops.dispatch import Op


@Op
def selective_scan(
    u: Float[Tensor, "T I"],
    delta: Float[Tensor, "T I"],
    decay: Float[Tensor, "I N"],
    b: Float[Tensor, "T N"],
    c: Float[Tensor, "T N"],
    offsets: Int[Tensor, "bounds"],
    initial: Float[Tensor, "B I N"] | None = None,
) -> tuple[Float[Tensor, "T I"], Float[Tensor, "B I N"]]:
    """What each event reads from the state of its history, and the state that each history ends with.

    Per channel i and state n: ``s = exp(Δ A) s + Δ B u`` and ``y = Σ_n C s``, from ``initial`` or zero. Computed in
    float32 at least; ``y`` has the type of ``u``, the states the type they were computed in.

    Source: Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", 2023 (arXiv 2312.00752),
    with their simplified step for B. The skip ``D u`` is left to the caller.

    Args:
        u: inputs.
        delta: step sizes Δ, above 0.
        decay: A, below 0.
        b: how an input enters the state.
        c: how the state is read.
        offsets: where each history begins and ends.
        initial: the state that each history starts from; None is zero.
    """
    kind = torch.promote_types(u.dtype, torch.float32)
    inputs, steps, decay, b, c = (x.to(kind) for x in (u, delta, decay, b, c))
    read, newest = [], []
    for history, (start, end) in enumerate(pairwise(offsets.tolist())):
        state = torch.zeros_like(decay) if initial is None else initial[history].to(kind)
        for t in range(start, end):
            state = torch.exp(steps[t, :, None] * decay) * state + (steps[t] * inputs[t])[:, None] * b[t]
            read.append((state * c[t]).sum(1))
        newest.append(state)
    y = torch.stack(read) if read else torch.zeros_like(inputs)
    states = torch.stack(newest) if newest else decay.new_zeros(0, *decay.shape)
    return y.to(u.dtype), states


def selective_step(
    state: Float[Tensor, "B I N"],
    u: Float[Tensor, "B I"],
    delta: Float[Tensor, "B I"],
    decay: Float[Tensor, "I N"],
    b: Float[Tensor, "B N"],
    c: Float[Tensor, "B N"],
) -> tuple[Float[Tensor, "B I"], Float[Tensor, "B I N"]]:
    """One more event of each history: what it reads, and the state it leaves. See ``selective_scan``."""
    offsets = torch.arange(len(u) + 1, device=u.device)
    return selective_scan(u, delta, decay, b, c, offsets, state)


def _only_on_cpu(u: Tensor, *_: Any, **__: Any) -> str | None:
    if u.device.type != "cpu":
        return f"tensors are on {u.device}"
    return None


@selective_scan.implementation("stepwise", refuses=_only_on_cpu)
def _stepwise(
    u: Tensor, delta: Tensor, decay: Tensor, b: Tensor, c: Tensor, offsets: Tensor, initial: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """All histories take a step together, the longest first, so that those still running are always the first rows."""
    kind = torch.promote_types(u.dtype, torch.float32)
    lengths = offsets.diff()
    order = torch.argsort(lengths, descending=True, stable=True)
    counts = _running(lengths)
    events = _time_major(offsets[:-1][order], counts)
    inputs, steps, b, c = (_Reorder.apply(x.to(kind), events) for x in (u, delta, b, c))
    start = None if initial is None else initial.to(kind)[order]
    with torch.autocast("cpu", enabled=False):
        y, newest = _Steps.apply(inputs, steps, decay.to(kind), b, c, start, counts, len(lengths))
    back = torch.empty_like(events).scatter_(0, events, torch.arange(len(events)))
    return _Reorder.apply(y, back).to(u.dtype), newest[torch.argsort(order)]


def _running(lengths: Int[Tensor, "B"]) -> list[int]:
    """How many histories have a first event, a second, and so on."""
    if not len(lengths):
        return []
    ended = torch.bincount(lengths, minlength=1)
    return (len(lengths) - ended.cumsum(0))[:-1].tolist()


def _time_major(starts: Int[Tensor, "B"], counts: list[int]) -> Int[Tensor, "T"]:
    """Places of the first events of all histories, then of the second events, and so on."""
    width = torch.tensor(counts, dtype=torch.long)
    total = int(width.sum())
    steps = torch.repeat_interleave(torch.arange(len(counts)), width, output_size=total)
    rows = torch.arange(total) - (width.cumsum(0) - width)[steps]
    return starts[rows] + steps


class _Reorder(torch.autograd.Function):
    """Rows in another order; the backward pass copies where indexing in general would have to add."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        return rows.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (places,) = ctx.saved_tensors
        (gradient,) = gradients
        return torch.empty_like(gradient).index_copy_(0, places, gradient), None


class _Steps(torch.autograd.Function):
    """The recurrence in time-major order. Only the states are kept; decays are computed again on the way back."""

    @staticmethod
    def forward(
        ctx: Any,
        u: Tensor,
        delta: Tensor,
        decay: Tensor,
        b: Tensor,
        c: Tensor,
        initial: Tensor | None,
        counts: list[int],
        n_histories: int,
    ) -> tuple[Tensor, Tensor]:
        gained = delta * u
        states = u.new_empty(len(u), *decay.shape)
        kept = u.new_empty(counts[0] if counts else 0, *decay.shape)
        newest = u.new_zeros(n_histories, *decay.shape) if initial is None else initial.clone()
        before, at = initial, 0
        for n in counts:
            now, state = slice(at, at + n), states[at : at + n]
            if before is None:
                torch.mul(gained[now, :, None], b[now, None, :], out=state)
            else:
                torch.mul(delta[now, :, None], decay, out=kept[:n]).exp_()
                torch.mul(before[:n], kept[:n], out=state)
                state.addcmul_(gained[now, :, None], b[now, None, :])
            before, at = state, at + n
        for at, n, gone in _endings(counts):
            newest[n - gone : n] = states[at + n - gone : at + n]
        y = torch.bmm(states, c[:, :, None]).squeeze(2)
        ctx.save_for_backward(u, delta, decay, b, c, initial, states)
        ctx.counts = counts
        return y, newest

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        u, delta, decay, b, c, initial, states = ctx.saved_tensors
        for_y, for_newest = gradients
        counts = ctx.counts
        gained = delta * u
        for_c = torch.bmm(for_y[:, None, :], states).squeeze(1)
        for_b, for_gained = torch.empty_like(b), torch.empty_like(u)
        for_delta = torch.zeros_like(delta)
        for_state = for_newest.clone()
        for_decay = decay.new_zeros(counts[0] if counts else 0, *decay.shape)
        kept, changed = (torch.empty_like(for_decay) for _ in range(2))
        at = len(u)
        for step in reversed(range(len(counts))):
            n = counts[step]
            at -= n
            now, flow = slice(at, at + n), for_state[:n]
            flow.addcmul_(for_y[now, :, None], c[now, None, :])
            torch.bmm(flow, b[now, :, None], out=for_gained[now, :, None])
            torch.bmm(gained[now, None, :], flow, out=for_b[now, None, :])
            before = initial if step == 0 else states[at - counts[step - 1] : at]
            if before is not None:
                torch.mul(delta[now, :, None], decay, out=kept[:n]).exp_()
                flow.mul_(kept[:n])
                torch.mul(flow, before[:n], out=changed[:n])
                for_decay[:n].addcmul_(changed[:n], delta[now, :, None])
                torch.sum(changed[:n].mul_(decay), 2, out=for_delta[now])
        return (
            for_gained * delta,
            for_delta.addcmul_(for_gained, u),
            for_decay.sum(0),
            for_b,
            for_c,
            None if initial is None else for_state,
            None,
            None,
        )


def _endings(counts: list[int]) -> list[tuple[int, int, int]]:
    """Of each step after which histories end: where its rows begin, how many they are, how many of them end."""
    found, at = [], 0
    for n, after in zip(counts, [*counts, 0][1:], strict=True):
        if after < n:
            found.append((at, n, n - after))
        at += n
    return found
