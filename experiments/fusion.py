"""Trains a config with every way of reading texts, on all items and with a tenth withheld, and keeps the results.

Each leaves the result and the ranks of its users, as any run, and beside them `texts.json`: figures by how often the
target was bought (fifths of the targets), and for items that training never saw. Runs go on where they were stopped.
See experiments/README.md.
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
from quality import once, seqrec

from seqrec.data.errors import InputError
from seqrec.evaluation import metrics
from seqrec.training.record import write

HERE = Path(__file__).parent
PLUGINS = HERE.parent / "configs" / "plugin"
WITHOUT_TEXT = ("ids", "text-initial")  # these make nothing of the text of a new item
FUSIONS = ("text-concat", "text-fade", "text-gate", "text-sum")  # the text of these is a part of the embedding
VARIANTS = ["ids", *sorted(path.stem for path in PLUGINS.glob("text-*.yaml"))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="a config that says all, such as configs/recipe/sasrec-beauty.yaml")
    parser.add_argument(
        "--with", dest="refined", type=Path, nargs="+", default=[], help="configs that refine it, in order"
    )
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
            place = Path(prepared.name) / named(options) / f"{variant}-seed{seed}"
            print(place, json.dumps(measure(options, variant, seed, prepared, withheld, place)))


def named(options: argparse.Namespace) -> str:
    """The configs that are the same for all variants."""
    return "+".join(config.stem for config in [options.config, *options.refined])


def measure(
    options: argparse.Namespace, variant: str, seed: int, prepared: Path, withheld: Path, place: Path
) -> dict[str, float]:
    """The figures of one variant with one seed, made first where they are not there yet."""
    run, kept = options.runs / place, options.results / place
    stack = told(options, variant, seed, prepared)
    result = once([*stack, f"--run={run}"], run, kept / "result.json")
    if not (kept / "texts.json").is_file():
        cold = None if variant in WITHOUT_TEXT else asked_for_new_items(options, variant, seed, withheld)
        found = {"by_frequency": by_frequency(pl.read_parquet(kept / "ranks.parquet")), "cold": cold}
        write(kept / "texts.json", json.dumps(found, indent=2) + "\n")
    return result["metrics"]


def asked_for_new_items(options: argparse.Namespace, variant: str, seed: int, withheld: Path) -> dict:
    """What a run on the other items makes of those that were withheld."""
    run = options.runs / withheld.name / f"{named(options)}-{variant}-seed{seed}"
    stack = [*told(options, variant, seed, withheld), f"--run={run}"]
    once(stack, run, run / "kept" / "result.json")
    seqrec("cold", f"--run={run}", f"--vectors={options.vectors}")
    return json.loads((run / "cold.json").read_text())


def told(options: argparse.Namespace, variant: str, seed: int, data: Path) -> list[str]:
    """What `seqrec fit` is told of a variant."""
    configs = [options.config, *options.refined, *([] if variant == "ids" else [PLUGINS / f"{variant}.yaml"])]
    inside = "text.init_args." if variant in FUSIONS else ""
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
