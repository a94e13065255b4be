"""Times an epoch of every causal backbone on the same data, and a pass of each over histories of growing length.

A GPU's figures have a file of their own.

See experiments/README.md for the command. Run it alone on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from pathlib import Path

import torch
from device import add_device, machine, now, results_of
from prepare_scale import record
from streaming_speed import BACKBONES, DIM
from throughput import epochs, task_of

from seqrec.data.datamodule import SequenceDataModule
from seqrec.positions.learned import LearnedPosition
from seqrec.sequences import Sequences

LENGTHS = (50, 100, 200, 500, 1000, 2000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepared", type=Path, required=True, help="what `seqrec prepare amazon-beauty` made")
    parser.add_argument("--backbones", nargs="+", choices=BACKBONES, default=list(BACKBONES))
    parser.add_argument("--length", type=int, nargs="+", default=[50], help="events per history in the epochs")
    parser.add_argument("--events-per-batch", type=int, default=2048)
    parser.add_argument("--precision", default="bf16-mixed")
    parser.add_argument("--epochs", type=int, default=3, help="epochs on the clock, after one that warms up")
    parser.add_argument("--events", type=int, default=8000, help="events of a pass, whatever the length")
    parser.add_argument("--repeats", type=int, default=5, help="passes on the clock, after one that warms up")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    add_device(parser)
    parser.add_argument("--results", type=Path, help="default: results/backbone_speed.json, of a GPU …-cuda.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    seconds = {length: {name: epoch(options, name, length) for name in options.backbones} for length in options.length}
    passes = {name: {length: microseconds(options, name, length) for length in LENGTHS} for name in options.backbones}
    entry = {
        "threads": options.threads,
        **machine(options.device),
        "dim": DIM,
        "precision": options.precision,
        "events_per_batch": options.events_per_batch,
        "median_seconds_of_an_epoch": seconds,
        "epochs_of_sasrec": {
            length: {name: round(each / taken["SASRec"], 2) for name, each in taken.items()}
            for length, taken in seconds.items()
            if "SASRec" in taken
        },
        "events_of_a_pass": options.events,
        "median_microseconds_per_event_there_and_back": passes,
    }
    record(options.results or results_of("backbone_speed", options.device), options.prepared.name, entry)
    print(json.dumps(entry, indent=2))


def epoch(options: argparse.Namespace, name: str, length: int) -> float:
    """Seconds of a training epoch on all events, without validation."""
    torch.manual_seed(0)
    data = SequenceDataModule(str(options.prepared), max_length=length, events_per_batch=options.events_per_batch)
    position = LearnedPosition(DIM, length) if name in ("SASRec", "LiGR", "HSTU") else None
    task = task_of(data, BACKBONES[name](), position)
    return statistics.median(epochs(task, data, options.precision, 1 + options.epochs, options.device)[1:])


def microseconds(options: argparse.Namespace, name: str, length: int) -> float:
    """Of a forward and backward pass in float32, per event."""
    torch.manual_seed(0)
    backbone = BACKBONES[name]().train().to(options.device)
    history = Sequences.pack([[0] * length] * (options.events // length)).to(options.device)
    events = torch.randn(len(history.items), DIM, device=options.device)
    taken = []
    for _ in range(1 + options.repeats):
        began = now(options.device)
        backbone(events, history).sum().backward()
        taken.append(now(options.device) - began)
    return round(1e6 * statistics.median(taken[1:]) / len(events), 2)


if __name__ == "__main__":
    main()
