"""The recommender that most papers describe: an embedding, a backbone and a scorer in a row."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seqrec.backbones.base import ContinuingBackbone
from seqrec.batch import Batch
from seqrec.recommenders.base import Encoded
from seqrec.recommenders.keyed import KeyedRecommender, whole
from seqrec.sequences import Past, Sequences


@dataclass(frozen=True)
class Remembered:
    """What a recommender carries from the past of each history.

    Attributes:
        memory: what the backbone carries; its form is the backbone's own affair.
        past: how many events that were, and when the newest of them happened.
    """

    memory: Any
    past: Past


class SequentialRecommender(KeyedRecommender):
    """The state of an event speaks for the item that follows it. Its arguments are those of ``KeyedRecommender``."""

    def states(self, history: Sequences) -> Float[Tensor, "T D"]:
        """One state per event."""
        return self._read(self.embedding(history.items), history)

    def next_states(self, history: Sequences, at: Int[Tensor, "M"]) -> Float[Tensor, "M D"]:
        return self.states(history)[at]

    def encode(self, batch: Batch) -> Encoded:
        informed = self._informed(batch)
        return self._encoded(informed, self.states(whole(informed)))

    def proceed(
        self, history: Sequences, remembered: Remembered | None = None
    ) -> tuple[Float[Tensor, "T D"], Remembered]:
        """The states of these events, which follow what is remembered of the same histories, and what to remember next.

        Raises:
            TypeError: the backbone cannot go on from what it remembers, or the position means something else once the
                history goes on.
        """
        backbone = self._continuing()
        history = replace(history, past=None if remembered is None else remembered.past)
        events = self._events(self.embedding(history.items), history)
        states, memory = backbone.proceed(events, history, None if remembered is None else remembered.memory)
        return states, Remembered(memory, ended(history))

    def _continuing(self) -> ContinuingBackbone[Any]:
        if not isinstance(self.backbone, ContinuingBackbone):
            raise TypeError(
                f"{type(self.backbone).__name__} cannot go on from what it remembers; read whole histories."
            )
        if self.position is not None and not self.position.continues:
            raise TypeError(
                f"{type(self.position).__name__} means something else once the history goes on; read whole histories, "
                "or train with a position that counts from the oldest event."
            )
        return self.backbone


def ended(history: Sequences) -> Past:
    """What came before the events that follow these."""
    counts, times = history.lengths, None
    if history.times is not None:
        behind = torch.cat([history.times.new_zeros(1), history.times])[history.offsets[1:]]
        earlier = 0 if history.past is None or history.past.times is None else history.past.times
        times = torch.where(counts > 0, behind, earlier)
    return Past(counts if history.past is None else counts + history.past.counts, times)
