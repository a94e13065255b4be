"""The two places where a model may learn where an event stands: in the input and inside attention."""

from __future__ import annotations

from abc import ABC, abstractmethod

from jaxtyping import Float, Int
from torch import Tensor, nn

from seqrec.sequences import Sequences


class InputPosition(nn.Module, ABC):
    """Adds to each event what its place in the history means."""

    @abstractmethod
    def forward(self, events: Float[Tensor, "T D"], history: Sequences) -> Float[Tensor, "T D"]: ...


class AttentionPosition(nn.Module, ABC):
    """Attends with knowledge of the distance between events; stands in for plain causal attention."""

    @abstractmethod
    def forward(
        self, q: Float[Tensor, "T H C"], k: Float[Tensor, "T H C"], v: Float[Tensor, "T H C"], history: Sequences
    ) -> Float[Tensor, "T H C"]: ...

    @abstractmethod
    def proceed(
        self,
        q: Float[Tensor, "T H C"],
        k: Float[Tensor, "S H C"],
        v: Float[Tensor, "S H C"],
        history: Sequences,
        offsets: Int[Tensor, "bounds"],
    ) -> Float[Tensor, "T H C"]:
        """The same where only the newest events of each history ask.

        Args:
            q: queries of the new events.
            k: keys of all events of each history, the remembered ones first.
            v: values of the same events.
            history: the new events; the place of one of them in its whole history is its place here plus the number of
                keys that its history has beyond its queries.
            offsets: where the keys and values of each history begin and end.
        """
