"""What every task shares: the ruler that validation and test hold to a recommender."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule

from seqrec.batch import Batch
from seqrec.catalog import Catalog
from seqrec.evaluation.meter import Meter
from seqrec.objectives.base import EqualWeights, Reweighter
from seqrec.recommenders.base import Recommender


class RankingTask(LightningModule):
    """Measures where a recommender ranks the true next item. How it learns is said by the tasks that build on this one.

    Validation logs ``val/NAME@k`` and test ``test/NAME@k``, over all devices together. Test also looks at the lists
    that users would see and leaves the rank of every target in ``ranks.parquet`` in the folder of the run, with the
    length of the history before it and its item's training count.

    Args:
        catalog: the items to choose from, with their training counts.
        recommender: builds the recommender once the catalog is known.
        cutoffs: list lengths k at which the metrics are taken, each at least 1.

    Attributes:
        reweighter: how much each prediction counts in training; all the same where a task does not say.
        starts_from: what it was before training, as ``warm_start.WarmStart`` says; None where it began from nothing.
            Checkpoints carry it.
    """

    starts_from: dict[str, Any] | None = None

    def __init__(
        self,
        catalog: Catalog,
        recommender: Callable[[Catalog], Recommender],
        cutoffs: Sequence[int] = (1, 5, 10, 20),
    ) -> None:
        super().__init__()
        self.catalog_fingerprint = catalog.fingerprint
        self.recommender = recommender(catalog)
        self.reweighter: Reweighter = EqualWeights()
        self.cutoffs = tuple(cutoffs)
        self.metrics: dict[str, float] = {}
        self.meter = self._new_meter()

    def _new_meter(self) -> Meter:
        return Meter(self.cutoffs, self.recommender.counts)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["catalog"] = self.catalog_fingerprint
        checkpoint["trained_on"] = self._trained_on()
        checkpoint["starts_from"] = self.starts_from

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse weights of other items, whose rows would mean something else without anyone noticing, and weights that
        learned from other events, which may be those that are asked for now."""
        check_catalog(checkpoint, self.catalog_fingerprint)
        self.starts_from = checkpoint.get("starts_from")
        before, now = checkpoint.get("trained_on"), self._trained_on()
        if before and now and before != now:
            raise ValueError(
                "The checkpoint learned from other events than this data and protocol leave for training, so it may "
                "know what it is asked; use the data and the protocol of its config.yaml, or train again."
            )

    def _trained_on(self) -> str | None:
        """What there is to learn from; None outside a trainer."""
        datamodule = getattr(self._trainer, "datamodule", None)
        return getattr(datamodule, "trained_on", None)

    def on_validation_epoch_start(self) -> None:
        self.meter = self._new_meter()

    def on_test_epoch_start(self) -> None:
        self.meter = self._new_meter()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._rank(batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._rank(batch)
        with torch.autocast(self.device.type, enabled=False):
            known = self.recommender.informed(batch)
            best = self.recommender.recommend(known.history, max(self.cutoffs), batch.seen)
        self.meter.update_lists(best.items)

    def _rank(self, batch: Batch) -> None:
        # Ranks are taken in full precision whatever the training used, so that a rounding never makes a tie.
        with torch.autocast(self.device.type, enabled=False):
            self.meter.update(self.recommender.ranks(batch), batch.users, batch.targets)

    def on_validation_epoch_end(self) -> None:
        self._report("val")

    def on_test_epoch_end(self) -> None:
        self._report("test")
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        self.meter.save(Path(self.trainer.default_root_dir) / "ranks.parquet", data.test_targets)

    def _report(self, stage: str) -> None:
        self.metrics = self.meter.compute()
        # The meter has already added up all devices; the mean over them changes nothing and keeps Lightning quiet.
        named = {f"{stage}/{name}": torch.tensor(value, device=self.device) for name, value in self.metrics.items()}
        shown = f"{stage}/ndcg@10"
        self.log_dict({name: value for name, value in named.items() if name != shown}, sync_dist=True)
        self.log_dict({name: value for name, value in named.items() if name == shown}, sync_dist=True, prog_bar=True)


def check_catalog(checkpoint: Mapping[str, Any], fingerprint: str) -> None:
    """See that a checkpoint was trained on the items of this fingerprint, in this order.

    Raises:
        ValueError: it was not.
    """
    if checkpoint.get("catalog") != fingerprint:
        raise ValueError(
            "The checkpoint was trained on other items than the prepared data hold now; prepare the data again as they "
            "were when it was trained, or train again."
        )
