"""What a backbone is: event vectors in, states out, one per event."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Generic, TypeVar

from jaxtyping import Float, Int
from torch import Tensor, nn

from seqrec.nn.memories import named, rebuilt
from seqrec.positions.base import AttentionPosition
from seqrec.sequences import Sequences


class Backbone(nn.Module, ABC):
    """Turns event vectors into states. It sees no item id, no target and no loss.

    Args:
        dim: width D of an event and of a state.

    Attributes:
        causal: whether a state depends on nothing that happened after its event. Only a causal backbone may be
            trained on every event.
        leaves_room: how many newest events of a window are not to be remembered but read with what is.
    """

    causal: ClassVar[bool]
    leaves_room: int = 0

    def __init__(self, dim: int) -> None:
        super().__init__()
        if not hasattr(type(self), "causal"):
            raise ValueError(f"{type(self).__name__} does not say whether it is causal; set causal = True or False.")
        self.dim = dim

    @abstractmethod
    def forward(self, events: Float[Tensor, "T D"], history: Sequences) -> Float[Tensor, "T D"]:
        """One state for each event."""

    def states_at(self, events: Float[Tensor, "T D"], history: Sequences, at: Int[Tensor, "M"]) -> Float[Tensor, "M D"]:
        """The states of the events at these places. A backbone that need not finish the others says so here."""
        states = self(events, history)
        if states.shape != events.shape:
            raise ValueError(
                f"{type(self).__name__} made states of shape {tuple(states.shape)} of events of shape "
                f"{tuple(events.shape)}; return one state of width dim for each event."
            )
        return states[at]

    @property
    def reads_clock(self) -> bool:
        """Whether a position inside needs times that a clock gave."""
        return any(part.reads_clock for part in self.modules() if isinstance(part, AttentionPosition))

    @property
    def reads_asked_at(self) -> bool:
        """Whether a position inside needs to know when a prediction is asked for."""
        return any(part.reads_asked_at for part in self.modules() if isinstance(part, AttentionPosition))


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

    def proceed_at(
        self, events: Float[Tensor, "T D"], history: Sequences, at: Int[Tensor, "M"], memory: Memory | None
    ) -> tuple[Float[Tensor, "M D"], Memory]:
        """``proceed`` with the states of the events at these places alone, as a request wants the newest.

        A backbone that need not finish the others says so here.
        """
        states, newest = self.proceed(events, history, memory)
        return states[at], newest

    def forward(self, events: Float[Tensor, "T D"], history: Sequences) -> Float[Tensor, "T D"]:
        return self.proceed(events, history, None)[0]

    def states_at(self, events: Float[Tensor, "T D"], history: Sequences, at: Int[Tensor, "M"]) -> Float[Tensor, "M D"]:
        return self.proceed_at(events, history, at, None)[0]

    def remember(self, events: Float[Tensor, "T D"], history: Sequences) -> tuple[Float[Tensor, "T D"], Memory]:
        """As ``proceed`` from no past, where all that happens next is newer than these events."""
        return self.proceed(events, history, None)

    def stored(self, memory: Memory) -> dict[str, Tensor]:
        """A memory as tensors whose first dimension counts histories, to be kept in a file.

        Raises:
            TypeError: it holds more of one history than of another.
        """
        return named(memory)

    def restored(self, tensors: dict[str, Tensor]) -> Memory:
        """The memory that ``stored`` made tensors of, or of some of their histories."""
        nobody = Sequences.pack([])
        blank = next(self.parameters()).new_zeros(0, self.dim)
        return rebuilt(self.proceed(blank, nobody, None)[1], tensors)

    def condense(self, before: Memory | None, after: Memory, n: int) -> Memory:
        """What is left when, of all events between two memories, only the newest ``n`` of each history are kept.

        A memory that does not keep events apart stays as it is.

        Args:
            before: what was remembered before these events; None is no past.
            after: what was remembered after them.
            n: how many of them are kept.
        """
        return after
