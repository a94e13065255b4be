"""What most often followed the newest item: a first-order Markov chain."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seqrec.batch import Batch
from seqrec.catalog import Catalog
from seqrec.ops.ranking import best_of, ranks_of_scores
from seqrec.recommenders.base import Encoded, TopK
from seqrec.recommenders.counting import CountingRecommender, gathered
from seqrec.sequences import Sequences, bounds

# Pairs that are worth being sorted in.
_PAIRS_AT_LEAST = 2**20
# Dense scores held at once, in float64: 32 MiB.
_SCORES_PER_BLOCK = 2**22


class Markov(CountingRecommender):
    """Scores an item by how often it followed the newest item in training; popularity decides between equals.

    The score is ``transitions · (largest count + 1) + count of the item``, whole numbers in float64, so a single
    transition outweighs any popularity, and nothing is rounded up to 2^53. An item that never had a successor, and a
    history without events, fall back to popularity.
    """

    starts: Tensor
    followers: Tensor
    transitions: Tensor

    def __init__(self, catalog: Catalog) -> None:
        super().__init__(catalog)
        # Item i was followed by followers[starts[i]:starts[i + 1]], each transitions[…] times.
        self.register_buffer("starts", torch.zeros(len(catalog) + 1, dtype=torch.long))
        self.register_buffer("followers", torch.empty(0, dtype=torch.long))
        self.register_buffer("transitions", torch.empty(0, dtype=torch.long))
        self._pairs = torch.empty(0, dtype=torch.long)
        self._times = torch.empty(0, dtype=torch.long)
        self._new: list[Tensor] = []

    def count(self, batch: Batch) -> None:
        came = batch.history.items[batch.predict_at].cpu().long()
        pairs = came * len(self.catalog) + batch.targets.cpu().long()
        self._new.append(pairs)
        # Sorting them in costs as much as all that is known, so it waits until there are as many.
        if sum(each.numel() for each in self._new) >= max(self._pairs.numel(), _PAIRS_AT_LEAST):
            self._sort_in()

    def finish(self) -> None:
        self._sort_in()
        self._add(gathered(self._pairs), gathered(self._times))
        device, n_items = self.starts.device, len(self.catalog)
        self.starts.copy_(bounds(torch.bincount(self._pairs // n_items, minlength=n_items)))
        self.followers = (self._pairs % n_items).to(device)
        self.transitions = self._times.to(device)
        self._pairs, self._times = self._pairs[:0], self._times[:0]

    def encode(self, batch: Batch) -> Encoded:
        """A table of transitions is no inner product of small vectors, so there is nothing to encode.

        Raises:
            TypeError: always.
        """
        raise TypeError(
            "Markov has no queries and keys for an objective or an index: "
            "teach it with count and finish, and ask it for ranks or recommend."
        )

    def ranks(self, batch: Batch) -> Int[Tensor, "M"]:
        newest = batch.history.items[batch.predict_at].long()
        blocks = [
            ranks_of_scores(self._scores(newest[start:end]), batch.targets[start:end], *_cut(batch.seen, start, end))
            for start, end in self._blocks(newest.numel())
        ]
        return torch.cat(blocks) if blocks else batch.targets.new_empty(0, dtype=torch.long)

    def recommend(self, history: Sequences, k: int, seen: Sequences | None = None) -> TopK:
        # A history without events has no newest one: -1 is followed by nothing.
        newest = torch.full_like(history.lengths, -1)
        begun = history.lengths > 0
        newest[begun] = history.items[history.newest[begun]].to(newest.dtype)
        blocks = [
            best_of(self._scores(newest[start:end]), k, *_cut(seen, start, end))
            for start, end in self._blocks(newest.numel())
        ]
        if not blocks:
            return TopK(newest.new_empty(0, k), newest.new_empty(0, k, dtype=torch.float32))
        return TopK(torch.cat([items for items, _ in blocks]), torch.cat([scores for _, scores in blocks]))

    def _scores(self, newest: Int[Tensor, "b"]) -> Float[Tensor, "b N"]:
        first = self.starts[newest.clamp_min(0)]
        lengths = (self.starts[newest.clamp_min(0) + 1] - first) * (newest >= 0)
        owners = torch.repeat_interleave(torch.arange(newest.numel(), device=newest.device), lengths)
        places = torch.arange(owners.numel(), device=newest.device) + (first - bounds(lengths)[:-1])[owners]
        popularity = self.counts.double()
        scores = popularity.expand(newest.numel(), -1).clone()
        scores[owners, self.followers[places]] += self.transitions[places] * (popularity.max() + 1)
        return scores

    def _blocks(self, n_predictions: int) -> Iterator[tuple[int, int]]:
        size = max(1, _SCORES_PER_BLOCK // len(self.catalog))
        for start in range(0, n_predictions, size):
            yield start, min(start + size, n_predictions)

    def _sort_in(self) -> None:
        new = torch.cat([self._pairs[:0], *self._new])
        self._add(torch.cat([self._pairs, new]), torch.cat([self._times, torch.ones_like(new)]))
        self._new.clear()

    def _add(self, pairs: Tensor, times: Tensor) -> None:
        """Keep each pair once, in order, with the sum of its times."""
        self._pairs, place = torch.unique(pairs, return_inverse=True)
        self._times = torch.zeros_like(self._pairs).index_add_(0, place, times)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: object) -> None:
        """Make room for as many transitions as the checkpoint holds."""
        for name in ("followers", "transitions"):
            stored = state_dict.get(prefix + name)
            if stored is not None:
                setattr(self, name, torch.empty_like(stored, device=self.starts.device))
        super()._load_from_state_dict(state_dict, prefix, *rest)


def _cut(seen: Sequences | None, start: int, end: int) -> tuple[Tensor | None, Tensor | None]:
    """What predictions ``start`` to ``end`` have seen."""
    if seen is None:
        return None, None
    offsets = seen.offsets[start : end + 1]
    return seen.items[offsets[0] : offsets[-1]], offsets - offsets[0]
