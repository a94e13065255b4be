"""Times an epoch of every causal backbone on the same data, and a pass of each over histories of growing length.

See experiments/README.md for the command. Run it alone on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path

import torch
from prepare_scale import record
from streaming_speed import BACKBONES, DIM
from throughput import epochs, task_of

from seqrec.data.datamodule import SequenceDataModule
from seqrec.positions.learned import LearnedPosition
from seqrec.sequences import Sequences

HERE = Path(__file__).parent
LENGTHS = (50, 100, 200, 500, 1000, 2000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepared", type=Path, required=True, help="what `seqrec prepare amazon-beauty` made")
    parser.add_argument("--length", type=int, default=50, help="events per history in the epochs")
    parser.add_argument("--events-per-batch", type=int, default=2048)
    parser.add_argument("--precision", default="bf16-mixed")
    parser.add_argument("--epochs", type=int, default=3, help="epochs on the clock, after one that warms up")
    parser.add_argument("--events", type=int, default=8000, help="events of a pass, whatever the length")
    parser.add_argument("--repeats", type=int, default=5, help="passes on the clock, after one that warms up")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--results", type=Path, default=HERE / "results" / "backbone_speed.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    seconds = {name: epoch(options, name) for name in BACKBONES}
    passes = {name: {length: microseconds(options, name, length) for length in LENGTHS} for name in BACKBONES}
    entry = {
        "threads": options.threads,
        "torch": torch.__version__,
        "dim": DIM,
        "precision": options.precision,
        "events_per_batch": options.events_per_batch,
        "median_seconds_of_an_epoch": seconds,
        "epochs_of_sasrec": {name: round(each / seconds["SASRec"], 2) for name, each in seconds.items()},
        "events_of_a_pass": options.events,
        "median_microseconds_per_event_there_and_back": passes,
    }
    record(options.results, options.prepared.name, entry)
    print(json.dumps(entry, indent=2))


def epoch(options: argparse.Namespace, name: str) -> float:
    """Seconds of a training epoch on all events, without validation."""
    torch.manual_seed(0)
    data = SequenceDataModule(
        str(options.prepared), max_length=options.length, events_per_batch=options.events_per_batch
    )
    position = LearnedPosition(DIM, options.length) if name in ("SASRec", "LiGR", "HSTU") else None
    task = task_of(data, BACKBONES[name](), position)
    return statistics.median(epochs(task, data, options.precision, 1 + options.epochs)[1:])


def microseconds(options: argparse.Namespace, name: str, length: int) -> float:
    """Of a forward and backward pass in float32, per event."""
    torch.manual_seed(0)
    backbone = BACKBONES[name]().train()
    history = Sequences.pack([[0] * length] * (options.events // length))
    events = torch.randn(len(history.items), DIM)
    taken = []
    for _ in range(1 + options.repeats):
        began = time.perf_counter()
        backbone(events, history).sum().backward()
        taken.append(time.perf_counter() - began)
    return round(1e6 * statistics.median(taken[1:]) / len(events), 2)


if __name__ == "__main__":
    main()
