"""Tables of runs that may be compared: one per passport, with the mean and deviation over seeds."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from seqrec.data.errors import InputError

# Where runs differ in one of these they answer different questions; the rest of a passport follows from them.
COMPARED = {
    "dataset": "data set",
    "kind": "split",
    "parameters": "parameters of the split",
    "seen_is_excluded": "seen items excluded",
    "cold_targets": "targets that training never saw",
    "candidates": "candidates",
    "tie_rule": "order of equal times",
    "target_hash": "hash of the test targets",
}
METRICS = ("recall@10", "ndcg@10", "mrr@10", "coverage@10")


@dataclass(frozen=True)
class Result:
    """What one run left behind.

    Attributes:
        folder: the folder of the run.
        fields: the content of its ``result.json``.
    """

    folder: Path
    fields: Mapping[str, Any]

    @property
    def passport(self) -> tuple[str, ...]:
        """The fields that must agree, as text, in the order of ``COMPARED``."""
        return tuple(json.dumps(self.fields["passport"].get(field), sort_keys=True) for field in COMPARED)

    @property
    def recipe(self) -> str:
        """The config without what may differ between the seeds of one row: the seed, and where the run is written."""
        return json.dumps(_without_seeds(self.fields["config"]), sort_keys=True)


def leaderboard(results: list[Path] | Path, out: Path = Path("docs/leaderboard.md"), compare: bool = False) -> None:
    """Write a table of runs in Markdown; runs whose numbers mean different things never share a table.

    seqrec leaderboard runs --out leaderboard.md
    seqrec leaderboard runs experiments/results --compare

    Each row is one recipe, with mean and standard deviation (n - 1) over its seeds; the best NDCG@10 stands first.

    Args:
        results: a folder of runs, or several; each is searched for result.json at any depth.
        out: the file to write.
        compare: refuse, and name the first difference, unless all runs may stand in one table.

    Raises:
        InputError: no result was found, one cannot be read, or runs differ that were to be compared.
    """
    folders = results if isinstance(results, list) else [results]
    found = [_read(path) for path in _files(folders)]
    if not found:
        raise InputError(
            f"No result.json was found in {', '.join(map(str, folders)) or 'an empty list of folders'}; "
            "run `seqrec test` first and give the folder of the run."
        )
    if compare:
        for other in found[1:]:
            demand_comparable(found[0], other)
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_name(f".{out.name}.{os.getpid()}")
    unfinished.write_text(_page(found), encoding="utf-8")
    unfinished.replace(out)
    print(f"{out}: a table of {len(found)} {'run' if len(found) == 1 else 'runs'}.")


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """What keeps two passports from being compared, one phrase per field; empty where nothing does."""
    return [
        f"{label} ({field}): {_text(one.get(field))} against {_text(other.get(field))}"
        for field, label in COMPARED.items()
        if one.get(field) != other.get(field)
    ]


def demand_comparable(one: Result, other: Result) -> None:
    """Raise unless both runs answer the same question.

    Raises:
        InputError: with every field that differs.
    """
    found = differences(one.fields["passport"], other.fields["passport"])
    if found:
        raise InputError(
            f"{one.folder} and {other.folder} cannot be compared, they differ in {'; '.join(found)}: "
            "test both on the same data with the same protocol."
        )


def _files(folders: Iterable[Path]) -> list[Path]:
    files = []
    for folder in folders:
        if not folder.exists():
            raise InputError(f"{folder} does not exist; give the folder of a run that `seqrec test` has measured.")
        files += [folder] if folder.is_file() else sorted(folder.rglob("result.json"))
    return list(dict.fromkeys(files))


def _read(path: Path) -> Result:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}); run `seqrec test` for that run again.") from None
    needed = ("metrics", "passport", "config", "model", "data")
    missing = [name for name in needed if not isinstance(fields, dict) or name not in fields]
    if missing:
        raise InputError(f"{path} has no {' and no '.join(missing)}; run `seqrec test` for that run again.")
    return Result(path.parent, fields)


def _page(results: list[Result]) -> str:
    tables: dict[tuple[str, ...], list[Result]] = defaultdict(list)
    for result in results:
        tables[result.passport].append(result)
    parts = ["# Leaderboard", "Generated by `seqrec leaderboard`. Numbers of different tables cannot be compared."]
    first: Result | None = None
    for _, rows in sorted(tables.items(), key=lambda table: (str(table[1][0].fields["data"]), table[0])):
        parts += [_heading(rows[0]), *([] if first is None else [_why_apart(first, rows[0])]), _table(rows)]
        first = first or rows[0]
    return "\n\n".join(parts) + "\n"


def _heading(result: Result) -> str:
    passport = result.fields["passport"]
    lines = [f"- {label}: {_text(passport.get(field))}" for field, label in COMPARED.items()]
    return f"## {result.fields['data']}, {passport.get('kind')}\n\n" + "\n".join(lines)


def _why_apart(first: Result, other: Result) -> str:
    found = differences(first.fields["passport"], other.fields["passport"])
    return "Apart from the first table because of " + "; ".join(found) + "."


def _table(results: list[Result]) -> str:
    recipes: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for result in results:
        recipes[str(result.fields["model"]), result.recipe].append(result)
    names = [name for name in METRICS if any(name in result.fields["metrics"] for result in results)]
    ordered = sorted(recipes.values(), key=lambda runs: -(_mean(runs, "ndcg@10") or 0.0))
    header = ["model", "seeds", *names, "parameters", "minutes", "events/s", "peak GiB", "commit", "runs"]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    lines += ["| " + " | ".join(_row(runs, names)) + " |" for runs in ordered]
    return "\n".join(lines)


def _row(runs: list[Result], names: list[str]) -> list[str]:
    def average(name: str, unit: int, digits: int) -> str:
        values = [run.fields[name] / unit for run in runs if run.fields.get(name) is not None]
        return f"{mean(values):,.{digits}f}" if values else "–"

    # A model that knows when it is asked knows more than the others of its table.
    knows = " (knows when it is asked)" if any(run.fields.get("reads_asked_at") for run in runs) else ""
    commits = sorted({str(run.fields.get("commit"))[:9] for run in runs})
    return [
        str(runs[0].fields["model"]) + knows,
        str(len(runs)),
        *(_spread([run.fields["metrics"][name] for run in runs if name in run.fields["metrics"]]) for name in names),
        average("parameters", 1, 0),
        average("wall_seconds", 60, 1),
        average("events_per_second", 1, 0),
        average("peak_memory_bytes", 2**30, 2),
        ", ".join(commits),
        ", ".join(run.folder.name for run in runs),
    ]


def _mean(runs: list[Result], name: str) -> float | None:
    values = [run.fields["metrics"][name] for run in runs if name in run.fields["metrics"]]
    return mean(values) if values else None


def _spread(values: list[float]) -> str:
    """Mean ± standard deviation over seeds; the mean alone where there is one."""
    if not values:
        return "–"
    return f"{mean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return text if len(text) <= 40 else text[:12] + "…"


def _without_seeds(config: Any) -> Any:
    """The same config without every key that names a seed, a folder of output or a checkpoint to resume from."""
    left_out = {"seed", "seed_everything", "run", "config", "ckpt_path", "default_root_dir", "logger", "callbacks"}
    if isinstance(config, dict):
        return {name: _without_seeds(value) for name, value in config.items() if name not in left_out}
    return [_without_seeds(value) for value in config] if isinstance(config, list) else config
