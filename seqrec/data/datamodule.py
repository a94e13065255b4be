"""Where a prepared data set becomes batches for Lightning."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader

from seqrec.audience import Audience
from seqrec.batch import Batch
from seqrec.catalog import Catalog
from seqrec.data.batching import (
    Arrays,
    EvaluationBatches,
    FixedBatches,
    ShuffledBatches,
    TrainingBatches,
    newest_events,
    seeded,
)
from seqrec.data.errors import InputError
from seqrec.data.log import Log
from seqrec.data.negatives import Negatives
from seqrec.data.poisoning.known import KnownFraudsters, nobody
from seqrec.data.protocol import LeaveOneOut, Part, Protocol, Split
from seqrec.data.supervision import EveryEvent, Supervision
from seqrec.data.views import TrainingData, View


class SequenceDataModule(LightningDataModule):
    """Batches of a prepared data set, split by a protocol.

    The trainer must not put samplers of its own in place: give it ``use_distributed_sampler=False``.

    Args:
        prepared: the folder that ``seqrec prepare`` wrote.
        protocol: how the log is split; None means ``LeaveOneOut()``.
        supervision: which events predict in training; None means ``EveryEvent()``.
        max_length: most input events of a history, the newest ones, at least 1; None reads all.
        events_per_batch: most input events of a training batch, over all ranks together, at least 1.
        evaluation_events_per_batch: most input events of an evaluation batch, over all ranks together, at least 1.
        views: build, from what the data hold for training, what makes other versions of the histories.
        negatives: builds, from the log and the catalog with its training counts, what draws items that did not follow:
            anew in every epoch of training, always the same for validation and test. None draws none.
        fraudsters: makes up histories that are known to be fake, for reweighters that learn from them; they are never
            trained on as users are. None makes none.
        mixes_lengths: whether chance alone says which histories share a training batch, as in most papers. Otherwise
            those of like length do, which is faster where attention is; where each history predicts once, those of one
            batch then weigh the more the longer they are.
        seed: where the order of training, the hidden events, the views and the negatives of training come from, at
            least 0.
        num_workers: processes that gather batches; 0 gathers in the training process, which is fast enough for all
            but costly views.
    """

    def __init__(
        self,
        prepared: str,
        protocol: Protocol | None = None,
        supervision: Supervision | None = None,
        max_length: int | None = 50,
        events_per_batch: int = 2048,
        evaluation_events_per_batch: int = 16384,
        views: list[Callable[[TrainingData], View]] | None = None,
        negatives: Callable[[Log, Catalog], Negatives] | None = None,
        fraudsters: KnownFraudsters | None = None,
        mixes_lengths: bool = False,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        least = {
            "max_length": (1 if max_length is None else max_length, 1),
            "events_per_batch": (events_per_batch, 1),
            "evaluation_events_per_batch": (evaluation_events_per_batch, 1),
            "seed": (seed, 0),
            "num_workers": (num_workers, 0),
        }
        for name, (value, lowest) in least.items():
            if value < lowest:
                raise ValueError(f"{name} is {value}; it must be at least {lowest}: set data.{name} accordingly.")
        self.prepared = Path(prepared)
        self.protocol = LeaveOneOut() if protocol is None else protocol
        self.supervision = EveryEvent() if supervision is None else supervision
        self.max_length = max_length
        self.events_per_batch = events_per_batch
        self.evaluation_events_per_batch = evaluation_events_per_batch
        self._views = [] if views is None else views
        self._negatives = negatives
        self._fraudsters = fraudsters
        self.mixes_lengths = mixes_lengths
        self.seed = seed
        self.num_workers = num_workers

    @cached_property
    def log(self) -> Log:
        """The prepared log, memory-mapped.

        Raises:
            FileNotFoundError: the folder is not a prepared data set.
        """
        return Log.open(self.prepared)

    @cached_property
    def split(self) -> Split:
        if self.log.is_fake.any() and not isinstance(self.protocol, LeaveOneOut):
            raise InputError(
                f"{self.prepared} holds fake users, whose attacker knew what LeaveOneOut trains on; under "
                f"{type(self.protocol).__name__} some of that is a target. Set data.protocol to LeaveOneOut."
            )
        split = self.protocol.split(self.log)
        for part, told in split.passport.get("targets", {}).items():
            left_out, before = told["already_seen_dropped"], told["before"] - told["without_history"]
            if left_out > before / 2:
                warnings.warn(
                    f"Of {before:,} {part} targets {left_out:,} are items that their user had before, which the "
                    f"protocol leaves out; where people come back to items, add --config "
                    "configs/protocol/seen-ranked.yaml.",
                    stacklevel=2,
                )
        return split

    @cached_property
    def catalog(self) -> Catalog:
        """The items, counted over the training part alone."""
        return self.log.catalog.with_counts(self.split.train.item_counts(self.log))

    @cached_property
    def trained_on(self) -> str:
        """Which events of which log are there to learn from, as a hash."""
        return self.split.train.digest(self.log)

    @cached_property
    def negatives(self) -> Negatives | None:
        """What draws items that did not follow."""
        return None if self._negatives is None else self._negatives(self.log, self.catalog)

    @cached_property
    def views(self) -> list[View]:
        """What makes other versions of the histories."""
        data = TrainingData(self.log, self.catalog, self.split.train, self.max_length)
        views = [build(data) for build in self._views]
        names = [view.name for view in views]
        if len(set(names)) < len(names):
            raise ValueError(f"The views are named {names}; give each under data.views a `name` of its own.")
        return views

    @property
    def has_clock(self) -> bool:
        """Whether the times of the log came from a clock; otherwise they are positions in the histories."""
        return self.log.manifest.get("unit_of_times") != "position"

    @cached_property
    def arrays(self) -> Arrays:
        """The events of the log: on the GPU that trains where they take at most a quarter of its free memory and no
        worker gathers; memory-mapped otherwise."""
        device = torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
        if device.type == "cuda" and not self.num_workers:
            free, _ = torch.cuda.mem_get_info(device)
            if self.log.items.nbytes + self.log.times.nbytes <= free / 4:
                return Arrays.of(self.log, device)
        return Arrays.of(self.log)

    @cached_property
    def audience(self) -> Audience:
        """All users of training, each as the newest window of its slice, and the known fraudsters."""
        made = nobody() if self._fraudsters is None else self._fraudsters.histories(self.log, self.split.train)
        train = self.split.train
        histories = newest_events(Arrays.of(self.log), train, self.max_length)
        longest = len(self.log.items) if self.max_length is None else self.max_length
        catalog = self.log.catalog.with_counts(np.bincount(histories.items.numpy(), minlength=len(self.log.catalog)))
        everyone = Audience(catalog, len(self.log.users), torch.from_numpy(train.users), histories, made)
        return everyone.newest(longest)

    @cached_property
    def test_targets(self) -> pl.DataFrame:
        """What is known of each test target: ``user`` and ``target`` as rows, ``history``, the events before it, and
        ``popularity``, how often its item occurs in training."""
        part = self.split.test
        targets = np.asarray(self.log.items)[part.ends - 1].astype(np.int64)
        counts = self.catalog.counts
        columns = {"user": part.users, "target": targets, "history": part.lengths - 1, "popularity": counts[targets]}
        return pl.DataFrame({name: values.astype(np.int64) for name, values in columns.items()})

    @property
    def passport(self) -> dict[str, Any]:
        """How the data were split and read; what must be equal for two results to be compared is part of it."""
        return {**self.split.passport, "max_length": self.max_length, "has_clock": self.has_clock}

    @cached_property
    def training(self) -> TrainingBatches:
        batches = TrainingBatches(
            self.arrays, self.split.train, self.supervision, self.max_length, self.views, self.seed, self.negatives
        )
        if not len(batches):
            raise ValueError(
                f"No user of {self.prepared} has two events in the training part; training needs some: prepare the "
                "data with weaker filters or choose another protocol."
            )
        return batches

    def train_dataloader(self) -> DataLoader[Batch]:
        rank, world = _rank_and_world()
        lengths = self.training.input_lengths
        jitter = math.inf if self.mixes_lengths else 0.2
        sampler = ShuffledBatches(lengths, self.events_per_batch, self.seed, rank, world, jitter)
        return self._loader(self.training, sampler)

    def val_dataloader(self) -> DataLoader[Batch]:
        return self._evaluation("validation", self.split.validation)

    def test_dataloader(self) -> DataLoader[Batch]:
        return self._evaluation("test", self.split.test)

    def everyone(self) -> DataLoader[Batch]:
        """All genuine users of three events or more, before their newest one; ``seen`` is all that they have by then.

        Also those whose target the protocol drops, and whatever it ranks.
        """
        offsets = np.asarray(self.log.offsets)
        users = np.flatnonzero(~self.log.is_fake & (np.diff(offsets) >= 3))
        part = Part(users, offsets[users], offsets[users + 1])
        dataset = EvaluationBatches(self.arrays, part, self.max_length, seen_is_excluded=True)
        return self._loader(
            dataset, FixedBatches(dataset.input_lengths, self.evaluation_events_per_batch, *_rank_and_world())
        )

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        return batch.to(device, non_blocking=True)

    def _evaluation(self, name: str, part: Part) -> DataLoader[Batch]:
        if not len(part):
            raise ValueError(
                f"The {name} part of {self.prepared} holds no target ({self.passport['targets'][name]}); evaluation "
                "needs some: choose other settings of data.protocol or weaker filters in `seqrec prepare`."
            )
        drawn = None
        if self.negatives is not None:
            drawn = self.negatives.draw(torch.from_numpy(part.users), seeded(self.negatives.seed, *name.encode()))
        dataset = EvaluationBatches(self.arrays, part, self.max_length, self.protocol.seen_is_excluded, drawn)
        sampler = FixedBatches(dataset.input_lengths, self.evaluation_events_per_batch, *_rank_and_world())
        return self._loader(dataset, sampler)

    def _loader(
        self, dataset: TrainingBatches | EvaluationBatches, sampler: ShuffledBatches | FixedBatches
    ) -> DataLoader[Batch]:
        return DataLoader(
            dataset,
            sampler=sampler,
            batch_size=None,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available() and self.arrays.items.device.type == "cpu",
        )


def _rank_and_world() -> tuple[int, int]:
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()
