"""One table and one picture of the finished runs of ``seqrec robustness``."""

from __future__ import annotations

import json
import warnings
from collections import defaultdict
from collections.abc import Sequence
from importlib import import_module
from inspect import signature
from itertools import product
from math import sqrt
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from seqrec.audit import canvas
from seqrec.data.errors import InputError
from seqrec.data.poisoning.poison import ATTACKS
from seqrec.reproduction import LEFT_OUT
from seqrec.training.record import write

SERVED = "recall@10"
GENUINE = (SERVED, "ndcg@10")
DETECTED = ("precision", "recall", "auc", "auc_same_length", "weight_of_fakes", "weight_of_genuine")
PLACES = ("prepared", "seed", "seed_everything")
OF_DEFENCES = ("reweighter", "auxiliaries", "fraudsters")
CLEAN, NO_DEFENCE = ("clean", 0.0), "none"
Row = tuple[str, float, str]
Rows = dict[Row, list[dict[str, Any]]]


def write_report(out: Path, targets: list[int], asked: Sequence[str] = ()) -> None:
    """Write robustness.md and robustness.svg from the results of finished runs that look at these targets.

    Args:
        out: folder with the results.
        targets: rows of the pushed items.
        asked: names of results that the report is about; others stand beside them if they are of the same study.

    Raises:
        InputError: no run is finished, or a result is damaged.
        ImportError: matplotlib is not installed.
    """
    found = {path: read_result(path) for path in sorted((out / "results").glob("*.json"))}
    results = _of_one_study({path: result for path, result in found.items() if result["targets"] == targets}, asked)
    if not results:
        raise InputError(f"{out / 'results'} holds no result; run `seqrec robustness --out {out}` first.")
    rows: Rows = defaultdict(list)
    for result in sorted(results, key=lambda result: result["seed"]):
        rows[result["attack"], result["budget"], result["defence"]].append(result)
    rows = dict(
        sorted(
            rows.items(), key=lambda row: (row[0][0] != "clean", row[0][1], row[0][0], row[0][2] != NO_DEFENCE, row[0])
        )
    )
    write(out / "robustness.md", _page(rows))
    _draw(rows, out / "robustness.svg")
    print(f"{out / 'robustness.md'} and {out / 'robustness.svg'}: {len(results)} runs.")


def read_result(path: Path) -> dict[str, Any]:
    """The result of a finished run.

    Raises:
        InputError: it is damaged.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        _ = [result[name] for name in ("targets", "metrics", "passport", "config")]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is cut short or no result of `seqrec robustness`; remove it, and its run is measured again."
        ) from error
    return result


def _of_one_study(results: dict[Path, dict[str, Any]], asked: Sequence[str]) -> list[dict[str, Any]]:
    """The results that can stand on one page with those asked for; of what is left out a warning says so."""
    kept: list[Path] = []
    for path in sorted(results, key=lambda path: (path.stem not in asked, path)):
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
    shared = ("target_hash", "dataset") if same_data else ("target_hash",)
    if any(one["passport"].get(part) != other["passport"].get(part) for part in shared):
        return False
    own = () if one["defence"] == other["defence"] else OF_DEFENCES
    this, that = (_recipe(result["config"], own) for result in (one, other))
    return not any(differing(this, that)) and not any(differing(one.get("files", {}), other.get("files", {})))


def _recipe(config: dict[str, Any], left_out: Sequence[str] = ()) -> dict[str, Any]:
    """A config without seeds, without what says where things lie, and without some keys."""
    return _without({name: value for name, value in config.items() if name not in LEFT_OUT}, (*PLACES, *left_out))


def _without(part: Any, left_out: Sequence[str]) -> Any:
    """A part of a config without some keys at any depth."""
    if isinstance(part, dict):
        return {name: _without(value, left_out) for name, value in part.items() if name not in left_out}
    return [_without(each, left_out) for each in part] if isinstance(part, list) else part


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
    some = "" if len(values) in (0, len(runs)) else f" ({len(values)} of {len(runs)})"
    return _spread(values, f".{digits}f") + some


def _spread(values: list[float], form: str) -> str:
    """Mean and interval."""
    if not values:
        return "–"
    half = interval(values)
    return format(mean(values), form) + ("" if half is None else f" ± {half:{form.lstrip('+')}}")


def _gains(rows: Rows, row: Row, pushed: str) -> tuple[list[float], list[float]]:
    """Of a defence, for every seed that clean, undefended and defended runs share: the share of the rise of the pushed
    items that it cuts, where there is a rise, and the relative change of what genuine users are served."""
    if row[2] == NO_DEFENCE:
        return [], []
    held_against = ((*CLEAN, NO_DEFENCE), (*row[:2], NO_DEFENCE), row)
    by_seed = [
        {run["seed"]: run["metrics"] for run in rows.get(each, []) if pushed in run["metrics"]} for each in held_against
    ]
    cuts, changes = [], []
    for seed in sorted(set.intersection(*map(set, by_seed))):
        clean, undefended, defended = (metrics[seed] for metrics in by_seed)
        rise = undefended[pushed] - clean[pushed]
        cuts += [1 - (defended[pushed] - clean[pushed]) / rise] if rise > 0 else []
        changes += [defended[SERVED] / undefended[SERVED] - 1] if undefended[SERVED] else []
    return cuts, changes


def _longest(rows: Rows) -> str:
    """The hit rate of pushed items in the longest lists."""
    metrics = next(iter(rows.values()))[0]["metrics"]
    return max((name for name in metrics if name.startswith("t_hr@")), key=lambda name: int(name.partition("@")[2]))


def _named(row: Row) -> str:
    attack, budget, defence = row
    return f"{attack}{f' {budget:.1%}' if budget else ''} + {defence}"


def _incomplete(rows: Rows) -> str:
    """The attacks that nobody ran, and the seeds that some rows have and others lack; nothing where none is missing."""
    run = {(attack, budget) for attack, budget, _ in rows if budget}
    attacks, budgets = sorted({attack for attack, _ in run}), sorted({budget for _, budget in run})
    defences = dict.fromkeys([NO_DEFENCE, *(defence for *_, defence in rows)])
    seeds = {row: {run["seed"] for run in runs} for row, runs in rows.items()}
    lacking: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for (attack, budget), defence in product([CLEAN, *product(attacks, budgets)], defences):
        row = attack, budget, defence
        if lacks := set.union(*seeds.values()) - seeds.get(row, set()):
            lacking[tuple(sorted(lacks))].append(_named(row))
    never = [attack.__name__ for attack in ATTACKS if attack.__name__ not in attacks]
    said = [f"{', '.join(never)} never run"] if never else []
    for lacks, names in lacking.items():
        said.append(f"no seed {', '.join(map(str, lacks))} of {', '.join(names)}")
    return f"**Incomplete**: {'; '.join(said)}.\n\n" if said else ""


def _defences(rows: Rows) -> str:
    """A line for every defence: the classes that it adds, as the config of a run has them."""
    lines = {}
    for (*_, defence), runs in rows.items():
        config = _recipe(runs[0]["config"])
        model = config.get("model", {}).get("init_args", {})
        parts = [model.get("reweighter"), *(model.get("auxiliaries") or []), config.get("data", {}).get("fraudsters")]
        if defence != NO_DEFENCE and any(parts):
            lines[defence] = f"- {defence}: {', '.join(f'`{_described(part)}`' for part in parts if part)}\n"
    said = "Defences, with what differs from the defaults of their classes:\n\n"
    return said + "".join(lines.values()) + "\n" if lines else ""


def _described(part: Any) -> str:
    """A class of a config with the arguments that are not its defaults; anything else as it is."""
    if not isinstance(part, dict) or "class_path" not in part:
        return str(part)
    module, _, name = part["class_path"].rpartition(".")
    try:
        known = signature(getattr(import_module(module), name)).parameters
    except (ImportError, AttributeError, TypeError, ValueError):  # of another version
        known = {}
    told = (part.get("init_args") or {}).items()
    said = [f"{key}={_described(value)}" for key, value in told if key not in known or known[key].default != value]
    return f"{part['class_path']}({', '.join(said)})"


def _page(rows: Rows) -> str:
    metrics, longest = next(iter(rows.values()))[0]["metrics"], _longest(rows)
    pushed = [name for name in metrics if name.startswith("t_")]
    gained = [f"cut of {longest}", f"change of {SERVED}"]
    header = ["attack", "budget", "defence", "seeds", *gained, *pushed, *GENUINE, *DETECTED]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for row, runs in rows.items():
        attack, budget, defence = row
        mixed = ", of different code" if len({run.get("code") for run in runs}) > 1 else ""
        seeds = ", ".join(str(run["seed"]) for run in runs) + mixed
        cells = [attack, f"{budget:.1%}" if budget else "–", defence, seeds]
        for values, form in zip(_gains(rows, row, longest), (".1%", "+.1%"), strict=True):
            cells.append(_spread(values, form) + (f" (n = {len(values)})" if values else ""))
        cells += [_text(runs, "metrics", name, 1 if name == "t_rank" else 4) for name in pushed]
        cells += [_text(runs, "metrics", name) for name in GENUINE]
        for name in DETECTED:
            says = budget or name == "weight_of_genuine"  # clean data have no fakes
            cells.append(_text(runs if says else [], "detection", name, 3))
        lines.append("| " + " | ".join(cells) + " |")
    return (
        "# Robustness\n\n"
        "Generated by `seqrec robustness`: means over seeds, ± half of the 95 % interval of the mean. Seeds change the "
        "training, what a defence draws and its known fraudsters; all meet the same targets and fakes, so ± says "
        "nothing of another draw of the attack. (n of m): only n of m runs have the figure.\n\n"
        f"{_incomplete(rows)}"
        f"- cut of {longest}: the share of its rise, from clean to attacked, that a defence takes back; change of "
        f"{SERVED}: against the same data without defence; means over the n seeds that the clean run, the undefended "
        "and the defended one share, for the cut those where it rose; –: there is none\n"
        "- t_hr@k, t_ndcg@k, t_rank: where pushed items stand for genuine users who lack them, the mean over users, "
        "then over items; the lower (t_rank, counted from 1: the higher) the better\n"
        "- recall@10, ndcg@10: of genuine users' test items\n"
        "- precision, recall, auc: of finding the fakes, by weights below 1 (auc: by suspicion); weight_of_…: mean "
        "weight; all in the epoch that was tested\n\n"
        "Fakes and the known fraudsters draw their lengths from the same clipped distribution, so part of what "
        "detection finds is length; `auc_same_length` holds each fake against genuine users of as many events.\n\n"
        f"{_defences(rows)}" + "\n".join(lines) + "\n"
    )


def _draw(rows: Rows, path: Path) -> None:
    """Exposure of the targets, and quality for genuine users, of every attack and defence."""
    figure, longest = canvas(9.0, 4.5), _longest(rows)
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
