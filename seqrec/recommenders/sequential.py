"""The recommender that most papers describe: an embedding, a backbone and a scorer in a row."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from seqrec.batch import Batch
from seqrec.recommenders.base import Encoded
from seqrec.recommenders.keyed import KeyedRecommender, whole
from seqrec.sequences import Sequences


class SequentialRecommender(KeyedRecommender):
    """The state of an event speaks for the item that follows it. Its arguments are those of ``KeyedRecommender``."""

    def states(self, history: Sequences) -> Float[Tensor, "T D"]:
        """One state per event."""
        return self._read(self.embedding(history.items), history)

    def next_states(self, history: Sequences, at: Int[Tensor, "M"]) -> Float[Tensor, "M D"]:
        return self.states(history)[at]

    def encode(self, batch: Batch) -> Encoded:
        return self._encoded(batch, self.states(whole(batch)))
