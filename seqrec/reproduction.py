"""The command that trains and tests a recorded run again, from nothing but its result."""

from __future__ import annotations

import json
import warnings
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from seqrec.board.results import LEFT_OUT, Result, demand_comparable, read
from seqrec.data.errors import InputError
from seqrec.data.folders import digests_of_named, write_whole
from seqrec.export.manifest import read_fields
from seqrec.semantics.vectors import origin_of
from seqrec.studies.jobs import code_fingerprint, digest
from seqrec.studies.running import measure, train
from seqrec.training.own_code import own_code


def reproduce(results: list[Path] | Path, out: Path = Path("runs/reproduced")) -> None:
    """Train and test recorded runs again, with the config and the seed that their result.json holds, and compare.

    seqrec reproduce experiments/results/quality/recipe/sasrec-beauty-seed1

    What was stopped goes on when started again, as long as the code is the same. On the same kind of machine the
    figures are the same; elsewhere they differ by what rounding does to training. One device trains, so figures of
    several come again but nearly. Each recipe gets a table of its own.

    Args:
        results: the folder of a run, or of several.
        out: folder for the new runs, each named after its record and a digest of its config, its data and the code.

    Raises:
        InputError: the data, the text vectors, or the model that a run started from, are not there, or are not those of
            the record; or a checkpoint was tested that no training leaves.
    """
    recorded = read(results if isinstance(results, list) else [results])
    for result in recorded:
        _check_data(result)
        _check_start(result)
        _check_own_code(result)
        _check_texts(result)
        _tested(result)
    again = [_again(result, out) for result in recorded]
    rows: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for place, result in enumerate(recorded):
        rows[result.passport, result.recipe].append(place)
    for places in rows.values():
        Console().print(_side_by_side([recorded[place] for place in places], [again[place] for place in places]))


def _again(result: Result, out: Path) -> Mapping[str, float]:
    config = {name: value for name, value in result.fields["config"].items() if name not in LEFT_OUT}
    named = digests_of_named(config, result.fields["data"])
    depends_on = [config, result.fields["passport"]["dataset"], code_fingerprint(), own_code(config), named]
    folder = out / f"{result.folder.name}-{digest(depends_on)[:12]}"
    path = folder.with_name(f"{folder.name}.yaml")
    write_whole(path, json.dumps(config, indent=2) + "\n")  # JSON is YAML
    train(folder, [f"--config={path}"])
    fields: dict[str, Any] = measure(folder, _tested(result))
    demand_comparable(result, Result(folder, fields))
    return fields["metrics"]


def _tested(result: Result) -> str:
    """Which checkpoint was tested."""
    names = {None: "best", "checkpoints/last.ckpt": "last"}
    if result.unusual_checkpoint not in names:
        raise InputError(
            f"{result.folder} was tested at {result.unusual_checkpoint}, which training it again does not give; run "
            "`seqrec test` for its best or its last checkpoint, and reproduce that."
        )
    return names[result.unusual_checkpoint]


def _check_own_code(result: Result) -> None:
    then, now = result.fields.get("own_code") or {}, own_code(result.fields["config"])
    changed = [name for name in {**then, **now} if then.get(name) != now.get(name)]
    if changed:
        warnings.warn(
            f"The code of {', '.join(changed)} is not what {result.folder} was made with, so figures may differ.",
            stacklevel=2,
        )


def _check_texts(result: Result) -> None:
    """See that the text vectors that a run read are those that are there."""
    for then in result.fields.get("texts") or ():
        now = origin_of(Path(then["vectors"]))
        if any(name in then and then[name] != now.get(name) for name in ("digest", "fingerprint")):
            state = "are not there" if not now else "are others now"
            raise InputError(
                f"The vectors {then['vectors']}, which {result.folder} read, {state}; put back those of then, or make "
                "them again with `seqrec embed`."
            )


def _check_data(result: Result) -> None:
    prepared = Path(result.fields["config"]["data"]["prepared"])
    wanted, manifest = result.fields["passport"]["dataset"], prepared / "manifest.json"
    found = json.loads(manifest.read_text(encoding="utf-8"))["fingerprint"] if manifest.is_file() else None
    if found != wanted:
        state = "is not there" if found is None else f"has the fingerprint {found[:12]}…, not {wanted[:12]}…"
        raise InputError(
            f"{prepared}, which {result.folder} was trained on, {state}; prepare it as it was, with `seqrec prepare`."
        )


def _check_start(result: Result) -> None:
    """See that the bundle that a run started from is the one that is there."""
    began = result.fields.get("starts_from")
    if began and read_fields(Path(began["bundle"]))["model_fingerprint"] != began["model_fingerprint"]:
        raise InputError(
            f"{began['bundle']}, which {result.folder} started from, holds another model now; put back the one of then."
        )


def _side_by_side(results: list[Result], again: list[Mapping[str, float]]) -> Table:
    """The seeds of one row, recorded and trained again, by the metrics that all of them have."""
    recorded: list[Mapping[str, float]] = [result.fields["metrics"] for result in results]
    which = f"{results[0].name or results[0].fields['model']} on {results[0].fields['data']}"
    title = f"{which}: mean of {len(results)} seed{'s' * (len(results) > 1)}"
    table = Table("metric", "recorded", "again", title=escape(title))
    for name in recorded[0]:
        if all(name in metrics for metrics in (*recorded, *again)):
            old, new = (mean(metrics[name] for metrics in runs) for runs in (recorded, again))
            table.add_row(name, f"{old:.6g}", f"{new:.6g}")
    return table
