"""Holds a model that reads the whole history, and one that reads its recent part alone, against the oracles of both.

See experiments/README.md for the command.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from prepare_scale import record
from quality import seqrec

from seqrec.data.card import Card
from seqrec.data.simulated_taste import SimulatedLongTaste
from seqrec.evaluation.meter import Meter

HERE = Path(__file__).parent
DATA = "simulated-long-taste"
SHOWN = ("recall@10", "ndcg@10")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="a config of a model, such as configs/model/sasrec.yaml")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--learning-rate", type=float, default=0.003)
    parser.add_argument("--runs", type=Path, default=Path("runs/long-taste"), help="folder for the runs themselves")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "long_taste.json")
    options = parser.parse_args()
    source = Card.load(DATA).source()
    assert isinstance(source, SimulatedLongTaste)
    seqrec("prepare", DATA)
    entry: dict[str, object] = {"epochs": options.epochs, "learning_rate": options.learning_rate}
    for part, length in (("all events", source.older + source.recent), ("recent events", source.recent)):
        knows_old = length > source.recent
        entry[part] = {
            "expected of the oracle": expected(source, knows_old),
            "oracle": oracle(source, knows_old),
            "model": trained(options, length),
        }
    record(options.results, options.config.stem, entry)
    print(json.dumps(entry, indent=2))


def expected(source: SimulatedLongTaste, knows_old: bool) -> dict[str, float]:
    """What the best possible ranking reaches on average over all targets that might have been drawn."""
    best = -np.sort(-source.oracle_distributions(knows_old=knows_old), axis=1)[:, :10]
    gains = best / np.log2(np.arange(10) + 2)
    return {name: float(values.sum(axis=1).mean()) for name, values in zip(SHOWN, (best, gains), strict=True)}


def oracle(source: SimulatedLongTaste, knows_old: bool) -> dict[str, float]:
    """What the best possible ranking reaches on the targets that were drawn."""
    meter = Meter((10,))
    meter.update(torch.from_numpy(source.oracle_ranks(knows_old=knows_old)["rank"].to_numpy()).long())
    reached = meter.compute()
    return {name: reached[name] for name in SHOWN}


def trained(options: argparse.Namespace, length: int) -> dict[str, float]:
    """What the best epoch on validation reaches in the test."""
    folder = options.runs / f"{options.config.stem}-{length}"
    stack = ["--config=configs/data/long-taste.yaml", f"--config={options.config}", f"--data.max_length={length}"]
    learns = [f"--trainer.max_epochs={options.epochs}", f"--model.learning_rate={options.learning_rate}"]
    seqrec("fit", *stack, *learns, f"--run={folder}")
    seqrec("test", f"--run={folder}")
    metrics = json.loads((folder / "result.json").read_text())["metrics"]
    return {name: metrics[name] for name in SHOWN}


if __name__ == "__main__":
    main()
