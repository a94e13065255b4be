"""The scan of Mamba-2 over packed histories: one decay per head, so that it can be computed as matrix products."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seqrec.ops.attention import events_of
from seqrec.ops.dispatch import Op, lacks
from seqrec.ops.rows import in_rectangle, inverse, pick, spread

_CHUNK, _NARROW = 64, 8  # events of the widest chunk, and what is narrow enough for all shorter ones


@Op
def ssd_scan(
    u: Float[Tensor, "T H P"],
    delta: Float[Tensor, "T H"],
    decay: Float[Tensor, "H"],
    b: Float[Tensor, "T N"],
    c: Float[Tensor, "T N"],
    offsets: Int[Tensor, "bounds"],
    initial: Float[Tensor, "B H P N"] | None = None,
) -> tuple[Float[Tensor, "T H P"], Float[Tensor, "B H P N"]]:
    """What each event reads from the state of its history, and the state that each history ends with.

    Per head h: ``S = exp(Δ A) S + Δ u bᵀ`` and ``y = S c``, from ``initial`` or zero. Computed in float32 at least;
    ``y`` has the type of ``u``, the states the type they were computed in.

    Source: Dao and Gu, "Transformers are SSMs", 2024 (arXiv 2405.21060), with one group of b and c for all heads.

    Args:
        u: inputs, P channels in each of H heads.
        delta: step sizes Δ, above 0.
        decay: A of each head, below 0.
        b: how an input enters the state.
        c: how the state is read.
        offsets: where each history begins and ends.
        initial: the state that each history starts from; None is zero.
    """
    kind = torch.promote_types(u.dtype, torch.float32)
    inputs, steps, decay, b, c = (x.to(kind) for x in (u, delta, decay, b, c))
    read, newest = [], []
    nothing = inputs.new_zeros(*inputs.shape[1:], b.shape[1])
    for history, (start, end) in enumerate(pairwise(offsets.tolist())):
        state = nothing if initial is None else initial[history].to(kind)
        for t in range(start, end):
            gained = (steps[t, :, None] * inputs[t])[:, :, None] * b[t]
            state = torch.exp(steps[t] * decay)[:, None, None] * state + gained
            read.append((state * c[t]).sum(2))
        newest.append(state)
    y = torch.stack(read) if read else torch.zeros_like(inputs)
    return y.to(u.dtype), torch.stack(newest) if newest else nothing.new_zeros(0, *nothing.shape)


@ssd_scan.exported
def _exported(
    u: Tensor, delta: Tensor, decay: Tensor, b: Tensor, c: Tensor, offsets: Tensor, initial: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """One chunk as long as the history."""
    passed = (delta * decay).double().cumsum(0).T  # [H, T]
    events = torch.arange(u.shape[0], device=u.device)
    is_past = events < events[:, None]
    itself = (events == events[:, None]).to(u.dtype)
    left = (passed[:, :, None] - passed[:, None, :]).to(u.dtype).masked_fill(~is_past, -torch.inf).exp() + itself
    gained = (u * delta[..., None]).transpose(0, 1)  # [H, T, P]
    read = ((c @ b.T) * left) @ gained
    state = ((passed[:, -1:] - passed).to(u.dtype).exp()[..., None] * gained).mT @ b
    return read.transpose(0, 1), state[None]


def _never(*_: Any, **__: Any) -> str | None:
    return None


@ssd_scan.implementation("chunked", refuses=_never)
def _chunked(
    u: Tensor, delta: Tensor, decay: Tensor, b: Tensor, c: Tensor, offsets: Tensor, initial: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Within a chunk of a history everything is a product of matrices; only states go from chunk to chunk.

    Chunks are filled up behind their newest event with Δ = 0, which neither decays a state nor adds to it.
    """
    kind = torch.promote_types(u.dtype, torch.float32)
    lengths = offsets.diff()
    if initial is None:
        initial = u.new_zeros(len(lengths), *u.shape[1:], b.shape[1], dtype=kind)
    if not len(u):
        return torch.zeros_like(u), initial.to(kind)
    inputs, delta, decay, b, c = (x.to(kind) for x in (u, delta, decay, b, c))
    with torch.autocast(u.device.type, enabled=False):
        y, newest = _in_groups(inputs, delta, decay, b, c, offsets[:-1], lengths, initial.to(kind))
    return y.to(u.dtype), newest


def _in_groups(
    u: Tensor, delta: Tensor, decay: Tensor, b: Tensor, c: Tensor, starts: Tensor, lengths: Tensor, initial: Tensor
) -> tuple[Tensor, Tensor]:
    """Histories of like length share chunks as wide as the longest of them, so that a long one makes no others wide."""
    group = lengths.clamp(min=_NARROW, max=_CHUNK).sub(1).to(torch.float32).log2().floor()
    groups = [((group == each) & (lengths > 0)).nonzero().squeeze(1) for each in group[lengths > 0].unique().tolist()]
    if len(groups) == 1:
        return _by_chunks(u, delta, decay, b, c, starts, lengths, initial)
    events = [events_of(starts[members], lengths[members]) for members in groups]
    outs, newest = [], []
    for members, own in zip(groups, events, strict=True):
        inputs, steps, written, read = (pick(x, own) for x in (u, delta, b, c))
        firsts = lengths[members].cumsum(0) - lengths[members]
        y, state = _by_chunks(inputs, steps, decay, written, read, firsts, lengths[members], initial[members])
        outs.append(y)
        newest.append(state)
    return pick(torch.cat(outs), inverse(torch.cat(events))), initial.index_copy(
        0, torch.cat(groups), torch.cat(newest)
    )


def _by_chunks(
    u: Tensor,
    delta: Tensor,
    decay: Tensor,
    b: Tensor,
    c: Tensor,
    starts: Tensor,
    lengths: Tensor,
    initial: Tensor,
) -> tuple[Tensor, Tensor]:
    width = min(_CHUNK, int(lengths.max()))
    n_chunks = (lengths + width - 1) // width
    first_chunk = n_chunks.cumsum(0) - n_chunks
    total = int(n_chunks.sum())
    place = torch.arange(len(u), device=u.device) - torch.repeat_interleave(starts, lengths, output_size=len(u))
    cells = torch.repeat_interleave(first_chunk, lengths, output_size=len(u)) * width + place

    def spread(x: Tensor) -> Tensor:
        wide = x.new_zeros(total * width, *x.shape[1:]).index_copy(0, cells, x)
        return wide.view(total, width, *x.shape[1:])

    u, delta, b, c = (spread(x) for x in (u, delta, b, c))
    # [K, H, C]: logarithm of what is left of the chunk's beginning. Differences of it count, which may be tiny where it
    # is huge, so they are taken in float64.
    passed = (delta * decay).double().cumsum(1).transpose(1, 2)
    # An event sees itself undecayed: a constant, through which no rounding reaches the gradient of the decays.
    itself = torch.eye(width, device=u.device, dtype=u.dtype)
    not_past = torch.ones_like(itself, dtype=torch.bool).triu()
    left = (passed[:, :, :, None] - passed[:, :, None, :]).to(u.dtype).masked_fill(not_past, -torch.inf).exp() + itself
    gained = (u * delta[..., None]).transpose(1, 2)  # [K, H, C, P]
    within = ((c @ b.mT)[:, None] * left) @ gained
    to_end = (passed[:, :, -1:] - passed).to(u.dtype).exp()[..., None] * gained
    added = to_end.mT @ b[:, None]  # [K, H, P, N]
    passed = passed.to(u.dtype)
    before, newest = _from_chunk_to_chunk(
        added, passed[:, :, -1].exp()[:, :, None, None], first_chunk, n_chunks, initial
    )
    y = within + (c[:, None] @ before.mT) * passed.exp()[..., None]
    return y.transpose(1, 2).flatten(0, 1)[cells], newest


def _from_chunk_to_chunk(
    added: Float[Tensor, "K *state"],
    kept: Float[Tensor, "K *#state"],
    first_chunk: Int[Tensor, "B"],
    n_chunks: Int[Tensor, "B"],
    initial: Float[Tensor, "B *state"],
) -> tuple[Float[Tensor, "K *state"], Float[Tensor, "B *state"]]:
    """The state before each chunk, and the newest of each history; all histories go on together.

    Args:
        added: what a chunk leaves where it starts from nothing; the chunks of a history stand side by side, in order.
        kept: the share of the state before a chunk that is left after it.
        first_chunk: place of the first chunk of each history.
        n_chunks: how many it has; 0 leaves its initial state as it is.
        initial: the state that each history starts from.
    """
    order = torch.argsort(n_chunks, descending=True, stable=True)
    state, ended, seen, places = initial[order], [], [], []
    chunks, firsts = n_chunks[order], first_chunk[order]
    for step in range(int(n_chunks.max())):
        running = int((chunks > step).sum())
        ended.append(state[running:])
        state, here = state[:running], firsts[:running] + step
        seen.append(state)
        places.append(here)
        state = kept[here] * state + added[here]
    newest = torch.cat([state, *reversed(ended)])
    return torch.cat(seen)[inverse(torch.cat(places))], newest[inverse(order)]


def _needs_mamba(u: Tensor, *_: Any, **__: Any) -> str | None:
    exact = torch.get_float32_matmul_precision() == "highest"
    return lacks(u, "cuda", "mamba_ssm", "gpu") or (
        "its products round to TF32, see torch.set_float32_matmul_precision" if exact else None
    )


@ssd_scan.implementation("mamba_ssm", refuses=_needs_mamba)
def _mamba_ssm(
    u: Tensor, delta: Tensor, decay: Tensor, b: Tensor, c: Tensor, offsets: Tensor, initial: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Histories are filled up behind their newest event with Δ = 0, which leaves a state as it is. Packed ones the
    library takes too, but then gives either their newest states or a gradient."""
    from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined  # pyright: ignore[reportMissingImports]

    n_histories = len(offsets) - 1
    start = None if initial is None else initial.float()
    if not len(u):
        nothing = u.new_zeros(n_histories, *u.shape[1:], b.shape[1], dtype=torch.float32)
        return torch.zeros_like(u), nothing if start is None else start
    longest = int(offsets.diff().max())
    cells = in_rectangle(offsets, longest, len(u))
    inputs, steps, b, c = (
        spread(x.float(), cells, n_histories * longest).view(n_histories, longest, *x.shape[1:])
        for x in (u, delta, b, c)
    )
    y, newest = mamba_chunk_scan_combined(
        *(inputs, steps, decay.float(), b[:, :, None], c[:, :, None], _CHUNK),
        initial_states=start,
        return_final_states=True,
    )
    return pick(y.flatten(0, 1), cells).to(u.dtype), newest
