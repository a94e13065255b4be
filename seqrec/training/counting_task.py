"""Learning by counting: baselines see every training batch once and have nothing to optimise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.types import STEP_OUTPUT

from seqrec.batch import Batch
from seqrec.catalog import Catalog
from seqrec.recommenders.counting import CountingRecommender
from seqrec.training.ranking_task import RankingTask


class CountingTask(RankingTask):
    """Fits a counting recommender in one epoch; with several devices the recommender adds up their counts.

    Args:
        catalog: the items to choose from, with their training counts.
        recommender: builds the counting recommender once the catalog is known.
        cutoffs: list lengths k at which the metrics are taken.
    """

    recommender: CountingRecommender

    def __init__(
        self,
        catalog: Catalog,
        recommender: Callable[[Catalog], CountingRecommender],
        cutoffs: Sequence[int] = (1, 5, 10, 20),
    ) -> None:
        super().__init__(catalog, recommender, cutoffs)
        self.automatic_optimization = False

    def on_fit_start(self) -> None:
        if self.trainer.max_epochs != 1:
            raise ValueError(
                f"Counting takes one epoch, {self.trainer.max_epochs} were asked for; set trainer.max_epochs to 1."
            )
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        if data.supervision.target_lag == 0:
            raise ValueError(
                f"{type(self.recommender).__name__} counts what followed, but the data asks for hidden events; set "
                "data.supervision to seqrec.data.supervision.EveryEvent."
            )
        if self.recommender.counts_by_clock and not data.has_clock:
            raise ValueError(
                f"{type(self.recommender).__name__} counts what happened lately, but the times of this data set are "
                "positions in the histories; choose Popularity, or a data set with real times."
            )

    def training_step(self, batch: Batch, batch_idx: int) -> STEP_OUTPUT:
        with torch.no_grad():
            self.recommender.count(batch)
        if self.trainer.is_last_batch:  # validation follows before the epoch ends
            self.recommender.finish()
        return None

    def configure_optimizers(self) -> None:
        return None

    def on_train_end(self) -> None:
        # Lightning's own checkpoints wait for a step of an optimiser, and counting has none.
        for kept in self.trainer.checkpoint_callbacks:
            folder = Path(getattr(kept, "dirpath", None) or ".")
            self.trainer.save_checkpoint(folder / "best.ckpt", weights_only=False)
