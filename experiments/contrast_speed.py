"""Measures what a step of training costs with SRA-CL stacked on a model, beside the same step without it.

Both train the same prefixes in turns; the figure is the ratio of their events per second, the median over the turns.
By passes of the encoder alone it would be 14 (history, history once more, 10 neighbours, 2 views), and more where
neighbours are longer than histories. See experiments/README.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

HERE = Path(__file__).parent
PLUGIN = HERE.parent / "configs" / "plugin" / "sra_cl.yaml"
PREFIXES = [
    *("--data.supervision=seqrec.data.supervision.EveryPrefix", "--data.max_length=20"),
    *("--data.events_per_batch=1700", "--data.mixes_lengths=true", "--trainer.max_epochs=1"),
    *("--trainer.limit_val_batches=1", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "configs", type=Path, nargs="+", help="complete configs, such as configs/recipe/sasrec-beauty.yaml"
    )
    parser.add_argument("--steps", type=int, default=100, help="steps of a turn")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--results", type=Path, default=HERE / "results" / "contrast_speed.json")
    options = parser.parse_args()
    measured = {}
    for config in options.configs:
        turns = [(speed(config, options.steps), speed(config, options.steps, PLUGIN)) for _ in range(options.turns)]
        plain, contrast = (statistics.median(each) for each in zip(*turns, strict=True))
        measured[config.stem] = {
            "events_per_second": {"plain": plain, "contrast": contrast},
            "step_ratio": round(statistics.median(one / other for one, other in turns), 2),
            "turns": turns,
        }
        print(f"{config.stem}: a step with SRA-CL takes {measured[config.stem]['step_ratio']} times the plain one")
    result = {
        "steps": options.steps,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "models": measured,
    }
    unfinished = options.results.with_suffix(".tmp")
    unfinished.write_text(json.dumps(result, indent=2) + "\n")
    unfinished.replace(options.results)


def speed(config: Path, steps: int, plugin: Path | None = None) -> float:
    """Events of histories per second of training."""
    stack = [f"--config={each}" for each in (config, plugin) if each is not None]
    with tempfile.TemporaryDirectory() as folder:
        limits = [f"--run={folder}", f"--trainer.limit_train_batches={steps}"]
        subprocess.run([sys.executable, "-m", "seqrec.cli", "fit", *stack, *PREFIXES, *limits], check=True)
        return json.loads((Path(folder) / "fit.json").read_text())["events_per_second"]


if __name__ == "__main__":
    main()
