"""A convolution that mixes channels, over each event and its neighbours in the same history."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from seqrec.ops.conv import newest_inputs
from seqrec.sequences import Sequences


class NeighbourConvolution(nn.Module):
    """One filter over the events before, the event itself and the events after, with bias.

    A neighbour that lies beyond the end of the history is zero, whatever history comes next; before its first event
    stands what is remembered of it, or zero.

    Args:
        dim: width D of an event.
        before: how many earlier events are seen, at least 0.
        after: how many later events are seen, at least 0; 0 is causal.
    """

    def __init__(self, dim: int, before: int, after: int) -> None:
        super().__init__()
        self.before, self.after = before, after
        self.filters = nn.Conv1d(dim, dim, before + 1 + after)

    def forward(
        self, x: Float[Tensor, "T D"], history: Sequences, past: Float[Tensor, "B before D"] | None = None
    ) -> tuple[Float[Tensor, "T D"], Float[Tensor, "B before D"]]:
        """The filtered events, and the inputs that the events to come will see; ``past`` holds those seen now."""
        nothing = x.new_zeros(1, x.shape[1])
        remembered = nothing.expand(len(history) * self.before, -1) if past is None else past.to(x.dtype).flatten(0, 1)
        rows = torch.cat([x, remembered, nothing])
        # Where each event's neighbours lie among these rows.
        shifts = torch.arange(-self.before, self.after + 1, device=x.device)
        owners = history.owners[:, None]
        place = history.places[:, None] + shifts
        here = torch.arange(x.shape[0], device=x.device)[:, None] + shifts
        in_past = x.shape[0] + owners * self.before + self.before + place
        at = torch.where(place < 0, in_past, torch.where(place < history.lengths[owners], here, rows.shape[0] - 1))
        y = F.linear(rows[at].transpose(1, 2).flatten(1), self.filters.weight.flatten(1), self.filters.bias)
        return y, newest_inputs(x, self.before, history.offsets, past)
