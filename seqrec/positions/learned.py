"""Learned positions: one vector per place, counted from the oldest or from the newest event."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seqrec.positions.base import InputPosition
from seqrec.sequences import Sequences


class _Table(InputPosition):
    def __init__(self, dim: int, max_length: int, init_std: float = 0.02) -> None:
        super().__init__()
        self.max_length: int = max_length
        self.dim = dim
        self.table = nn.Embedding(max_length, dim)
        nn.init.normal_(self.table.weight, std=init_std)

    def _check(self, history: Sequences) -> None:
        if torch.compiler.is_exporting():  # a program has no numbers yet; its table refuses what is beyond it
            return
        lengths = history.lengths if history.past is None else history.lengths + history.past.counts
        longest = int(lengths.max()) if len(history) else 0
        if longest > self.max_length:
            raise ValueError(
                f"A history has {longest} events, but {type(self).__name__} knows {self.max_length} places. "
                f"Set data.max_length to at most {self.max_length}, or raise max_length of the position."
            )


class LearnedPosition(_Table):
    """Place 0 is the oldest event of the window, as in the SASRec paper read from the left.

    Args:
        dim: width D of an event.
        max_length: number of places; a longer history is refused.
        init_std: standard deviation of the initial vectors.
    """

    def forward(self, events: Float[Tensor, "T D"], history: Sequences) -> Float[Tensor, "T D"]:
        self._check(history)
        return events + self.table(history.all_places)


class InversePosition(_Table):
    """Place 0 is the newest event of the window, so the events that matter most keep their place as histories grow.

    In training on every event this reveals how many events follow, never which: the future-perturbation test holds for
    items, while the distance to the end of the window is visible, as in RecTools.

    Args:
        dim: width D of an event.
        max_length: number of places; a longer history is refused.
        init_std: standard deviation of the initial vectors.
    """

    continues = False

    def forward(self, events: Float[Tensor, "T D"], history: Sequences) -> Float[Tensor, "T D"]:
        self._check(history)
        to_newest = history.newest[history.owners] - history.offsets[:-1][history.owners] - history.places
        return events + self.table(to_newest)
