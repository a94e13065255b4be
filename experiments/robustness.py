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

from seqrec.data.poisoning import poison
from seqrec.training.record import write

HERE = Path(__file__).parent
CONFIGS = HERE.parent / "configs"
ATTACKS = [attack.__name__ for attack in poison.ATTACKS]
BUDGETS = (0.01, 0.03)
# The config of each defence, whether it reads texts, and what else its reweighter is told. `lorec` is ours, which looks
# at how texts fit, with what it is without two of its losses; `lorec-by-states` is that of the paper, with and without
# texts.
DEFENCES = {
    "lorec": ("study/lorec.yaml", True, {"sees": "fit"}),
    "lorec-without-agreement": ("study/lorec.yaml", True, {"sees": "fit", "knowledge_weight": 0.0}),
    "lorec-without-entropy": ("study/lorec.yaml", True, {"sees": "fit", "entropy_weight": 0.0}),
    "lorec-by-states": ("study/lorec.yaml", True, {}),
    "lorec-without-texts": ("study/lorec.yaml", False, {}),
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
    parser.add_argument("--any-code", action="store_true", help="also take what another version of the code made")
    options = parser.parse_args()
    name = "+".join([f"{options.data}-{options.model}", *(config.stem for config in options.refined)])
    out, kept = options.runs / name, options.results / name
    copy_missing(kept / "results", out / "results")  # done on this machine or on another
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
            *(["--any_code=true"] if options.any_code else []),
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


def copy_missing(source: Path, folder: Path) -> None:
    """Copy the results that a folder lacks."""
    for path in source.glob("*.json"):
        if not (folder / path.name).exists():
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder)


def _list(values: Iterable[object]) -> str:
    """A list as the command reads it."""
    return f"[{','.join(map(str, values))}]"


if __name__ == "__main__":
    main()
