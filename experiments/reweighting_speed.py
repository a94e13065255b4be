"""Times an epoch of SASRec with LoRec beside one without, in turn, and records the seconds.

An epoch with LoRec ends when LoRec has learned and scored; scoring is asked for in every epoch here, which is more than
it does by default. See experiments/README.md for the command. Run it alone on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer, seed_everything
from prepare_scale import record
from throughput import DIM, DROPOUT, HEADS, LAYERS, task_of

from seqrec.backbones.sasrec import SASRec
from seqrec.data.datamodule import SequenceDataModule
from seqrec.data.poisoning.known import KnownFraudsters
from seqrec.objectives.base import EqualWeights, Reweighter
from seqrec.objectives.lorec import LoRec

HERE = Path(__file__).parent


class Starts(Callback):
    """Moments at which epochs start, and the moment at which the last one was over, reweighter included."""

    def __init__(self) -> None:
        self.moments: list[float] = []
        self.processor: list[float] = []

    def _now(self) -> None:
        self.moments.append(time.perf_counter())
        self.processor.append(time.process_time())

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self._now()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._now()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepared", type=Path, required=True, help="what `seqrec prepare amazon-beauty` made")
    parser.add_argument("--vectors", type=Path, required=True, help="text vectors of its items")
    parser.add_argument("--length", type=int, default=50, help="events per history")
    parser.add_argument("--events-per-batch", type=int, default=2048)
    parser.add_argument("--precision", default="bf16-mixed")
    parser.add_argument("--epochs", type=int, default=3, help="epochs on the clock, after one that warms up")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--results", type=Path, default=HERE / "results" / "reweighting_speed.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    wall, processor = {}, {}
    kinds: dict[str, Reweighter] = {
        "none": EqualWeights(),
        "LoRec by states": LoRec(str(options.vectors), "states", active_from=0, period=1, late_period=1),
        "LoRec by fit": LoRec(str(options.vectors), "fit", active_from=0, period=1, late_period=1),
    }
    for name, reweighter in kinds.items():
        wall[name], processor[name] = measured(options, reweighter)
    medians, work = ({name: statistics.median(each) for name, each in kind.items()} for kind in (wall, processor))
    entry = {
        "settings": {"dim": DIM, "layers": LAYERS, "heads": HEADS, "dropout": DROPOUT, "length": options.length},
        "precision": options.precision,
        "events_per_batch": options.events_per_batch,
        "threads": options.threads,
        "load_average": [round(each, 1) for each in os.getloadavg()],
        "torch": torch.__version__,
        "epoch_seconds": wall,
        "epoch_processor_seconds": processor,
        "added_share": beside_none(medians),
        "added_share_of_processor_time": beside_none(work),
    }
    record(options.results, f"{options.prepared.name}, {options.precision}", entry)
    print(json.dumps(entry, indent=2))


def beside_none(seconds: dict[str, float]) -> dict[str, float]:
    return {name: round(taken / seconds["none"] - 1, 3) for name, taken in seconds.items() if name != "none"}


def measured(options: argparse.Namespace, reweighter: Reweighter) -> tuple[list[float], list[float]]:
    """Seconds of every epoch after the first, on the wall and of the processor."""
    seed_everything(0, verbose=False)
    data = SequenceDataModule(
        str(options.prepared),
        max_length=options.length,
        events_per_batch=options.events_per_batch,
        fraudsters=KnownFraudsters(),
    )
    task = task_of(data, SASRec(DIM, n_layers=LAYERS, n_heads=HEADS, dropout=DROPOUT))
    task.reweighter = reweighter
    starts = Starts()
    trainer = Trainer(
        accelerator="cpu",
        precision=options.precision,
        max_epochs=1 + options.epochs,
        callbacks=[starts],
        logger=False,
        limit_val_batches=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(task, datamodule=data)
    wall, processor = (
        [round(after - before, 3) for before, after in pairwise(moments[1:])]
        for moments in (starts.moments, starts.processor)
    )
    return wall, processor


if __name__ == "__main__":
    main()
