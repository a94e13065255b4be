"""The selective scan over packed histories: a recurrence whose decay and input depend on the event."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from seqrec.ops.dispatch import Op, lacks, lacks_triton
from seqrec.ops.loops import selective_loop
from seqrec.ops.rows import TimeMajor, in_rectangle, inverse, pick, spread, time_major

_LOG2_E = 1.4426950408889634
_STRIDE = 8
_CACHED = 2**19  # numbers: two MiB of states, of which the backward pass keeps some twenty sets at hand


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


@selective_scan.exported
def _exported(
    u: Tensor, delta: Tensor, decay: Tensor, b: Tensor, c: Tensor, offsets: Tensor, initial: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    read, newest = selective_loop(u, delta, decay, b, c)
    return read, newest[None]


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


def _needs_mamba(
    u: Tensor, delta: Tensor, decay: Tensor, b: Tensor, c: Tensor, offsets: Tensor, initial: Tensor | None = None
) -> str | None:
    return lacks(u, "cuda", "mamba_ssm", "gpu") or (None if initial is None else "histories start from a state")


@selective_scan.implementation("mamba_ssm", refuses=_needs_mamba)
def _mamba_ssm(
    u: Tensor, delta: Tensor, decay: Tensor, b: Tensor, c: Tensor, offsets: Tensor, initial: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Histories are filled up behind their newest event with Δ = 0, which leaves a state as it is. The last of what
    fills them up reads one state each: of its own last states the library passes no gradient on."""
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn  # pyright: ignore[reportMissingImports]

    n_histories, n_states = len(offsets) - 1, decay.shape[1]
    if not len(u):
        return torch.zeros_like(u), decay.new_zeros(n_histories, *decay.shape, dtype=torch.float32)
    longest = int(offsets.diff().max())
    width = longest + n_states
    cells = in_rectangle(offsets, width, len(u))
    inputs, steps, b, c = (
        spread(x.float(), cells, n_histories * width).view(n_histories, width, -1).mT for x in (u, delta, b, c)
    )
    each = torch.eye(n_states, device=u.device).expand(n_histories, -1, -1)
    y = selective_scan_fn(inputs, steps, decay.float(), b, torch.cat([c[:, :, :longest], each], 2)).mT
    return pick(y.flatten(0, 1), cells).to(u.dtype), y[:, longest:].mT


def _needs_triton(u: Tensor, *_: Any, **__: Any) -> str | None:
    return lacks_triton(u)


@selective_scan.implementation("triton", refuses=_needs_triton)
def _triton(
    u: Tensor, delta: Tensor, decay: Tensor, b: Tensor, c: Tensor, offsets: Tensor, initial: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    from seqrec.ops.scan_triton import scan

    return scan(u, delta, decay, b, c, offsets, initial)


def _only_on_cpu(u: Tensor, *_: Any, **__: Any) -> str | None:
    if u.device.type != "cpu":
        return f"tensors are on {u.device}"
    return None


@selective_scan.implementation("stepwise", refuses=_only_on_cpu)
def _stepwise(
    u: Tensor, delta: Tensor, decay: Tensor, b: Tensor, c: Tensor, offsets: Tensor, initial: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """As many histories take a step together as a cache holds states of, the longest first, so that those still running
    are always the first rows."""
    kind = torch.promote_types(u.dtype, torch.float32)
    groups = time_major(offsets, max(1, _CACHED // decay.numel()))
    events = torch.cat([group.events for group in groups])
    inputs, steps, b, c = (pick(x.to(kind), events) for x in (u, delta, b, c))
    start = None if initial is None else initial.to(kind).transpose(1, 2)
    with torch.autocast("cpu", enabled=False):
        y, newest = _Steps.apply(inputs, steps, decay.to(kind).T.contiguous(), b, c, start, groups)
    return pick(y, inverse(events)).to(u.dtype), newest.transpose(1, 2)


class _Steps(torch.autograd.Function):
    """The recurrence, group after group. One state in ``_STRIDE`` is kept; the others are computed again on the way
    back, which costs less than asking the system for memory to keep them in.

    States lie as [N, I] within an event: sums over either are then products with a row, which run several times faster
    here than products with a column, and powers of two are taken because they are cheaper than those of e.
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
        groups: list[TimeMajor],
    ) -> tuple[Tensor, Tensor]:
        rate = decay * _LOG2_E
        gained = delta * u
        y = torch.empty_like(u)
        newest = decay.new_empty(sum(len(group.histories) for group in groups), *decay.shape)
        marks, at = [], 0
        for _, counts, histories in groups:
            state = _states(initial, histories, decay)
            kept = torch.empty_like(state)
            for step, n in enumerate(counts):
                now, running = slice(at, at + n), state[:n]
                if step % _STRIDE == 0:
                    marks.append(running.clone())
                torch.mul(delta[now, None, :], rate, out=kept[:n])
                running.mul_(kept[:n].exp2_()).addcmul_(gained[now, None, :], b[now, :, None])
                torch.bmm(c[now, None, :], running, out=y[now, None, :])
                at += n
            newest.index_copy_(0, histories, state)
        ctx.save_for_backward(u, delta, decay, b, c, *marks)
        ctx.groups, ctx.has_initial = groups, initial is not None
        ctx.set_materialize_grads(False)  # of the newest states, which training does not ask for
        return y, newest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        u, delta, decay, b, c, *marks = ctx.saved_tensors
        for_y, for_newest = gradients
        for_y = torch.zeros_like(u) if for_y is None else for_y
        rate = decay * _LOG2_E
        gained = delta * u
        for_b, for_c, for_gained, for_delta = (torch.empty_like(x) for x in (b, c, u, u))
        for_decay = torch.zeros_like(decay)
        n_histories = sum(len(group.histories) for group in ctx.groups)
        for_initial = decay.new_empty(n_histories, *decay.shape) if ctx.has_initial else None
        end = len(u)
        for _, counts, histories in reversed(ctx.groups):
            for_state = _states(for_newest, histories, decay)
            for_own_decay = torch.zeros_like(for_state)
            changed = torch.empty_like(for_state)
            kept, states = (for_state.new_empty(min(_STRIDE, len(counts)), *for_state.shape) for _ in range(2))
            for first in reversed(range(0, len(counts), _STRIDE)):
                segment = counts[first : first + _STRIDE]
                mark = marks.pop()
                begin = end - sum(segment)
                at, before = begin, mark
                for place, n in enumerate(segment):
                    now = slice(at, at + n)
                    torch.mul(delta[now, None, :], rate, out=kept[place, :n]).exp2_()
                    torch.mul(before[:n], kept[place, :n], out=states[place, :n])
                    before = states[place, :n].addcmul_(gained[now, None, :], b[now, :, None])
                    at += n
                for place, n in reversed(list(enumerate(segment))):
                    at -= n
                    now, flow = slice(at, at + n), for_state[:n]
                    before = states[place - 1] if place else mark
                    torch.bmm(for_y[now, None, :], states[place, :n].transpose(1, 2), out=for_c[now, None, :])
                    flow.addcmul_(for_y[now, None, :], c[now, :, None])
                    torch.bmm(b[now, None, :], flow, out=for_gained[now, None, :])
                    torch.bmm(gained[now, None, :], flow.transpose(1, 2), out=for_b[now, None, :])
                    flow.mul_(kept[place, :n])
                    torch.mul(flow, before[:n], out=changed[:n])
                    for_own_decay[:n].addcmul_(changed[:n], delta[now, None, :])
                    torch.sum(changed[:n].mul_(decay), 1, out=for_delta[now])
                end = begin
            for_decay += for_own_decay.sum(0)
            if for_initial is not None:
                for_initial.index_copy_(0, histories, for_state)
        for_delta.addcmul_(for_gained, u)
        return for_gained * delta, for_delta, for_decay, for_b, for_c, for_initial, None


def _states(all_states: Tensor | None, histories: Tensor, decay: Tensor) -> Tensor:
    """Those of some histories, which may be written over; zero where there are none."""
    if all_states is None:
        return decay.new_zeros(len(histories), *decay.shape)
    return all_states.index_select(0, histories).contiguous()


def _needs_numba(u: Tensor, *_: Any, **__: Any) -> str | None:
    return lacks(u, "cpu", "numba", "cpu")


@selective_scan.implementation("compiled", refuses=_needs_numba)
def _compiled(
    u: Tensor, delta: Tensor, decay: Tensor, b: Tensor, c: Tensor, offsets: Tensor, initial: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    from seqrec.ops.scan_kernels import scan

    return scan(u, delta, decay, b, c, offsets, initial)
