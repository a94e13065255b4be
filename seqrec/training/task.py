"""Learning to name the next item: one step of training, and how the parts of a run meet in it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from seqrec.batch import Batch
from seqrec.catalog import Catalog
from seqrec.objectives.base import Auxiliary, EqualWeights, Objective, Reweighter
from seqrec.ops.dispatch import leave_ops_as_they_are
from seqrec.recommenders.base import Encoded, Recommender
from seqrec.training.optimizing import optimizing
from seqrec.training.ranking_task import RankingTask
from seqrec.training.schedule import Constant, Schedule


class NextItemTask(RankingTask):
    """Trains a recommender to predict the next item, with Adam.

    The loss is the mean over the predictions of the global batch: under several devices the sum of the losses and the
    sum of the weights are both taken over all of them. Penalties and auxiliaries are averaged over the devices.

    Args:
        catalog: the items to choose from, with their training counts.
        recommender: builds the recommender once the catalog is known.
        objective: the loss of each prediction.
        reweighter: how much each prediction counts; by default all count the same. It looks at all users before
            the first step and after every epoch, if it wants to.
        auxiliaries: terms that are added to the objective, each with a weight of its own.
        learning_rate: Adam's step size, above 0.
        betas: Adam's decay rates of the first and second moment, in [0, 1).
        weight_decay: decoupled weight decay, as in AdamW; 0 is plain Adam. Spares what parts call ``not_decayed``.
        schedule: how the learning rate changes over the run.
        cutoffs: list lengths k at which the metrics are taken.
        compile: whether the recommender's modules go through ``torch.compile`` where they are called as a whole, as
            embedding and input position are. Backbones that are asked for chosen places, all but BERT4Rec, are not:
            compiled, their small products between ops were slower on a CPU.
    """

    def __init__(
        self,
        catalog: Catalog,
        recommender: Callable[[Catalog], Recommender],
        objective: Objective,
        reweighter: Reweighter | None = None,
        auxiliaries: list[Auxiliary] | None = None,
        learning_rate: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.0,
        schedule: Schedule | None = None,
        cutoffs: Sequence[int] = (1, 5, 10, 20),
        compile: bool = False,
    ) -> None:
        super().__init__(catalog, recommender, cutoffs)
        if learning_rate <= 0:
            raise ValueError(f"learning_rate is {learning_rate}; it must be above 0, e.g. 0.001.")
        self.objective = objective
        self.reweighter = reweighter or EqualWeights()
        self.auxiliaries = nn.ModuleList(auxiliaries or [])
        self.learning_rate = learning_rate
        self.betas = betas
        self.weight_decay = weight_decay
        self.schedule = schedule or Constant()
        self._is_looked_through = False
        if compile:
            leave_ops_as_they_are()
            for part in self.recommender.children():
                part.compile(dynamic=True)

    def on_fit_start(self) -> None:
        supervision = self.trainer.datamodule.supervision  # type: ignore[attr-defined]
        hides_events = supervision.target_lag == 0
        if hides_events and not self.recommender.learns_hidden_events:
            raise ValueError(
                f"{type(self.recommender).__name__} reads every event, but the data asks it for events of the history, "
                "so it would read its own answers; set data.supervision to seqrec.data.supervision."
                f"{'EveryEvent' if self.recommender.causal else 'NewestEvent'}."
            )
        if self.recommender.learns_hidden_events and not hides_events:
            raise ValueError(
                f"{type(self.recommender).__name__} learns from hidden events, but the data hides none; set "
                "data.supervision to seqrec.data.supervision.MaskedEvents."
            )
        if supervision.predicts_every_event and not self.recommender.causal:
            raise ValueError(
                f"{type(getattr(self.recommender, 'backbone', self.recommender)).__name__} sees later events (causal = "
                "False), but the data predicts every event, so it would read its own answers; set data.supervision to "
                "seqrec.data.supervision.EveryPrefix or NewestEvent, or take a causal form, as CausalSIGMA is of SIGMA."
            )

        backbone = getattr(self.recommender, "backbone", None)
        parts = getattr(backbone, "n_recent", None), getattr(backbone, "n_segments", None)
        if supervision.segments not in (None, parts):
            raise ValueError(
                f"{type(supervision).__name__} has n_recent {supervision.segments[0]} and n_segments "
                f"{supervision.segments[1]}, but the backbone {type(backbone).__name__} has {parts[0]} and {parts[1]}; "
                "give both the same, or set data.supervision to seqrec.data.supervision.EveryEvent."
            )

        if self.recommender.reads_clock and not self.trainer.datamodule.has_clock:  # type: ignore[attr-defined]
            raise ValueError(
                "A position of this model reads clock times, but the times of this data set are positions in the "
                "histories; choose another position, or a data set with real times."
            )

        longest, room = self.trainer.datamodule.max_length, self.recommender.leaves_room  # type: ignore[attr-defined]
        most = self.recommender.max_length
        if most is not None and (longest is None or longest > most):
            reads = "null, so histories of any length are read" if longest is None else longest
            raise ValueError(
                f"data.max_length is {reads}, but the position of this model has places for {most} events; set "
                f"data.max_length to at most {most}, or raise max_length of the position."
            )
        if longest is not None and longest <= room:
            warnings.warn(
                f"The newest {room} events of a history are read as they are and only older ones compressed, but "
                f"data.max_length is {longest}, so none will be; raise data.max_length or lower n_recent.",
                stacklevel=2,
            )

        self.reweighter.begin(lambda: self.trainer.datamodule.audience)  # type: ignore[attr-defined]
        waiting = self.reweighter.trail.active_from
        if waiting and 0 < (self.trainer.max_epochs or -1) <= waiting:
            warnings.warn(
                f"{type(self.reweighter).__name__} weighs users once {waiting} epochs are done, but training ends "
                f"after {self.trainer.max_epochs}, so it will change nothing; set "
                "model.reweighter.init_args.active_from lower.",
                stacklevel=2,
            )
        if str(self.trainer.precision).endswith("-true") and self.trainer.precision != "32-true":
            raise ValueError(
                f"trainer.precision is {self.trainer.precision}, which would round positions and times as well as "
                "weights; pass --trainer.precision bf16-mixed, 16-mixed or 32-true."
            )
        emulates = self.device.type == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX2"
        if emulates and str(self.trainer.precision).startswith("bf16"):
            warnings.warn(
                f"trainer.precision is {self.trainer.precision}, but this processor has no instructions for bfloat16 "
                "and emulates it about ten times slower than float32; pass --trainer.precision 32-true.",
                stacklevel=2,
            )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        if not self._is_looked_through:
            self._is_looked_through = True
            self._demand_no_look_ahead(batch)
        encoded = self.recommender.encode(batch)
        weighting = self.reweighter(encoded)
        losses = self.objective(replace(encoded, weights=weighting.weights))
        if losses.shape != batch.targets.shape:
            raise ValueError(
                f"{type(self.objective).__name__} returned losses of shape {tuple(losses.shape)}; return one for each "
                f"of the {len(batch.targets):,} predictions, which are averaged here."
            )
        losses = weighting.weights * losses
        # Gathered with gradients: each device gets the gradient of the global mean times their number, and the average
        # that the devices take next undoes the factor.
        totals = torch.stack([losses.sum() + self._nothing_of_all(batch), weighting.weights.sum()])
        loss_sum, weight_sum = self.all_gather(totals, sync_grads=True).reshape(-1, 2).sum(0)  # type: ignore[union-attr]
        # No prediction of a batch may count.
        loss = loss_sum / torch.where(weight_sum > 0, weight_sum, 1.0) + weighting.penalty
        for auxiliary in self.auxiliaries:
            term = auxiliary(encoded)
            self.log(f"train/{auxiliary.name}", term)
            loss = loss + auxiliary.weight * term
        self.log("train/loss", loss, prog_bar=True)
        every = max(self.trainer.log_every_n_steps, 1)  # type: ignore[attr-defined]
        if self.global_step % every == 0 and not torch.isfinite(loss):
            raise FloatingPointError(
                f"The loss is {loss.item()} after {self.global_step:,} steps, by "
                f"{', '.join(type(part).__name__ for part in (self.objective, *self.auxiliaries))}; lower "
                "model.learning_rate, or look for a logarithm or a division of zero in a part of your own."
            )
        return loss

    @torch.no_grad()
    def _demand_no_look_ahead(self, batch: Batch) -> None:
        """Refuse a recommender that calls itself causal while later items, or other histories, change its states.

        It would read its own answers, and its figures would be too good to be true.
        """
        places, lengths = batch.history.places, batch.history.lengths
        is_early = places < ((lengths + 1) // 2)[batch.history.owners]
        asks_early = is_early[batch.predict_at]
        if not self.recommender.causal or not bool(asks_early.any()) or bool(is_early.all()):
            return
        items = batch.history.items
        others = replace(batch.history, items=torch.where(is_early, items, (items + 1) % len(self.recommender.catalog)))
        learns = self.recommender.training
        self.recommender.eval()
        with torch.autocast(self.device.type, enabled=False), torch.compiler.set_stance("force_eager"):
            told, untold = (
                self.recommender.encode(replace(batch, history=history, views={})).queries[asks_early]
                for history in (batch.history, others)
            )
        self.recommender.train(learns)
        if (told - untold).abs().max() > 1e-3 * told.abs().max():
            name = type(getattr(self.recommender, "backbone", self.recommender)).__name__
            raise ValueError(
                f"{name} says that it is causal, but other items later in the histories change its states, so it would "
                "read its own answers; mend it, or set causal = False and data.supervision to "
                "seqrec.data.supervision.EveryPrefix."
            )

    def _nothing_of_all(self, batch: Batch) -> Tensor | float:
        """Zero, of every parameter where this device got no prediction: the others wait for a gradient of each."""
        if self.trainer.world_size == 1 or batch.targets.numel():
            return 0.0
        return 0.0 * torch.stack([weight.sum() for weight in self.parameters() if weight.requires_grad]).sum()

    def on_train_epoch_end(self) -> None:
        reading = self.recommender.training
        self.recommender.eval()
        with self.trainer.precision_plugin.train_step_context():
            self.reweighter.end_epoch(self.current_epoch + 1, self._read)
        self.recommender.train(reading)

    @torch.no_grad()
    def _read(self, batch: Batch) -> Encoded:
        return self.recommender.encode(batch.to(self.device))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        return optimizing(self, self.learning_rate, self.weight_decay, self.schedule, self.betas)
