"""Trains a config with several seeds, tests the best epoch of each on validation, and keeps the results.

A run that was stopped goes on where it was, and one that is done is not repeated; neither with another config than it
was begun with. See experiments/README.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

from kept_configs import demand_same

from seqrec.data.errors import InputError

HERE = Path(__file__).parent
SHOWN = ("recall@10", "ndcg@10", "recall@20", "ndcg@20")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="a config that says all, such as configs/recipe/sasrec-beauty.yaml")
    parser.add_argument(
        "--with", dest="plugins", type=Path, nargs="+", default=[], help="configs that refine it, in order"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--runs", type=Path, default=Path("runs/quality"), help="folder for the runs themselves")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "quality")
    options = parser.parse_args()
    measured = [run(options, seed)["metrics"] for seed in options.seeds]
    what = " + ".join(map(str, [options.config, *options.plugins]))
    for name in SHOWN:
        values = [metrics[name] for metrics in measured]
        spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
        print(f"{what}: {name} {statistics.mean(values):.4f}{spread} over {len(values)} seeds")


def run(options: argparse.Namespace, seed: int) -> dict:
    """The result of one seed, trained and tested first where it is not there yet."""
    stack = [options.config, *options.plugins]
    name = f"{options.config.parent.name}/{'+'.join(config.stem for config in stack)}-seed{seed}"
    folder, kept = options.runs / name, options.results / name / "result.json"
    told = [*(f"--config={config}" for config in stack), f"--run={folder}", f"--seed_everything={seed}"]
    return once(told, folder, kept)


def once(told: list[str], folder: Path, kept: Path) -> dict:
    """What is kept of a run, trained and tested first where it is not there yet; the ranks are kept beside it.

    Args:
        told: what `seqrec fit` is told.
        folder: of the run.
        kept: the `result.json` that is kept.
    """
    if kept.is_file():
        demand_same(kept, "--results", told)
    else:
        if (folder / "config.yaml").is_file():
            demand_same(folder / "config.yaml", "--runs", told)
        if not (folder / "fit.json").is_file():
            goes_on = ["--ckpt_path=last"] if (folder / "checkpoints" / "last.ckpt").is_file() else []
            seqrec("fit", *told, *goes_on)
        seqrec("test", f"--run={folder}")
        kept.parent.mkdir(parents=True, exist_ok=True)
        for left in ("ranks.parquet", "result.json"):
            unfinished = kept.with_name(f"{left}.tmp")
            shutil.copy(folder / left, unfinished)
            unfinished.replace(kept.with_name(left))
    return json.loads(kept.read_text())


def seqrec(*arguments: str) -> None:
    """Run a command, and end as it did where it failed: it has said why."""
    status = subprocess.run([sys.executable, "-m", "seqrec.cli", *arguments]).returncode
    if status:
        sys.exit(status)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        print(f"quality: error: {error}", file=sys.stderr)
        sys.exit(2)
