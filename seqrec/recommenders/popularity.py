"""The same list for everyone: what is popular, ever or lately."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from seqrec.batch import Batch
from seqrec.catalog import Catalog
from seqrec.recommenders.counting import SameForEveryone, gathered

_SECONDS_PER_DAY = 86_400


class Popularity(SameForEveryone):
    """Scores an item by how often it occurs in training: the catalog already knows, so batches teach it nothing."""

    @property
    def item_scores(self) -> Float[Tensor, "N"]:
        return self.counts.float()

    def count(self, batch: Batch) -> None:
        pass

    def finish(self) -> None:
        pass


class RecentPopularity(SameForEveryone):
    """Scores an item by how often it was a target in the last days of training.

    The days end with the newest training target. The oldest event of each history follows nothing and is not counted.
    Items without a recent interaction tie, and come last.

    Args:
        catalog: the items to choose from.
        days: how many days count as recent, above 0.

    Raises:
        ValueError: (from ``count``) the batch does not say when its predictions were asked.
    """

    counts_by_clock = True
    recent: Tensor

    def __init__(self, catalog: Catalog, days: float = 7.0) -> None:
        super().__init__(catalog)
        if days <= 0:
            raise ValueError(f"days is {days}; it must be above 0, e.g. 7.")
        self.seconds = round(days * _SECONDS_PER_DAY)
        self.register_buffer("recent", torch.zeros(len(catalog), dtype=torch.long))
        self._targets = torch.empty(0, dtype=torch.long)
        self._times = torch.empty(0, dtype=torch.long)

    @property
    def item_scores(self) -> Float[Tensor, "N"]:
        return self.recent.float()

    def count(self, batch: Batch) -> None:
        if batch.asked_at is None:
            raise ValueError(
                "RecentPopularity reads when each prediction was asked, and the batch carries no asked_at; "
                "use data with time stamps, or Popularity."
            )
        self._keep_recent(
            torch.cat([self._targets, batch.targets.cpu().long()]),
            torch.cat([self._times, batch.asked_at.cpu().long()]),
        )

    def finish(self) -> None:
        self._keep_recent(gathered(self._targets), gathered(self._times))
        self.recent.copy_(torch.bincount(self._targets, minlength=len(self.catalog)))
        self._targets, self._times = self._targets[:0], self._times[:0]

    def _keep_recent(self, targets: Tensor, times: Tensor) -> None:
        """Forget what is older than the days before the newest, which only moves forward."""
        if times.numel():
            recent = times > times.max() - self.seconds
            self._targets, self._times = targets[recent], times[recent]
