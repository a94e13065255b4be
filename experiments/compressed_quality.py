"""Trains a config on whole histories, on their recent part alone, and on tokens that compress what is older.

What tokens are worth is the share of the NDCG@10 between recent events alone and whole histories that they win back.
One file per run is kept; a run that was stopped goes on where it was. See experiments/README.md.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import polars as pl
import torch
import yaml
from quality import once
from rich.console import Console
from rich.table import Table

from seqrec.board.statistics import Draws
from seqrec.data.errors import InputError
from seqrec.evaluation.metrics import ndcg
from seqrec.training.record import write

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", type=Path, nargs="+", help="configs that together say all, of a causal backbone")
    parser.add_argument("--older", type=int, default=150, help="events that tokens compress")
    parser.add_argument("--recent", type=int, default=50, help="newest events, which are read themselves")
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="such as trainer.max_epochs=12")
    parser.add_argument("--runs", type=Path, default=Path("runs/compressed"), help="folder for the runs themselves")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "compressed")
    options = parser.parse_args()
    parts = ["recent", "whole", *(f"{k}-tokens" for k in options.tokens)]
    show({part: [gains(options, part, seed) for seed in options.seeds] for part in parts})


def gains(options: argparse.Namespace, part: str, seed: int) -> pl.DataFrame:
    """NDCG@10 of each user of one run, trained and tested first where it is not there yet."""
    config = stacked(options.configs)
    name = f"{Path(config['data']['prepared']).name}-{options.configs[-1].stem}-{options.older}-{options.recent}"
    folder, kept = (place / name / f"{part}-seed{seed}" for place in (options.runs, options.results))
    stack = folder / "stack.yaml"
    write(stack, yaml.safe_dump(changed(config, part, options), sort_keys=False))
    settings = [f"--{setting}" for setting in options.set]
    once([f"--config={stack}", f"--run={folder}", f"--seed_everything={seed}", *settings], folder, kept / "result.json")
    ranks = pl.read_parquet(kept / "ranks.parquet").sort("user")
    gain = ndcg(torch.from_numpy(ranks["rank"].to_numpy().copy()), 10).numpy()
    return ranks.select("user").with_columns(gain=gain)


def changed(config: dict, part: str, options: argparse.Namespace) -> dict:
    """The config that reads one part, or compresses what is older, with room for all events in every part."""
    make_room(config.get("model"), options.older + options.recent)
    config["data"]["max_length"] = options.recent if part == "recent" else options.older + options.recent
    if part.endswith("-tokens"):
        arguments = config["model"]["recommender"]["init_args"]
        sizes = {"n_tokens": int(part.partition("-")[0]), "n_recent": options.recent}
        arguments["backbone"] = {
            "class_path": "seqrec.backbones.compressed.Compressed",
            "init_args": {"inner": arguments["backbone"], **sizes},
        }
    return config


def make_room(part: object, events: int) -> None:
    """Raise what positions, and the divisor of HSTU, have room for."""
    if isinstance(part, list):
        for each in part:
            make_room(each, events)
    if isinstance(part, dict):
        for key, value in part.items():
            if key == "max_length" and isinstance(value, int):
                part[key] = max(value, events)
            make_room(value, events)


def stacked(paths: list[Path]) -> dict:
    """Several configs as one, later ones refining earlier."""
    whole: dict = {}
    for path in paths:
        merge(whole, yaml.safe_load(path.read_text()))
    return whole


def merge(into: dict, other: dict) -> None:
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value


def show(runs: dict[str, list[pl.DataFrame]]) -> None:
    """Means over seeds, and the share of the gap with the interval of drawing the users anew."""
    users = runs["recent"][0]["user"].to_numpy()
    rows = {part: np.mean([run["gain"].to_numpy() for run in seeds], axis=0) for part, seeds in runs.items()}
    drawn = dict(zip(rows, Draws(np.stack(list(rows.values())), users).drawn.T, strict=True))
    gap, gaps = rows["whole"].mean() - rows["recent"].mean(), drawn["whole"] - drawn["recent"]
    table = Table("", "NDCG@10", "sd over seeds", "share of the gap", "95 % interval")
    for part, values in rows.items():
        spread = (
            np.std([run["gain"].to_numpy().mean() for run in runs[part]], ddof=1) if len(runs[part]) > 1 else np.nan
        )
        low, high = np.quantile((drawn[part] - drawn["recent"]) / gaps, [0.025, 0.975])
        share = f"{(values.mean() - rows['recent'].mean()) / gap:.2f}"
        table.add_row(part, f"{values.mean():.4f}", f"{spread:.4f}", share, f"{low:.2f} to {high:.2f}")
    Console().print(table)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        print(f"compressed_quality: error: {error}", file=sys.stderr)
        sys.exit(2)
