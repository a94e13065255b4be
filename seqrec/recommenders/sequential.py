"""The recommender that most papers describe: an embedding, a backbone and a scorer in a row."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seqrec.backbones.base import ContinuingBackbone
from seqrec.batch import Batch
from seqrec.positions.base import Continues
from seqrec.recommenders.base import Encoded
from seqrec.recommenders.keyed import KeyedRecommender, wanted, whole
from seqrec.sequences import Past, Sequences


@dataclass(frozen=True)
class Remembered:
    """What a recommender carries from the past of each history.

    Attributes:
        memory: what the backbone carries; its form is the backbone's own affair.
        past: how many events that were, and when the newest of them happened.
        newest: the state after the newest of them; zero where there is none.
    """

    memory: Any
    past: Past
    newest: Float[Tensor, "B D"]


class SequentialRecommender(KeyedRecommender):
    """The state of an event speaks for the item that follows it. Its arguments are those of ``KeyedRecommender``."""

    def states(self, history: Sequences) -> Float[Tensor, "T D"]:
        """One state per event."""
        return self.backbone(self._events(self.embedding(history.items), history), history)

    def next_states(self, history: Sequences, at: Int[Tensor, "M"]) -> Float[Tensor, "M D"]:
        return self._read(self.embedding(history.items), history, at)

    def encode(self, batch: Batch) -> Encoded:
        informed = self.informed(batch)
        return self._encoded(informed, self.next_states(whole(informed), wanted(informed)))

    @property
    def leaves_room(self) -> int:
        return self.backbone.leaves_room

    def remember(self, history: Sequences) -> Remembered:
        """What to carry from these events, so that newer ones can be read without them. Raises as ``proceed`` does."""
        backbone = self._continuing()
        states, memory = backbone.remember(self._events(self.embedding(history.items), history), history)
        return Remembered(memory, ended(history), _newest(states[history.newest[history.lengths > 0]], history, None))

    def proceed(self, history: Sequences, remembered: Remembered | None = None) -> Remembered:
        """What to remember when these events follow what is remembered of the same histories.

        Raises:
            TypeError: the backbone cannot go on from what it remembers, or the position means something else once the
                history goes on.
        """
        backbone = self._continuing()
        history = replace(history, past=None if remembered is None else remembered.past)
        events = self._events(self.embedding(history.items), history)
        at = history.newest[history.lengths > 0]
        states, memory = backbone.proceed_at(events, history, at, None if remembered is None else remembered.memory)
        return Remembered(memory, ended(history), _newest(states, history, remembered))

    def stored(self, memory: Any) -> dict[str, Tensor]:
        """What the backbone remembers as tensors whose first dimension counts histories. Raises as ``proceed`` does."""
        return self._continuing().stored(memory)

    def restored(self, tensors: dict[str, Tensor]) -> Any:
        """What ``stored`` made tensors of, or some of their histories."""
        return self._continuing().restored(tensors)

    def _continuing(self) -> ContinuingBackbone[Any]:
        if not isinstance(self.backbone, ContinuingBackbone):
            raise TypeError(
                f"{type(self.backbone).__name__} cannot go on from what it remembers; read whole histories."
            )
        for part in (self.position, *self.backbone.modules()):
            if isinstance(part, Continues):
                part.demand_that_it_continues()
        return self.backbone


def ended(history: Sequences) -> Past:
    """What came before the events that follow these."""
    counts, times = history.lengths, None
    if history.times is not None:
        behind = torch.cat([history.times.new_zeros(1), history.times])[history.offsets[1:]]
        earlier = 0 if history.past is None or history.past.times is None else history.past.times
        times = torch.where(counts > 0, behind, earlier)
    return Past(counts if history.past is None else counts + history.past.counts, times)


def _newest(states: Tensor, history: Sequences, before: Remembered | None) -> Float[Tensor, "B D"]:
    """These newest states of the histories where something happened, and what they were of the others."""
    earlier = states.new_zeros(len(history), states.shape[1]) if before is None else before.newest
    happened = (history.lengths > 0).nonzero().squeeze(1)
    return earlier.index_copy(0, happened, states.to(earlier.dtype))
