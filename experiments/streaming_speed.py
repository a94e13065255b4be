"""Times one more event, read from what a backbone remembers, beside reading the whole history again.

See experiments/README.md for the command. Run it alone on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path

import torch
from prepare_scale import record
from timing import in_turn

from seqrec.backbones.base import ContinuingBackbone
from seqrec.backbones.gru4rec import GRU4Rec
from seqrec.backbones.hmamba import HMamba
from seqrec.backbones.hstu import HSTU
from seqrec.backbones.ligr import LiGR
from seqrec.backbones.mamba4rec import Block, Mamba4Rec
from seqrec.backbones.sasrec import SASRec
from seqrec.backbones.sigma import CausalSIGMA
from seqrec.sequences import Sequences

HERE = Path(__file__).parent
DIM = 64
BACKBONES: dict[str, Callable[[], ContinuingBackbone]] = {
    "SASRec": lambda: SASRec(DIM, n_layers=2, n_heads=2),
    "LiGR": lambda: LiGR(DIM, n_layers=2, n_heads=2),
    "HSTU": lambda: HSTU(DIM, n_layers=2, n_heads=2),
    "GRU4Rec": lambda: GRU4Rec(DIM),
    "Mamba4Rec": lambda: Mamba4Rec(DIM),
    "Mamba4Rec, Mamba-2": lambda: Mamba4Rec(DIM, block=Block.mamba2),
    "SIGMA, causal": lambda: CausalSIGMA(DIM),
    "HMamba": lambda: HMamba(DIM),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[50, 200, 2000])
    parser.add_argument("--repeats", type=int, default=31)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--results", type=Path, default=HERE / "results" / "streaming_speed.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    entry = {
        "dim": DIM,
        "threads": options.threads,
        "torch": torch.__version__,
        "median_milliseconds_of_one_history": measured(options.lengths, options.repeats),
    }
    record(options.results, "cpu", entry)
    print(json.dumps(entry, indent=2))


@torch.no_grad()
def measured(lengths: list[int], repeats: int) -> dict[str, dict[int, dict[str, float]]]:
    """Of every backbone at every length, all of them in turn."""
    ways: dict[tuple[str, int, str], Callable[[], object]] = {}
    for (name, build), length in product(BACKBONES.items(), lengths):
        torch.manual_seed(0)
        backbone, events = build().eval(), torch.randn(length, DIM)
        past, new, whole = (Sequences.pack([[0] * n]) for n in (length - 1, 1, length))
        _, memory = backbone.proceed(events[:-1], past, None)
        ways[name, length, "one more event"] = partial(backbone.proceed, events[-1:], new, memory)
        ways[name, length, "the whole history"] = partial(backbone, events, whole)
    found: dict[str, dict[int, dict[str, float]]] = {name: {length: {} for length in lengths} for name in BACKBONES}
    for (name, length, way), seconds in in_turn(ways, repeats, rehearse=True).items():
        found[name][length][way] = 1000 * statistics.median(seconds)
    return found


if __name__ == "__main__":
    main()
