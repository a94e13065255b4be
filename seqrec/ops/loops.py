"""Recurrences over one history that stay loops in an exported program, whatever its length."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional as F


def selective_loop(
    u: Float[Tensor, "T I"],
    delta: Float[Tensor, "T I"],
    decay: Float[Tensor, "I N"],
    b: Float[Tensor, "T N"],
    c: Float[Tensor, "T N"],
) -> tuple[Float[Tensor, "T I"], Float[Tensor, "I N"]]:
    """What ``selective_scan`` makes of one history that starts from zero, and the state that it ends with."""

    def step(state: Tensor, kept: Tensor, gained: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        state = kept * state + gained
        return state, (state * c).sum(1)

    kept, gained = torch.exp(delta[:, :, None] * decay), (delta * u)[:, :, None] * b[:, None, :]
    newest, read = _event_by_event(step, torch.zeros_like(decay), kept, gained, c)
    return read, newest


def gated_loop(
    entered: Float[Tensor, "T gates"],
    first: Float[Tensor, "D"],
    of_state: Float[Tensor, "gates D"],
    bias: Float[Tensor, "gates"] | None,
) -> tuple[Float[Tensor, "T D"], Float[Tensor, "D"]]:
    """The states of one layer of torch's GRU after every event, and the newest.

    Args:
        entered: what the three gates (reset, keep, fresh) take from the events.
        first: the state before the first event.
        of_state: what they take from the state.
        bias: of the latter.
    """

    def step(state: Tensor, entered: Tensor) -> tuple[Tensor, Tensor]:
        reset, keep, fresh = entered.chunk(3)
        old_reset, old_keep, old = F.linear(state, of_state, bias).chunk(3)
        keep = torch.sigmoid(keep + old_keep)
        fresh = torch.tanh(fresh + torch.sigmoid(reset + old_reset) * old)
        state = fresh + keep * (state - fresh)
        return state, state

    newest, states = _event_by_event(step, first, entered)
    return states, newest


def _event_by_event(
    step: Callable[..., tuple[Tensor, Tensor]], state: Shaped[Tensor, "*s"], *inputs: Shaped[Tensor, "T ..."]
) -> tuple[Shaped[Tensor, "*s"], Shaped[Tensor, "T ..."]]:
    """The last state, and what every step gives out.

    Args:
        step: called with the state and a row of each input; returns the next state and what it gives out.
        state: where it starts.
        inputs: one row per event, at least one event.
    """
    from torch._higher_order_ops.scan import scan  # only programs need it, and it loads torch's compiler

    def both(state: Tensor, rows: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        state, given = step(state, *rows)
        return state, given.clone()  # the two may not share memory

    return scan(both, state, inputs)  # pyright: ignore[reportReturnType]
