"""Learning to tell what followed from what did not, measured by AUC per user."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn import functional as F

from seqrec.batch import Batch
from seqrec.catalog import Catalog
from seqrec.evaluation.clicks import auc, gauc, log_loss
from seqrec.recommenders.click import ClickModel
from seqrec.training.optimizing import optimizing
from seqrec.training.ranking_task import check_catalog
from seqrec.training.schedule import Constant, Schedule


class ClickTask(LightningModule):
    """Trains a click model with the log loss of every target and of its negatives, and Adam.

    Validation logs ``val/gauc``, ``val/auc`` and ``val/log_loss``, test the same under ``test/``. An impression is a
    target, which counts as clicked, or one of the negatives that the data drew; the figures depend on how those are
    drawn, and are never compared with ranks in a whole catalog. One device.

    Args:
        catalog: the items, with their training counts.
        model: builds the click model once the catalog is known.
        learning_rate: Adam's step size, above 0.
        weight_decay: decoupled weight decay, as in AdamW; 0 is plain Adam.
        schedule: how the learning rate changes over the run.

    Attributes:
        impressions: scores, clicks and users of the impressions judged last, as ``evaluation.clicks`` reads them.
    """

    def __init__(
        self,
        catalog: Catalog,
        model: Callable[[Catalog], ClickModel],
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__()
        if learning_rate <= 0:
            raise ValueError(f"learning_rate is {learning_rate}; it must be above 0, e.g. 0.001.")
        self.catalog_fingerprint = catalog.fingerprint
        self.model = model(catalog)
        self.learning_rate, self.weight_decay, self.schedule = learning_rate, weight_decay, schedule or Constant()
        self.metrics: dict[str, float] = {}
        self._judged: list[tuple[Tensor, Tensor, Tensor]] = []

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["catalog"] = self.catalog_fingerprint

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse weights of other items; checkpoints of earlier versions do not say."""
        if "catalog" in checkpoint:
            check_catalog(checkpoint, self.catalog_fingerprint)

    @property
    def impressions(self) -> tuple[Tensor, Tensor, Tensor]:
        scores, clicked, users = (torch.cat(parts) for parts in zip(*self._judged, strict=True))
        return scores, clicked, users

    def on_fit_start(self) -> None:
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if data.supervision.target_lag == 0 or (data.supervision.predicts_every_event and not self.model.causal):
            raise ValueError(
                f"Under {type(data.supervision).__name__} this model would read its own answers; set data.supervision "
                "to seqrec.data.supervision.EveryPrefix."
            )
        if self.model.reads_clock and not data.has_clock:
            raise ValueError(
                "A position of this model reads clock times, but the times of this data set are positions in the "
                "histories; choose another position, or a data set with real times."
            )
        if self.model.reads_asked_at:
            raise ValueError(
                "A position of this model reads when a prediction is asked for, which a click model is not told; "
                "choose another position."
            )
        if self.trainer.world_size > 1:
            raise ValueError(f"{self.trainer.world_size} devices were asked for; set trainer.devices to 1.")

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        logits = self._logits(batch)
        loss = F.binary_cross_entropy_with_logits(logits, _clicked(logits).to(logits.dtype))
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        self._judged = []

    def on_test_epoch_start(self) -> None:
        self._judged = []

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        # In full precision whatever the training used, so that a rounding never makes a tie.
        with torch.autocast(self.device.type, enabled=False):
            logits = self._logits(batch)
        users = batch.users[batch.history.owners[batch.predict_at]][:, None].expand(logits.shape)
        self._judged.append(tuple(part.flatten().cpu() for part in (logits, _clicked(logits), users)))  # type: ignore[arg-type]

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        self._report("val")

    def on_test_epoch_end(self) -> None:
        self._report("test")

    def configure_optimizers(self) -> OptimizerLRScheduler:
        return optimizing(self, self.learning_rate, self.weight_decay, self.schedule)

    def _logits(self, batch: Batch) -> Float[Tensor, "M c"]:
        """Log-odds of each target, which comes first, and of its negatives."""
        if batch.negatives is None:
            raise ValueError(
                "A click model learns from negatives, and the batch carries none; set data.negatives to "
                "seqrec.data.negatives.Negatives."
            )
        candidates = torch.cat([batch.targets[:, None], batch.negatives], dim=1)
        return self.model(batch.history, batch.predict_at, candidates)

    def _report(self, stage: str) -> None:
        scores, clicked, users = self.impressions
        self.metrics = {
            "gauc": gauc(scores, clicked, users),
            "auc": auc(scores, clicked),
            "log_loss": log_loss(scores, clicked),
        }
        self.log_dict({f"{stage}/{name}": value for name, value in self.metrics.items()}, prog_bar=True)


def _clicked(logits: Tensor) -> Tensor:
    """True for the target, the first of each row."""
    return torch.arange(logits.shape[1], device=logits.device).expand(logits.shape) == 0
