"""Trains a config with every way of reading texts, on all items and with a tenth withheld, and keeps the results.

Each run leaves one file: figures over all test targets, by how often the target was bought (fifths of the targets), and
for items that training never saw. Runs go on where they were stopped. See experiments/README.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import polars as pl
import torch
import yaml
from kept_configs import demand_same
from quality import seqrec

from seqrec.data.errors import InputError
from seqrec.evaluation import metrics

HERE = Path(__file__).parent
PLUGINS = HERE.parent / "configs" / "plugin"
VARIANTS = ["ids", *sorted(path.stem for path in PLUGINS.glob("text-*.yaml"))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="a config that says all, such as configs/recipe/sasrec-beauty.yaml")
    parser.add_argument("--vectors", type=Path, required=True, help="text vectors of all its items, by raw id")
    parser.add_argument("--variants", nargs="+", default=VARIANTS, choices=VARIANTS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--runs", type=Path, default=Path("runs/fusion"), help="folder for the runs themselves")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "fusion")
    options = parser.parse_args()
    prepared = Path(yaml.safe_load(options.config.read_text())["data"]["prepared"])
    withheld = prepared.with_name(f"{prepared.name}-cold")
    if not withheld.exists():
        seqrec("withhold", f"--data={prepared}", f"--out={withheld}")
    for seed in options.seeds:
        for variant in options.variants:
            kept = options.results / prepared.name / options.config.stem / f"{variant}-seed{seed}.json"
            if kept.is_file():
                demand_same(kept, "--results", told(options, variant, seed, prepared))
            else:
                measured = measure(options, variant, seed, prepared, withheld)
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.with_suffix(".tmp").write_text(json.dumps(measured, indent=2) + "\n")
                kept.with_suffix(".tmp").replace(kept)
            print(kept, json.dumps(json.loads(kept.read_text())["metrics"]))


def measure(options: argparse.Namespace, variant: str, seed: int, prepared: Path, withheld: Path) -> dict:
    """The figures of one variant with one seed."""
    beside = options.runs / prepared.name / options.config.stem
    folders = {name: beside / f"{variant}-seed{seed}-{name}" for name in ("all", "cold")}
    for folder, data in zip(folders.values(), (prepared, withheld), strict=True):
        train(options, variant, seed, folder, data)
    result = json.loads((folders["all"] / "result.json").read_text())
    ranks = pl.read_parquet(folders["all"] / "ranks.parquet")
    cold = None
    if variant not in ("ids", "text-initial"):  # these make nothing of the text of a new item
        seqrec("cold", f"--run={folders['cold']}", f"--vectors={options.vectors}")
        cold = json.loads((folders["cold"] / "cold.json").read_text())
    kept = ("metrics", "validation", "passport", "seed", "commit", "parameters", "wall_seconds", "epochs", "config")
    return {
        "variant": variant,
        **{name: result[name] for name in kept},
        "by_frequency": by_frequency(ranks),
        "cold": cold,
    }


def train(options: argparse.Namespace, variant: str, seed: int, folder: Path, data: Path) -> None:
    arguments = told(options, variant, seed, data)
    if (folder / "config.yaml").is_file():
        demand_same(folder / "config.yaml", "--runs", arguments)
    if not (folder / "fit.json").is_file():
        goes_on = ["--ckpt_path=last"] if (folder / "checkpoints" / "last.ckpt").is_file() else []
        seqrec("fit", *arguments, f"--run={folder}", *goes_on)
    if not (folder / "result.json").is_file():
        seqrec("test", f"--run={folder}")


def told(options: argparse.Namespace, variant: str, seed: int, data: Path) -> list[str]:
    """What `seqrec fit` is told of a variant."""
    configs = [options.config, *([] if variant == "ids" else [PLUGINS / f"{variant}.yaml"])]
    inside = "" if variant in ("ids", "text-adapter", "text-frozen", "text-initial") else "text.init_args."
    at = f"--model.recommender.init_args.embedding.init_args.{inside}vectors={options.vectors}"
    stack = [*(f"--config={config}" for config in configs), *([] if variant == "ids" else [at])]
    return [*stack, f"--data.prepared={data}", f"--seed_everything={seed}"]


def by_frequency(ranks: pl.DataFrame) -> list[dict]:
    """Figures for each fifth of the targets, from those bought least often in training to those bought most."""
    counts = ranks["popularity"].to_numpy()
    order = np.argsort(counts, kind="stable")
    fifths = []
    for part in np.array_split(order, 5):
        these = torch.from_numpy(ranks["rank"].to_numpy()[part].astype(np.int64))
        fifths.append(
            {
                "counts": [int(counts[part].min()), int(counts[part].max())],
                "targets": len(part),
                "recall@10": round(metrics.recall(these, 10).mean().item(), 6),
                "ndcg@10": round(metrics.ndcg(these, 10).mean().item(), 6),
            }
        )
    return fifths


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        print(f"fusion: error: {error}", file=sys.stderr)
        sys.exit(2)
