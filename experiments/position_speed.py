"""Times an epoch of an attention backbone with position encodings inside attention, each in a process of its own.

See experiments/README.md for the command. Run it alone on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import torch
from prepare_scale import record
from throughput import DIM, DROPOUT, HEADS, LAYERS, epochs, task_of

from seqrec.backbones.hstu import HSTU
from seqrec.backbones.ligr import LiGR
from seqrec.backbones.sasrec import SASRec
from seqrec.data.datamodule import SequenceDataModule
from seqrec.positions.base import AttentionPosition
from seqrec.positions.contextual import CAPE, CoPE
from seqrec.positions.relative import ALiBi, RelativeBias
from seqrec.positions.rotary import RotaryPosition

HERE = Path(__file__).parent
BACKBONES = {each.__name__: each for each in (SASRec, LiGR, HSTU)}


def positions(length: int) -> dict[str, Callable[[int], AttentionPosition] | None]:
    return {
        "none": None,
        "rotary": RotaryPosition,
        "relative": lambda channels: RelativeBias(channels, length),
        "ALiBi": ALiBi,
        "CoPE": lambda channels: CoPE(channels, length),
        "CAPE": lambda channels: CAPE(channels, length),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepared", type=Path, required=True, help="what `seqrec prepare ml-1m` made")
    parser.add_argument("--backbone", choices=BACKBONES, default="SASRec")
    parser.add_argument("--positions", nargs="+", choices=positions(1), default=list(positions(1)))
    parser.add_argument("--length", type=int, default=200, help="events per history")
    parser.add_argument("--events-per-batch", type=int, default=4096)
    parser.add_argument("--precision", default="bf16-mixed")
    parser.add_argument("--epochs", type=int, default=3, help="epochs on the clock, after one that warms up")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--results", type=Path, default=HERE / "results" / "position_speed.json")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.only:
        print(json.dumps(measured(options)))
        return
    figures = {}
    for name in dict.fromkeys(["none", *options.positions]):
        command = [sys.executable, __file__, *sys.argv[1:], f"--only={name}"]
        said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        figures[name] = json.loads(said.splitlines()[-1])
    plain = figures["none"]["epoch_median"]
    entry = {
        "settings": {"dim": DIM, "layers": LAYERS, "heads": HEADS, "dropout": DROPOUT, "length": options.length},
        "precision": options.precision,
        "events_per_batch": options.events_per_batch,
        "threads": options.threads,
        "torch": torch.__version__,
        "figures": figures,
        "epochs_of_none": {name: round(each["epoch_median"] / plain, 2) for name, each in figures.items()},
    }
    own = "" if options.backbone == "SASRec" else f"-{options.backbone.lower()}"
    record(options.results, f"{options.prepared.name}{own}-{options.precision}", entry)
    print(json.dumps(entry, indent=2))


def measured(options: argparse.Namespace) -> dict[str, object]:
    torch.manual_seed(0)
    before = psutil.Process().memory_info().rss
    data = SequenceDataModule(
        str(options.prepared), max_length=options.length, events_per_batch=options.events_per_batch
    )
    position = positions(options.length)[options.only]
    build = BACKBONES[options.backbone]
    backbone = build(DIM, n_layers=LAYERS, n_heads=HEADS, dropout=DROPOUT, position=position)
    seconds = epochs(task_of(data, backbone), data, options.precision, 1 + options.epochs)[1:]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "epoch_seconds": seconds,
        "epoch_median": statistics.median(seconds),
        "peak_bytes": peak,
        "peak_bytes_beyond_start": peak - before,
    }


if __name__ == "__main__":
    main()
