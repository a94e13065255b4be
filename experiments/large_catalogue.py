"""Trains on a catalogue of a million items, with the full softmax and with a sampled one, and records the peak memory.

The log is drawn at random, so nothing can be learnt from it; what counts is that it fits. See experiments/README.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import torch
from prepare_scale import generate, record

from seqrec.data.prepare import prepare_log
from seqrec.data.sources import Table

HERE = Path(__file__).parent
MODEL = HERE.parent / "configs" / "model" / "sasrec.yaml"
OBJECTIVES = {
    "full softmax": ["--model.objective=seqrec.objectives.softmax.FullSoftmax"],
    "sampled softmax": [
        "--model.objective=seqrec.objectives.sampled.SampledSoftmax",
        "--model.objective.negatives=seqrec.objectives.negatives.Uniform",
    ],
}


def main() -> None:
    options = parse()
    options.scratch.mkdir(parents=True, exist_ok=True)
    table, prepared = options.scratch / "large.parquet", options.scratch / "large"
    if not table.exists():
        generate(table, options.rows, options.users, options.items, seed=0)
    n_items = len(prepare_log(Table(table), prepared, origin=table.name).catalog)
    figures = {name: train(options, prepared, name, arguments) for name, arguments in OBJECTIVES.items()}
    entry = {"items": n_items, "rows": options.rows, "steps": options.steps, "dim": 64, "torch": torch.__version__}
    record(options.results, str(options.items), {**entry, "polars": pl.__version__, "figures": figures})
    print(json.dumps(figures, indent=2))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, required=True, help="folder for the log, the arrays and the runs")
    parser.add_argument("--items", type=int, default=1_100_000, help="items to draw from; rare ones stay undrawn")
    parser.add_argument("--users", type=int, default=400_000)
    parser.add_argument("--rows", type=int, default=12_000_000)
    parser.add_argument("--steps", type=int, default=20, help="training steps of each objective")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "large_catalogue.json")
    return parser.parse_args()


def train(options: argparse.Namespace, prepared: Path, name: str, arguments: list[str]) -> dict[str, float]:
    """What a fit of some steps, with one batch of validation, says of itself."""
    run = options.scratch / name.replace(" ", "-")
    shutil.rmtree(run, ignore_errors=True)
    limits = [
        f"--trainer.{name}" for name in ("max_epochs=1", f"limit_train_batches={options.steps}", "precision=bf16-mixed")
    ]
    command = ["fit", f"--config={MODEL}", *arguments, f"--data.prepared={prepared}", f"--run={run}", *limits]
    subprocess.run([sys.executable, "-m", "seqrec.cli", *command, "--trainer.limit_val_batches=1"], check=True)
    fitted = json.loads((run / "fit.json").read_text())
    return {
        "peak_gib": round(fitted["peak_memory_bytes"] / 2**30, 3),
        "events_per_second": fitted["events_per_second"],
        "wall_seconds": fitted["wall_seconds"],
    }


if __name__ == "__main__":
    main()
