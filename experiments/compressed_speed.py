"""Time and memory of a request of compressed user tokens beside reading the recent events alone and the whole history.

Every way makes the state of the newest event alone, as requests do.

See experiments/README.md for the command. Run it alone on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from prepare_scale import record
from streaming_speed import DIM
from timing import in_turn, peak_bytes

from seqrec.backbones.base import ContinuingBackbone
from seqrec.backbones.compressed import Compressed
from seqrec.backbones.hstu import HSTU
from seqrec.backbones.ligr import LiGR
from seqrec.backbones.sasrec import SASRec
from seqrec.sequences import Sequences

HERE = Path(__file__).parent
WINDOWS = {"150/50": (150, 50), "400/100": (400, 100), "2000/100": (2000, 100)}
TOKENS = (1, 2, 4, 8, 16)
INNER: dict[str, Callable[[], ContinuingBackbone]] = {
    "SASRec": lambda: SASRec(DIM, n_layers=2, n_heads=2),
    "LiGR": lambda: LiGR(DIM, n_layers=2, n_heads=2),
    "HSTU": lambda: HSTU(DIM, n_layers=2, n_heads=2),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=64, help="histories of one request")
    parser.add_argument("--repeats", type=int, default=25)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--results", type=Path, default=HERE / "results" / "compressed_speed.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    figures = {
        name: {window: measured(build, *lengths, options.users, options.repeats) for window, lengths in WINDOWS.items()}
        for name, build in INNER.items()
    }
    entry = {
        "dim": DIM,
        "users": options.users,
        "threads": options.threads,
        "torch": torch.__version__,
        "figures": figures,
    }
    record(options.results, "cpu", entry)
    print(json.dumps(entry, indent=2))


@torch.no_grad()
def measured(
    build: Callable[[], ContinuingBackbone], older: int, recent: int, users: int, repeats: int
) -> dict[str, object]:
    """Milliseconds and peak bytes of a request of all users, and the bytes that are remembered of one."""
    torch.manual_seed(0)
    events = torch.randn(users, older + recent, DIM)
    alone, whole = events[:, older:].flatten(0, 1), events.flatten(0, 1)
    new, every, old = (Sequences.pack([[0] * n] * users) for n in (recent, older + recent, older))
    plain = build().eval()
    ways: dict[str, Callable[[], object]] = {"recent events alone": lambda: plain.states_at(alone, new, new.newest)}
    remembered = {}
    for k in TOKENS:
        backbone = Compressed(build(), n_tokens=k, n_recent=recent).eval()
        _, memory = backbone.remember(events[:, :older].flatten(0, 1), old)
        ways[f"{k} tokens"] = lambda b=backbone, m=memory: b.proceed_at(alone, new, new.newest, m)
        remembered[k] = sum(tensor[0].nbytes for tensor in backbone.stored(memory).values())
    taken = in_turn(ways, repeats)
    ways["whole history"] = lambda: plain.states_at(whole, every, every.newest)
    taken |= in_turn({"whole history": ways["whole history"]}, max(3, repeats // 5))
    held = {name: peak_bytes(work) for name, work in ways.items()}
    # Of each round its ratio, so that a slow moment of the machine weighs on both sides of it.
    own = taken["recent events alone"]
    shares = {name: statistics.median(a / b for a, b in zip(each, own, strict=False)) for name, each in taken.items()}
    return {
        "median_milliseconds": {name: round(1000 * statistics.median(each), 3) for name, each in taken.items()},
        "times_recent_events_alone": {name: round(share, 3) for name, share in shares.items()},
        "peak_bytes": held,
        "peak_bytes_times_recent_events_alone": {
            name: round(each / held["recent events alone"], 3) for name, each in held.items()
        },
        "bytes_remembered_of_a_user": remembered,
    }


if __name__ == "__main__":
    main()
