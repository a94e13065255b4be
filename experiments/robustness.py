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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="amazon-beauty", help="a prepared data set, by name")
    parser.add_argument("--model", default="sasrec", help="a recipe for it, as in configs/recipe/MODEL-DATA.yaml")
    parser.add_argument("--prepared", type=Path, help="where the data set lies; by default data/prepared/DATA")
    parser.add_argument("--vectors", type=Path, required=True, help="text vectors of its items")
    parser.add_argument("--attacks", nargs="+", default=ATTACKS)
    parser.add_argument("--budgets", nargs="+", type=float, default=BUDGETS)
    parser.add_argument("--seeds", nargs="+", type=int, default=(1, 2, 3))
    parser.add_argument("--runs", type=Path, default=Path("runs/robustness"), help="folder for the runs themselves")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "robustness")
    options = parser.parse_args()
    name = f"{options.data}-{options.model}"
    out = options.runs / name
    recipe = CONFIGS / "recipe" / f"{options.model}-{options.data.removeprefix('amazon-')}.yaml"
    seqrec(
        "robustness",
        f"--data={options.prepared or Path('data/prepared') / options.data}",
        f"--model=[{recipe}]",
        f"--attacks={_list(options.attacks)}",
        f"--budgets={_list(options.budgets)}",
        f"--seeds={_list(options.seeds)}",
        f"--defences={_list(defences(out / 'defences', options.vectors))}",
        f"--out={out}",
    )
    for left in ("results", "robustness.md", "robustness.svg"):
        kept = options.results / name / left
        kept.parent.mkdir(parents=True, exist_ok=True)
        if (out / left).is_dir():
            shutil.copytree(out / left, kept, dirs_exist_ok=True)
        else:
            shutil.copy(out / left, kept)


def defences(folder: Path, vectors: Path) -> list[Path]:
    """Configs of the defences, which are told where the texts are."""
    made = []
    for source in (CONFIGS / "study" / "lorec.yaml", CONFIGS / "plugin" / "text-detector.yaml"):
        config = yaml.safe_load(source.read_text())
        config["model"]["reweighter"]["init_args"]["vectors"] = str(vectors.absolute())
        made.append(folder / source.name)
        write(made[-1], yaml.safe_dump(config))
    return [*made, *(CONFIGS / "plugin" / f"{name}.yaml" for name in ("isolation-forest", "adversarial"))]


def _list(values: Iterable[object]) -> str:
    """A list as the command reads it."""
    return f"[{','.join(map(str, values))}]"


if __name__ == "__main__":
    main()
