"""What a backbone is: event vectors in, states out, one per event."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Generic, TypeVar

from jaxtyping import Float
from torch import Tensor, nn

from seqrec.sequences import Sequences


class Backbone(nn.Module, ABC):
    """Turns event vectors into states. It sees no item id, no target and no loss.

    Args:
        dim: width D of an event and of a state.

    Attributes:
        causal: whether a state depends on nothing that happened after its event. Only a causal backbone may be
            trained on every event.
    """

    causal: ClassVar[bool]

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    @abstractmethod
    def forward(self, events: Float[Tensor, "T D"], history: Sequences) -> Float[Tensor, "T D"]: ...


Memory = TypeVar("Memory")


class ContinuingBackbone(Backbone, Generic[Memory]):
    """A backbone that can go on from what it remembers, instead of reading a history again.

    What it carries from the past is its memory, one per history, whose form is the backbone's own affair: recurrent
    ones keep theirs bounded, attention remembers every event.
    """

    @abstractmethod
    def proceed(
        self, events: Float[Tensor, "T D"], history: Sequences, memory: Memory | None
    ) -> tuple[Float[Tensor, "T D"], Memory]:
        """The states of these events, which follow what is remembered of each history, and what to remember next.

        Args:
            events: vectors of the new events.
            history: the new events alone; a history may have none.
            memory: what was remembered of the same histories in the same order; None is no past.
        """

    def forward(self, events: Float[Tensor, "T D"], history: Sequences) -> Float[Tensor, "T D"]:
        return self.proceed(events, history, None)[0]
