"""A study file: which rows are run on which data with which seeds, and how each of them is tuned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from seqrec.data.errors import InputError, nearest


@dataclass(frozen=True)
class Search:
    """How rows are tuned; the same for all rows of a study, so that none gets more than another.

    Attributes:
        trials: how many settings are tried, at least 1.
        seed: of the search and of the training of each trial.
        metric: what is made as large as possible, on validation.
        warmup_epochs: epochs before a trial may be given up; None is half of those that it may train.
        set: keys of the config that trials have and final runs have not; what suits fewer epochs does not suit more.
        first: what the first trial sets of the keys that a row's space has, say what is known to do well; the search
            draws the others, and all of the later trials.
    """

    trials: int
    seed: int = 0
    metric: str = "val/ndcg@10"
    warmup_epochs: int | None = None
    set: Mapping[str, Any] = field(default_factory=dict)
    first: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One recipe of a study.

    Attributes:
        configs: files that are stacked on those of the data.
        set: keys that refine them.
        space: keys that are searched: ``{low, high}`` with ``log`` or ``step`` if wanted, or ``{choices}``. None is not
            tuned.
        seeds: of this row; None means those of the study.
        data: names of the data sets that it is run on; None means all of the study.
    """

    configs: Sequence[str] = ()
    set: Mapping[str, Any] = field(default_factory=dict)
    space: Mapping[str, Mapping[str, Any]] | None = None
    seeds: Sequence[int] | None = None
    data: Sequence[str] | None = None


@dataclass(frozen=True)
class Study:
    """A list of rows times data times seeds.

    Attributes:
        name: of the folder of its results.
        about: what it is for.
        data: stacks of configs, one per data set, each run with every row.
        rows: by label.
        seeds: of the final runs.
        search: how rows with a space are tuned; needed if there are any.
    """

    name: str
    about: str
    data: Mapping[str, Sequence[str]]
    rows: Mapping[str, Row]
    seeds: Sequence[int]
    search: Search | None = None


# What each entry is.
_KINDS: Mapping[type, Mapping[str, type]] = {
    Study: {"name": str, "about": str, "rows": dict, "data": dict, "seeds": list},
    Row: {"configs": list, "set": dict, "space": dict, "seeds": list, "data": list},
    Search: {"trials": int, "seed": int, "metric": str, "warmup_epochs": int, "set": dict, "first": dict},
}
_TOLD = {str: "a text", int: "a whole number", list: "a list, e.g. [1, 2]", dict: "keys with values below it"}


class _EachKeyOnce(yaml.SafeLoader):
    """YAML, in which a key may not come twice: of two rows of one name the first would be lost."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        names = [key.value for key, _ in node.value]
        for at, (key, _) in enumerate(node.value):
            if key.value in names[:at]:
                raise yaml.MarkedYAMLError(problem=f"the key '{key.value}' comes twice", problem_mark=key.start_mark)
        return node


def read_study(path: Path) -> Study:
    """The study of a file.

    Raises:
        InputError: it cannot be read, a key is unknown, missing, there twice or of the wrong kind, or a config does not
            exist.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist; name a study file such as experiments/studies/s1-beauty.yaml.")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _EachKeyOnce)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not YAML ({' '.join(str(error).split())}); correct it.") from None
    content = _known(path, "the study", content, Study)
    for name in [*content["rows"], *content["data"]]:
        if not isinstance(name, str):
            raise InputError(f"{path}: {name!r} is no text, as names of rows and data are; put it in quotes.")
    for name, stack in content["data"].items():
        _demand_files(path, f"data {name}", stack)
    _demand_seeds(path, "the study", content["seeds"])
    # What begins with a dot is there to be repeated by the rows.
    rows = {label: row for label, row in content["rows"].items() if not label.startswith(".")}
    rows = {label: _row(path, label, row) for label, row in rows.items()}
    search = content.get("search")
    if search is not None:
        search = Search(**_known(path, "search", search, Search))
    study = Study(**(content | {"rows": rows, "search": search}))
    _check(path, study)
    return study


def _known(path: Path, where: str, entry: Any, kind: Any) -> dict[str, Any]:
    """The entry, if all its keys are known and none that is needed is missing; without those that are left empty."""
    names = [each.name for each in fields(kind)]
    if not isinstance(entry, dict):
        raise InputError(f"{path}: {where} is {entry!r}; give it keys among {', '.join(names)}.")
    for key in entry:
        if key not in names:
            raise InputError(f"{path}: {where} has the key '{key}'; {nearest(str(key), names)}.")
    needed = [each.name for each in fields(kind) if each.default is MISSING and each.default_factory is MISSING]
    for name in needed:
        if name not in entry:
            raise InputError(f"{path}: {where} has no '{name}'; give it one.")
    for name, wanted in _KINDS[kind].items():
        if name in entry and type(entry[name]) is not wanted and (name in needed or entry[name] is not None):
            raise InputError(f"{path}: {name} of {where} is {entry[name]!r}; give it {_TOLD[wanted]}.")
    return {name: value for name, value in entry.items() if value is not None or name in needed}


def _row(path: Path, label: str, entry: Any) -> Row:
    row = _known(path, f"row {label}", entry, Row)
    _demand_files(path, f"configs of row {label}", row.get("configs", []))
    if "seeds" in row:
        _demand_seeds(path, f"row {label}", row["seeds"])
    return Row(**row)


def _demand_files(path: Path, where: str, stack: Any) -> None:
    if not isinstance(stack, list) or not all(isinstance(config, str) for config in stack):
        raise InputError(f"{path}: {where} is {stack!r}; give it a list of files, e.g. [configs/data/beauty.yaml].")


def _demand_seeds(path: Path, whose: str, seeds: Sequence[Any]) -> None:
    whole = all(type(seed) is int and seed >= 0 for seed in seeds)
    if not seeds or not whole or len(set(seeds)) < len(seeds):
        raise InputError(f"{path}: seeds of {whose} is {seeds!r}; give it whole numbers from 0 on, none twice.")


def _check(path: Path, study: Study) -> None:
    stacks = [*study.data.values(), *(row.configs for row in study.rows.values())]
    for config in dict.fromkeys(config for stack in stacks for config in stack):
        if not Path(config).is_file():
            raise InputError(f"{path} names {config}, which does not exist; correct it, or run in the folder it is in.")
    if not study.rows or not study.data:
        raise InputError(f"{path} has no rows or no data; give at least one of each.")
    for name in (study.name, *study.data, *study.rows):
        if name in ("", ".", "..") or set(name) & set("/\\"):
            raise InputError(
                f"{path}: {name!r} names a folder; give the study, its data and its rows names without / and \\."
            )
    for label, row in study.rows.items():
        if row.data == []:
            raise InputError(f"{path}: row {label} is for no data; name some, or leave `data` out for all.")
        for name in row.data or ():
            if name not in study.data:
                raise InputError(f"{path}: row {label} is for the data '{name}'; {nearest(name, study.data)}.")
    tuned = [label for label, row in study.rows.items() if row.space is not None]
    if tuned and study.search is None:
        raise InputError(f"{path}: row {tuned[0]} has a space, but the study no `search`; say how many trials it gets.")
    if study.search is not None and study.search.trials < 1:
        raise InputError(f"{path}: search.trials is {study.search.trials}; it must be at least 1.")
    for label in tuned:
        for key, choice in (study.rows[label].space or {}).items():
            kinds = set(choice) if isinstance(choice, dict) else set()
            if kinds != {"choices"} and not {"low", "high"} <= kinds <= {"low", "high", "log", "step"}:
                raise InputError(
                    f"{path}: {key} of row {label} is searched in {choice}; give it choices, or low and high with "
                    "log or step if wanted."
                )
            bounds = [choice[name] for name in ("low", "high", "step") if name in choice]
            if any(isinstance(value, bool) or not isinstance(value, (int, float)) for value in bounds):
                raise InputError(
                    f"{path}: {key} of row {label} is searched in {choice}, where some bound is no number; in YAML a "
                    "small one has a point, as 1.0e-4 or 0.0001."
                )
            if "low" in choice and choice["low"] > choice["high"]:
                raise InputError(f"{path}: {key} of row {label} is searched in {choice}; low must not be above high.")
            if (choice.get("log") and ("step" in choice or choice["low"] <= 0)) or choice.get("step", 1) <= 0:
                raise InputError(
                    f"{path}: {key} of row {label} is searched in {choice}; with log there is no step and low is above "
                    "0, and so is a step."
                )
            if "choices" in choice and not (isinstance(choice["choices"], list) and choice["choices"]):
                raise InputError(f"{path}: {key} of row {label} is searched in {choice}; give choices a list of them.")
