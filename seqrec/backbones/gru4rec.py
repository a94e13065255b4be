"""GRU4Rec: a gated recurrent unit, read over each history."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from seqrec.backbones.base import ContinuingBackbone
from seqrec.nn.dropout import share_of
from seqrec.nn.recurrent import read_from_oldest_to_newest
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
        share = share_of(dropout)
        self.cells = nn.GRU(dim, dim, n_layers, dropout=share if n_layers > 1 else 0.0)

    def proceed(
        self, events: Float[Tensor, "T D"], history: Sequences, memory: Tensor | None
    ) -> tuple[Float[Tensor, "T D"], Float[Tensor, "B layers D"]]:
        """The memory is the newest hidden state of every layer."""
        return read_from_oldest_to_newest(self.cells, events, history, memory)
