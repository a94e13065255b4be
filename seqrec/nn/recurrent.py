"""Gated recurrent cells over packed histories."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from seqrec.ops.loops import gated_loop
from seqrec.ops.rows import inverse, pick, time_major
from seqrec.sequences import Sequences


def read_from_oldest_to_newest(
    cells: nn.GRU, events: Float[Tensor, "T D"], history: Sequences, memory: Float[Tensor, "B layers D"] | None
) -> tuple[Float[Tensor, "T D"], Float[Tensor, "B layers D"]]:
    """The last layer's hidden state after every event, and the newest hidden state of every layer.

    Args:
        cells: one direction, any number of layers, as wide as the events.
        events: what the cells read.
        history: where each history begins and ends; one may have no events.
        memory: the hidden states to start from; None is zero.
    """
    before = events.new_zeros(len(history), cells.num_layers, cells.hidden_size) if memory is None else memory
    before = before.to(events.dtype)  # what was remembered in half precision
    if torch.compiler.is_exporting():
        return _exported(cells, events, before)
    ((order, counts, longest),) = time_major(history.offsets)  # what torch calls a packed sequence
    if not counts:
        return events, before
    running = longest[: counts[0]]  # torch's GRU refuses a history without events
    packed = PackedSequence(pick(events, order), torch.tensor(counts))
    states, newest = cells(packed, before[running].transpose(0, 1).contiguous())
    return pick(states.data, inverse(order)), before.index_copy(0, running, newest.transpose(0, 1).to(before.dtype))


def _exported(
    cells: nn.GRU, events: Float[Tensor, "T D"], before: Float[Tensor, "1 layers D"]
) -> tuple[Float[Tensor, "T D"], Float[Tensor, "1 layers D"]]:
    """One history, event by event: the form that is written into exported programs."""
    newest = []
    for (of_input, of_state, *biases), first in zip(cells.all_weights, before[0], strict=True):
        input_bias, state_bias = biases or (None, None)
        events, state = gated_loop(F.linear(events, of_input, input_bias), first, of_state, state_bias)
        newest.append(state)
    return events, torch.stack(newest)[None]
