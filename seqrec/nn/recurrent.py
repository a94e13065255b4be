"""Gated recurrent cells over packed histories."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

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
    running = (history.lengths > 0).nonzero().squeeze(1)  # torch's GRU refuses a history without events
    if not len(running):
        return events, before
    # Step by step, the longest history first: what torch calls a packed sequence.
    longest = running[torch.argsort(history.lengths[running], descending=True, stable=True)]
    rank = torch.empty_like(history.lengths)
    rank[longest] = torch.arange(len(longest), device=rank.device)
    order = torch.argsort(history.places * len(history) + rank[history.owners])
    packed = PackedSequence(events[order], torch.bincount(history.places).cpu())
    states, newest = cells(packed, before[longest].transpose(0, 1).contiguous())
    back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    return states.data[back], before.index_copy(0, longest, newest.transpose(0, 1).to(before.dtype))
