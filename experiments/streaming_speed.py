"""Times one more event, read from what a backbone remembers, beside reading the whole history again.

See experiments/README.md for the command. Run it alone on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from prepare_scale import record

from seqrec.backbones.base import ContinuingBackbone
from seqrec.backbones.gru4rec import GRU4Rec
from seqrec.backbones.hmamba import HMamba
from seqrec.backbones.ligr import LiGR
from seqrec.backbones.mamba4rec import Block, Mamba4Rec
from seqrec.backbones.sasrec import SASRec
from seqrec.backbones.sigma import CausalSIGMA
from seqrec.sequences import Sequences

HERE = Path(__file__).parent
DIM = 64
LENGTHS = (50, 200, 2000)
BACKBONES: dict[str, Callable[[], ContinuingBackbone]] = {
    "SASRec": lambda: SASRec(DIM, n_layers=2, n_heads=2),
    "LiGR": lambda: LiGR(DIM, n_layers=2, n_heads=2),
    "GRU4Rec": lambda: GRU4Rec(DIM),
    "Mamba4Rec": lambda: Mamba4Rec(DIM),
    "Mamba4Rec, Mamba-2": lambda: Mamba4Rec(DIM, block=Block.mamba2),
    "SIGMA, causal": lambda: CausalSIGMA(DIM),
    "HMamba": lambda: HMamba(DIM),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--results", type=Path, default=HERE / "results" / "streaming_speed.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    milliseconds = {
        name: {length: measured(build, length, options.repeats) for length in LENGTHS}
        for name, build in BACKBONES.items()
    }
    entry = {
        "dim": DIM,
        "threads": options.threads,
        "torch": torch.__version__,
        "median_milliseconds_of_one_history": milliseconds,
    }
    record(options.results, "cpu", entry)
    print(json.dumps(entry, indent=2))


@torch.no_grad()
def measured(build: Callable[[], ContinuingBackbone], length: int, repeats: int) -> dict[str, float]:
    torch.manual_seed(0)
    backbone, events = build().eval(), torch.randn(length, DIM)
    past, new, whole = (Sequences.pack([[0] * n]) for n in (length - 1, 1, length))
    _, memory = backbone.proceed(events[:-1], past, None)
    return {
        "one more event": median(lambda: backbone.proceed(events[-1:], new, memory), repeats),
        "the whole history": median(lambda: backbone(events, whole), repeats),
    }


def median(work: Callable[[], object], repeats: int) -> float:
    taken = []
    for _ in range(repeats + 2):
        began = time.perf_counter()
        work()
        taken.append(1000 * (time.perf_counter() - began))
    return statistics.median(taken[2:])


if __name__ == "__main__":
    main()
