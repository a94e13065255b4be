"""Trains a config on whole histories, on their recent part alone, and on tokens that compress what is older.

What tokens are worth is the share of the NDCG@10 between recent events alone and whole histories that they win back.
One file per run is kept; a run that was stopped goes on where it was. See experiments/README.md.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import yaml
from quality import seqrec
from rich.console import Console
from rich.table import Table

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
    figures = {part: [result(options, part, seed)["metrics"]["ndcg@10"] for seed in options.seeds] for part in parts}
    show(figures)


def result(options: argparse.Namespace, part: str, seed: int) -> dict:
    """What one run reached, trained and tested first where it is not there yet."""
    config = stacked(options.configs)
    name = f"{Path(config['data']['prepared']).name}-{options.configs[-1].stem}-{options.older}-{options.recent}"
    kept, folder = options.results / name / f"{part}-seed{seed}.json", options.runs / name / f"{part}-seed{seed}"
    if not kept.is_file():
        if not (folder / "fit.json").is_file():
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "stack.yaml").write_text(yaml.safe_dump(changed(config, part, options), sort_keys=False))
            goes_on = ["--ckpt_path=last"] if (folder / "checkpoints" / "last.ckpt").is_file() else []
            settings = [f"--{setting}" for setting in options.set]
            own = [f"--config={folder / 'stack.yaml'}", f"--run={folder}", f"--seed_everything={seed}"]
            seqrec("fit", *own, *settings, *goes_on)
        seqrec("test", f"--run={folder}")
        found = json.loads((folder / "result.json").read_text())
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.with_suffix(".tmp").write_text(json.dumps(found, indent=2) + "\n")
        kept.with_suffix(".tmp").replace(kept)
    return json.loads(kept.read_text())


def changed(config: dict, part: str, options: argparse.Namespace) -> dict:
    """The config that reads one part, or compresses what is older."""
    config["data"]["max_length"] = options.recent if part == "recent" else options.older + options.recent
    if part.endswith("-tokens"):
        arguments = config["model"]["recommender"]["init_args"]
        sizes = {"n_tokens": int(part.partition("-")[0]), "n_recent": options.recent}
        arguments["backbone"] = {
            "class_path": "seqrec.backbones.compressed.Compressed",
            "init_args": {"inner": arguments["backbone"], **sizes},
        }
    return config


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


def show(figures: dict[str, list[float]]) -> None:
    means = {part: sum(values) / len(values) for part, values in figures.items()}
    gap = means["whole"] - means["recent"]
    table = Table("", "NDCG@10", "share of the gap")
    for part, mean in means.items():
        table.add_row(part, f"{mean:.4f}", f"{(mean - means['recent']) / gap:.2f}" if gap > 0 else "no gap")
    Console().print(table)


if __name__ == "__main__":
    main()
