"""The two places where a model may learn where an event stands: in the input and inside attention."""

from __future__ import annotations

from abc import ABC, abstractmethod

from jaxtyping import Float
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
