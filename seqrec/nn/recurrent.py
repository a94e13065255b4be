"""Gated recurrent cells over packed histories."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

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
    ((order, counts, longest),) = time_major(history.offsets)  # what torch calls a packed sequence
    if not counts:
        return events, before
    running = longest[: counts[0]]  # torch's GRU refuses a history without events
    packed = PackedSequence(pick(events, order), torch.tensor(counts))
    states, newest = cells(packed, before[running].transpose(0, 1).contiguous())
    return pick(states.data, inverse(order)), before.index_copy(0, running, newest.transpose(0, 1).to(before.dtype))
