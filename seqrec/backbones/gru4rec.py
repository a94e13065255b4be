"""GRU4Rec: a gated recurrent unit, read over each history."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from seqrec.backbones.base import ContinuingBackbone
from seqrec.sequences import Sequences


class GRU4Rec(ContinuingBackbone[Tensor]):
    """A gated recurrent unit, from the oldest event to the newest.

    Source: Hidasi et al., "Session-based Recommendations with Recurrent Neural Networks", ICLR 2016. Differs from it:
    every event can be trained and the items' vectors are shared by input and output, as in the baseline of Klenitskiy
    and Vasilev, RecSys 2023.

    Args:
        dim: width D of an event and of a state.
        n_layers: stacked recurrent layers, at least 1.
        dropout: share of activations dropped between layers, in [0, 1); with one layer it does nothing.
    """

    causal = True

    def __init__(self, dim: int, n_layers: int = 1, dropout: float = 0.0) -> None:
        super().__init__(dim)
        self.cells = nn.GRU(dim, dim, n_layers, dropout=dropout if n_layers > 1 else 0.0)

    def proceed(
        self, events: Float[Tensor, "T D"], history: Sequences, memory: Tensor | None
    ) -> tuple[Float[Tensor, "T D"], Float[Tensor, "B layers D"]]:
        """The memory is the newest hidden state of every layer."""
        before = events.new_zeros(len(history), self.cells.num_layers, self.dim) if memory is None else memory
        running = (history.lengths > 0).nonzero().squeeze(1)  # torch's GRU refuses a history without events
        if not len(running):
            return events, before
        # Step by step, the longest history first: what torch calls a packed sequence.
        longest = running[torch.argsort(history.lengths[running], descending=True, stable=True)]
        rank = torch.empty_like(history.lengths)
        rank[longest] = torch.arange(len(longest), device=rank.device)
        order = torch.argsort(history.places * len(history) + rank[history.owners])
        packed = PackedSequence(events[order], torch.bincount(history.places).cpu())
        states, newest = self.cells(packed, before[longest].transpose(0, 1).contiguous())
        back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        return states.data[back], before.index_copy(0, longest, newest.transpose(0, 1).to(before.dtype))
