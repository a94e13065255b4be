"""Who is trained on: all users at once, for parts that look at everyone between epochs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from seqrec.batch import Batch
from seqrec.catalog import Catalog
from seqrec.sequences import Sequences


@dataclass(frozen=True)
class Audience:
    """Everyone that training reads, and histories that are known to be fake.

    Who among the users is fake is not said: nobody who trains may know.

    Attributes:
        catalog: the items; their counts are those of the histories, fakes included.
        n_users: rows of users in the log, also of those who have no history here.
        users: row of the user behind each history.
        histories: what training reads of each user, the newest events at most; none is empty.
        fraudsters: histories that somebody made up to show what a fake looks like; they belong to no user, and no item
            that an attack pushes is pushed by them. Without histories where nobody made any.
    """

    catalog: Catalog
    n_users: int
    users: Int[Tensor, "R"]
    histories: Sequences
    fraudsters: Sequences

    def newest(self, n: int) -> Audience:
        """The same, where no history has more than its newest ``n`` events."""
        return replace(self, histories=_newest(self.histories, n), fraudsters=_newest(self.fraudsters, n))


def as_batch(histories: Sequences) -> Batch:
    """Histories as a recommender encodes them: every event predicts, nothing is hidden, and nobody is meant."""
    everything, nothing = torch.arange(histories.items.numel(), device=histories.items.device), histories.offsets[:0]
    nobody = histories.offsets.new_full((len(histories),), -1)
    asked_at = None
    if histories.times is not None:  # when the next event happened; behind the newest nothing followed
        followed = torch.cat([histories.times[1:], histories.times[:1]])
        asked_at = followed.index_copy(0, histories.newest, histories.times[histories.newest])
    return Batch(nobody, histories, everything, histories.items, asked_at, hidden=nothing)


def _newest(histories: Sequences, n: int) -> Sequences:
    kept = histories.places >= (histories.lengths - n)[histories.owners]
    offsets = torch.cat([histories.offsets[:1], histories.lengths.clamp(max=n).cumsum(0)])
    return Sequences(histories.items[kept], offsets, None if histories.times is None else histories.times[kept])
