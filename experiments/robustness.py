"""The study of robustness: a recipe on clean and on poisoned data, with and without each defence, resumable.

See experiments/README.md for the commands. It takes days on two cores: every cell is a training of the recipe.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterable
from pathlib import Path

import yaml
from quality import seqrec

from seqrec.training.record import write

HERE = Path(__file__).parent
CONFIGS = HERE.parent / "configs"
ATTACKS = ("Random", "Bandwagon", "ProfileCopy", "DP", "Rev", "LokiLike")
BUDGETS = (0.01, 0.03)
# The config of each defence, whether it reads texts, and what else its reweighter is told.
DEFENCES = {
    "lorec": ("study/lorec.yaml", True, {"sees": "fit"}),
    "lorec-by-states": ("study/lorec.yaml", True, {}),
    "lorec-without-texts": ("study/lorec.yaml", False, {}),
    "lorec-without-agreement": ("study/lorec.yaml", True, {"sees": "fit", "knowledge_weight": 0.0}),
    "lorec-without-entropy": ("study/lorec.yaml", True, {"sees": "fit", "entropy_weight": 0.0}),
    "text-detector": ("plugin/detector.yaml", True, {}),
    "isolation-forest": ("plugin/isolation-forest.yaml", False, {}),
    "adversarial": ("plugin/adversarial.yaml", False, {}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="amazon-beauty", help="a prepared data set, by name")
    parser.add_argument("--model", default="sasrec", help="a recipe for it, as in configs/recipe/MODEL-DATA.yaml")
    parser.add_argument(
        "--with", dest="refined", type=Path, nargs="+", default=[], help="configs that refine the recipe, in order"
    )
    parser.add_argument("--prepared", type=Path, help="where the data set lies; by default data/prepared/DATA")
    parser.add_argument("--vectors", type=Path, required=True, help="text vectors of its items")
    parser.add_argument("--attacks", nargs="+", default=ATTACKS)
    parser.add_argument("--budgets", nargs="+", type=float, default=BUDGETS)
    parser.add_argument("--defences", nargs="+", default=list(DEFENCES), choices=DEFENCES)
    parser.add_argument("--seeds", nargs="+", type=int, default=(1, 2, 3))
    parser.add_argument("--runs", type=Path, default=Path("runs/robustness"), help="folder for the runs themselves")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "robustness")
    options = parser.parse_args()
    name = "+".join([f"{options.data}-{options.model}", *(config.stem for config in options.refined)])
    out, kept = options.runs / name, options.results / name
    if (kept / "results").is_dir():  # done on this machine or on another
        shutil.copytree(kept / "results", out / "results", dirs_exist_ok=True)
    recipe = CONFIGS / "recipe" / f"{options.model}-{options.data.removeprefix('amazon-')}.yaml"
    try:
        seqrec(
            "robustness",
            f"--data={options.prepared or Path('data/prepared') / options.data}",
            f"--model={_list([recipe, *options.refined])}",
            f"--attacks={_list(options.attacks)}",
            f"--budgets={_list(options.budgets)}",
            f"--seeds={_list(options.seeds)}",
            f"--defences={_list(defences(options.defences, out / 'defences', options.vectors))}",
            f"--out={out}",
        )
    finally:  # what was finished is kept, even when it was stopped
        if (out / "results").is_dir():
            shutil.copytree(out / "results", kept / "results", dirs_exist_ok=True)
    for report in ("robustness.md", "robustness.svg"):
        shutil.copy(out / report, kept / report)


def defences(names: list[str], folder: Path, vectors: Path) -> list[Path]:
    """Configs of the defences, told where the texts are if they read them."""
    made = []
    for name in names:
        source, reads_texts, settings = DEFENCES[name]
        config = yaml.safe_load((CONFIGS / source).read_text())
        if reads_texts or settings:
            told = {"vectors": str(vectors)} if reads_texts else {}
            config["model"]["reweighter"]["init_args"].update(told | settings)
        made.append(folder / f"{name}.yaml")
        write(made[-1], yaml.safe_dump(config))
    return made


def _list(values: Iterable[object]) -> str:
    """A list as the command reads it."""
    return f"[{','.join(map(str, values))}]"


if __name__ == "__main__":
    main()
