"""One table and one picture of the finished runs of ``seqrec robustness``."""

from __future__ import annotations

import json
import warnings
from collections import defaultdict
from math import sqrt
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from seqrec.audit import canvas
from seqrec.data.errors import InputError
from seqrec.reproduction import LEFT_OUT
from seqrec.training.record import write

GENUINE = ("recall@10", "ndcg@10")
DETECTED = ("precision", "recall", "auc", "auc_same_length", "weight_of_fakes", "weight_of_genuine")
PLACES = (*LEFT_OUT, "prepared", "seed", "seed_everything")
Rows = dict[tuple[str, float, str], list[dict[str, Any]]]


def write_report(out: Path, targets: list[int]) -> None:
    """Write robustness.md and robustness.svg from the results of finished runs that look at these targets.

    Raises:
        InputError: no run is finished.
        ImportError: matplotlib is not installed.
    """
    found = {path: json.loads(path.read_text()) for path in sorted((out / "results").glob("*.json"))}
    results = _of_one_study({path: result for path, result in found.items() if result["targets"] == targets})
    if not results:
        raise InputError(f"{out / 'results'} holds no result; run `seqrec robustness --out {out}` first.")
    rows: Rows = defaultdict(list)
    for result in results:
        rows[result["attack"], result["budget"], result["defence"]].append(result)
    rows = dict(
        sorted(rows.items(), key=lambda row: (row[0][0] != "clean", row[0][1], row[0][0], row[0][2] != "none", row[0]))
    )
    write(out / "robustness.md", _page(rows))
    _draw(rows, out / "robustness.svg")
    print(f"{out / 'robustness.md'} and {out / 'robustness.svg'}: {len(results)} runs.")


def _of_one_study(results: dict[Path, dict[str, Any]]) -> list[dict[str, Any]]:
    """The results that can stand on one page with the one written last; of what is left out a warning says so."""
    newest_first = sorted(results, key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True)
    kept: list[Path] = []
    for path in newest_first:
        other = next((each for each in kept if not _agree(results[each], results[path])), None)
        if other is None:
            kept.append(path)
        else:
            warnings.warn(
                f"{path} is of another model, other data or other settings than {other.name}, so it is left out; "
                "remove it, or give each study an --out of its own.",
                stacklevel=2,
            )
    return [results[path] for path in results if path in kept]


def _agree(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two results differ in nothing but attack, budget, defence and seed."""
    from seqrec.lightning_cli import differing

    same_data = (one["attack"], one["budget"]) == (other["attack"], other["budget"])
    if same_data and one["passport"]["dataset"] != other["passport"]["dataset"]:
        return False
    configs = [_recipe(result["config"]) for result in (one, other)]
    if one["defence"] != other["defence"]:
        configs = [config["model"]["init_args"]["recommender"] for config in configs]
    elif one.get("files", {}) != other.get("files", one.get("files", {})):
        return False
    return not any(differing(*configs))


def _recipe(part: Any) -> Any:
    """A config without seeds and without what says where things lie."""
    if isinstance(part, dict):
        return {name: _recipe(value) for name, value in part.items() if name not in PLACES}
    return [_recipe(each) for each in part] if isinstance(part, list) else part


def interval(values: list[float]) -> float | None:
    """Half the width of the 95 % confidence interval of the mean; None for a single value."""
    if len(values) < 2:
        return None
    from scipy import stats

    return float(stats.t.ppf(0.975, len(values) - 1)) * stdev(values) / sqrt(len(values))


def _values(runs: list[dict[str, Any]], group: str, name: str) -> list[float]:
    return [run[group][name] for run in runs if run[group].get(name) is not None]


def _text(runs: list[dict[str, Any]], group: str, name: str, digits: int = 4) -> str:
    values = _values(runs, group, name)
    if not values:
        return "–"
    half = interval(values)
    some = "" if len(values) == len(runs) else f" ({len(values)} of {len(runs)})"
    return f"{mean(values):.{digits}f}" + ("" if half is None else f" ± {half:.{digits}f}") + some


def _page(rows: Rows) -> str:
    metrics = next(iter(rows.values()))[0]["metrics"]
    pushed = [name for name in metrics if name.startswith("t_")]
    header = ["attack", "budget", "defence", "seeds", *pushed, *GENUINE, *DETECTED]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for (attack, budget, defence), runs in rows.items():
        cells = [attack, f"{budget:.1%}" if budget else "–", defence, str(len(runs))]
        cells += [_text(runs, "metrics", name, 1 if name == "t_rank" else 4) for name in pushed]
        cells += [_text(runs, "metrics", name) for name in GENUINE]
        cells += [_text(runs, "detection", name, 3) for name in DETECTED]
        lines.append("| " + " | ".join(cells) + " |")
    return (
        "# Robustness\n\n"
        "Generated by `seqrec robustness`: means over seeds, ± half of the 95 % interval of the mean. Seeds change the "
        "training, what a defence draws and its known fraudsters; all meet the same targets and fakes, so ± says "
        "nothing of another draw of the attack. (n of m): only n of m runs have the figure.\n\n"
        "- t_hr@k, t_ndcg@k, t_rank: where pushed items stand for genuine users who lack them, the mean over users, "
        "then over items; the lower (t_rank, counted from 1: the higher) the better\n"
        "- recall@10, ndcg@10: of genuine users' test items\n"
        "- precision, recall, auc: of finding the fakes, by weights below 1 (auc: by suspicion; auc_same_length: "
        "beside genuine users with as many events); weight_of_…: mean weight; all in the epoch that was tested\n\n"
        + "\n".join(lines)
        + "\n"
    )


def _draw(rows: Rows, path: Path) -> None:
    """Exposure of the targets, and quality for genuine users, of every attack and defence."""
    figure = canvas(9.0, 4.5)
    metrics = next(iter(rows.values()))[0]["metrics"]
    longest = max((name for name in metrics if name.startswith("t_hr@")), key=lambda name: int(name.partition("@")[2]))
    sets = list(dict.fromkeys((attack, budget) for attack, budget, _ in rows))
    defences = list(dict.fromkeys(defence for *_, defence in rows))
    width = 0.8 / len(defences)
    for axis, name in zip(figure.subplots(1, 2), (longest, "ndcg@10"), strict=True):
        for place, defence in enumerate(defences):
            reached = [_values(rows.get((*each, defence), []), "metrics", name) for each in sets]
            drawn = [(number + place * width, values) for number, values in enumerate(reached) if values]
            axis.bar(
                [at for at, _ in drawn],
                [mean(values) for _, values in drawn],
                width,
                yerr=[interval(values) or 0.0 for _, values in drawn],
                color=f"C{place}",
                label=defence,
            )
        labels = [f"{attack}\n{budget:.1%}" if budget else attack for attack, budget in sets]
        axis.set_xticks([number + 0.4 - width / 2 for number in range(len(sets))], labels)
        axis.set(title="pushed items, " + name if name == longest else "genuine users, " + name, ylim=(0, None))
    figure.axes[-1].legend(title="defence")
    figure.savefig(path, metadata={"Date": None})
