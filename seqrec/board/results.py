"""What runs left behind, and which of them may be compared: their passports."""

from __future__ import annotations

import json
import os
import re
import shlex
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from seqrec.board.defaults import without_defaults
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
    "learned_before": "other events that it learned from before",
}
# Runs of earlier versions lack these, and most runs that start from nothing.
OPTIONAL = ("learned_before",)
# The same question may be asked of several data sets.
OF_THE_DATA = ("dataset", "target_hash", "learned_before")
SEEDS = {"seed", "seed_everything"}
# What belongs to the run that was, not to its recipe: of the config itself, for parts may have arguments of such names.
LEFT_OUT = ("run", "config", "ckpt_path", "verbose")
# Folders of output, and what is said on the way.
PLACES = {"default_root_dir", "logger", "num_workers"}
PLACES |= {"enable_progress_bar", "enable_model_summary", "log_every_n_steps"}
TESTED = "checkpoints/best.ckpt"
NEEDED = {"metrics": dict, "passport": dict, "config": dict, "model": str, "data": str}


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
        return tuple(_as_text(self.fields["passport"].get(field)) for field in COMPARED)

    @property
    def protocol(self) -> tuple[str, ...]:
        """The passport without what says which data they are."""
        kept = [field for field in COMPARED if field not in OF_THE_DATA]
        return tuple(_as_text(self.fields["passport"].get(field)) for field in kept)

    @cached_property
    def recipe(self) -> str:
        """The config without what may differ between the seeds of one row: the seed, and where the run is written.

        What a study calls a row is no part of it, so that a recipe of several studies is one row.
        """
        return self._config_without(SEEDS | PLACES)

    @cached_property
    def experiment(self) -> str:
        """The config with its seed; two runs of one experiment tell nothing that one does not."""
        return self._config_without(PLACES)

    def _config_without(self, left_out: Set[str]) -> str:
        config = {name: value for name, value in self.fields["config"].items() if name not in LEFT_OUT}
        told = without_defaults(_without(config, left_out))
        if "starts_from" in told:  # another model may have taken its place in the folder
            told["starts_from"] = (self.fields.get("starts_from") or {}).get("model_fingerprint")
        texts = [text.get("fingerprint", text.get("digest")) for text in self.fields.get("texts") or ()]
        besides = [*filter(None, texts), *filter(None, [self.unusual_checkpoint])]
        return json.dumps([self.fields["model"], told, *besides], sort_keys=True)

    @property
    def unusual_checkpoint(self) -> str | None:
        """The weights that were tested, where they are not those of the best epoch on validation."""
        checkpoint = self.fields.get("checkpoint")
        return None if checkpoint == TESTED else checkpoint

    @property
    def study(self) -> str | None:
        """The study it belongs to; None where there is none."""
        return (self.fields.get("study") or {}).get("name")

    @property
    def name(self) -> str | None:
        """What its study calls the row; None where it belongs to no study."""
        return (self.fields.get("study") or {}).get("row")

    @property
    def code(self) -> str | None:
        """Fingerprint of the code that trained it; None where it was not written down."""
        own = self.fields.get("own_code") or {}
        of_study = (self.fields.get("study") or {}).get("fingerprint") or {}
        told = [of_study.get("code"), *sorted(own.values())]
        return " ".join(filter(None, told)) or None

    @property
    def stem(self) -> str:
        """The name of its folder without the seed."""
        return re.sub(r"[-_]?seed\d+$", "", self.folder.name) or self.folder.name

    @property
    def ranks(self) -> Path | None:
        """The file with the rank of every target, None where it was not kept."""
        path = self.folder / "ranks.parquet"
        return path if path.is_file() else None


@dataclass(frozen=True)
class Row:
    """Runs of one recipe that differ in their seeds alone.

    Attributes:
        label: what the page calls it; no other row of its table has the same.
        runs: at least one.
    """

    label: str
    runs: tuple[Result, ...]

    @property
    def model(self) -> str:
        return str(self.runs[0].fields["model"])

    @property
    def name(self) -> str:
        """The label without what tells rows of one name apart."""
        return self.runs[0].name or self.model

    @property
    def is_complete(self) -> bool:
        """Whether every seed kept the ranks of its users."""
        return all(run.ranks is not None for run in self.runs)

    def values(self, name: str) -> list[float]:
        """A metric, or another figure of ``result.json``, of every seed that has it."""
        found = [run.fields["metrics"].get(name, run.fields.get(name)) for run in self.runs]
        return [float(value) for value in found if value is not None]

    def mean(self, name: str) -> float | None:
        values = self.values(name)
        return mean(values) if values else None

    def spread(self, name: str) -> float | None:
        """Standard deviation (n - 1) over seeds; None where there are fewer than two."""
        values = self.values(name)
        return stdev(values) if len(values) > 1 else None

    @property
    def caveat(self) -> str:
        """What to say beside its name: what it knows more than the others of its table, and who wrote its texts."""
        texts = [text for run in self.runs for text in run.fields.get("texts") or run.fields.get("views") or ()]
        told = ["knows when it is asked"] if any(run.fields.get("reads_asked_at") for run in self.runs) else []
        told += ["starts from a trained model"] if any(run.fields.get("starts_from") for run in self.runs) else []
        told += [f"tested at {self.runs[0].unusual_checkpoint}"] if self.runs[0].unusual_checkpoint else []
        told += ["its texts tell of what is held out"] if any(text.get("leaky") for text in texts) else []
        written = sorted({str(source) for text in texts if (source := text.get("text_source", "none")) != "none"})
        return f" ({'; '.join([*told, *(f'texts by {source}' for source in written)])})" if told or written else ""

    @property
    def machines(self) -> tuple[str, ...]:
        """What its seeds were trained on, each kind once; "not recorded" where nobody wrote it down."""
        return tuple(dict.fromkeys(run.fields.get("machine") or "not recorded" for run in self.runs))

    @property
    def validation(self) -> float | None:
        """NDCG@10 on validation, mean over seeds; None where it was not written down."""
        found = [(run.fields.get("validation") or {}).get("val/ndcg@10") for run in self.runs]
        known = [float(value) for value in found if value is not None]
        return mean(known) if known else None

    @property
    def seconds_of_a_thousand(self) -> float | None:
        """Seconds to rank and list a thousand predictions, mean over seeds."""
        seconds, count = self.mean("test_seconds"), self.mean("count")
        return None if seconds is None or not count else 1000 * seconds / count

    @property
    def trials(self) -> float | None:
        """How many settings were tried before these runs; None where no search was recorded."""
        asked = (self.runs[0].fields.get("tuning") or {}).get("asked")
        return None if asked is None else float(asked)

    @property
    def command(self) -> str:
        """What trains and tests every seed of this row again."""
        return shlex.join(["seqrec", "reproduce", *(run.folder.as_posix() for run in self.runs)])


@dataclass(frozen=True)
class Table:
    """Rows that answer the same question.

    Attributes:
        rows: best mean NDCG@10 first.
        apart: fields of the passport that its title names, because it would be that of another table without them.
    """

    rows: tuple[Row, ...]
    apart: tuple[str, ...] = ()

    @property
    def data(self) -> str:
        return str(self.rows[0].runs[0].fields["data"])

    @property
    def passport(self) -> Mapping[str, Any]:
        return self.rows[0].runs[0].fields["passport"]

    @property
    def split(self) -> str:
        """The part of the title that does not depend on the data."""
        seen = "seen items excluded" if self.passport.get("seen_is_excluded") else "seen items ranked"
        told = [_phrase(self.passport, field) for field in self.apart if field not in OF_THE_DATA]
        return ", ".join([str(self.passport.get("kind")), seen, *told])

    @property
    def title(self) -> str:
        told = [_phrase(self.passport, field) for field in self.apart if field in OF_THE_DATA]
        return ", ".join([self.data, *told, self.split])

    @property
    def is_trained(self) -> bool:
        """Whether any row is more than counts, which are there to be beaten."""
        return any(row.mean("parameters") != 0 for row in self.rows)

    @property
    def by_validation(self) -> list[Row]:
        """The rows, best on validation first."""
        return sorted(self.rows, key=lambda row: (-(row.validation or 0.0), row.label))

    def row(self, label: str) -> Row | None:
        """The row of this label, else the best on validation of those with this name."""
        named = [row for row in self.by_validation if row.name == label]
        return next((row for row in self.rows if row.label == label), named[0] if named else None)


def read(folders: Iterable[Path]) -> list[Result]:
    """Every ``result.json`` at any depth of some folders, none twice.

    Raises:
        InputError: a folder is not there, holds none, or one cannot be read.
    """
    folders = list(folders)
    files: list[Path] = []
    for folder in folders:
        if not folder.exists():
            raise InputError(f"{folder} does not exist; give the folder of a run that `seqrec test` has measured.")
        files += [folder] if folder.is_file() else _below(folder)
    if not files:
        raise InputError(
            f"No result.json was found in {', '.join(map(str, folders)) or 'an empty list of folders'}; "
            "run `seqrec test` first and give the folder of the run."
        )
    return [_read(path) for path in dict.fromkeys(files)]


def _below(folder: Path) -> list[Path]:
    """The results at any depth of a folder, also behind links, but for those that a later run in their place laid
    aside."""
    found, known = [], set[str]()
    for place, inside, files in os.walk(folder, followlinks=True):
        here = os.path.realpath(place)
        # A link may lead back to where we came from.
        inside[:] = [] if here in known else [name for name in inside if not name.startswith(".")]
        found += [Path(place, "result.json")] if here not in known and "result.json" in files else []
        known.add(here)
    return sorted(found)


def tables_of(results: Iterable[Result]) -> list[Table]:
    """One table per passport, in order of data sets, those of counts alone last; no two have the same title."""
    by_passport: dict[tuple[str, ...], list[Result]] = defaultdict(list)
    for result in results:
        by_passport[result.passport].append(result)
    ordered = sorted(by_passport.values(), key=lambda runs: (str(runs[0].fields["data"]), runs[0].passport))
    tables = sorted((Table(tuple(_rows(runs))) for runs in ordered), key=lambda table: not table.is_trained)
    # By what says how they were split and judged, and only where that is not enough by what says which data they are.
    for also in ((), OF_THE_DATA):
        alike: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for table in tables:
            alike[table.title].append(table.passport)
        tables = [replace(table, apart=(*table.apart, *_apart(alike[table.title], also))) for table in tables]
    return tables


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """What keeps two passports from being compared, one phrase per field; empty where nothing does."""
    return [
        f"{label} ({field}): {shortened(one.get(field))} against {shortened(other.get(field))}"
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


def shortened(value: Any) -> str:
    """A field of a passport as a reader sees it."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return text if len(text) <= 40 else text[:12] + "…"


def _apart(passports: Sequence[Mapping[str, Any]], of_the_data: Sequence[str]) -> tuple[str, ...]:
    """The fields that differ, of those that say which data they are or, where that is empty, of the others."""
    asked = of_the_data or [field for field in COMPARED if field not in OF_THE_DATA]
    return tuple(field for field in asked if any(each.get(field) != passports[0].get(field) for each in passports))


def _phrase(passport: Mapping[str, Any], field: str) -> str:
    """A field as a title says it; only what has no meaning of its own is shortened."""
    value = passport.get(field)
    whole = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return f"{COMPARED[field]}: {shortened(value) if field in OF_THE_DATA else whole}"


def _rows(results: list[Result]) -> list[Row]:
    recipes: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        recipes[result.recipe].append(result)
    groups = [_once_each(runs) for runs in recipes.values()]
    wanted = [runs[0].name or str(runs[0].fields["model"]) for runs in groups]
    labels = [
        label if wanted.count(label) == 1 else f"{label} ({runs[0].study or runs[0].stem})"
        for label, runs in zip(wanted, groups, strict=True)
    ]
    # Two recipes may come from folders of one name.
    unique = [
        label if labels.count(label) == 1 else f"{label} [{labels[:at].count(label) + 1}]"
        for at, label in enumerate(labels)
    ]
    rows = [Row(label, runs) for label, runs in zip(unique, groups, strict=True)]
    return sorted(rows, key=lambda row: -(row.mean("ndcg@10") or 0.0))


def _once_each(runs: Iterable[Result]) -> tuple[Result, ...]:
    """No experiment twice: of several records of one, the first of those that hold most."""
    records: dict[str, list[Result]] = defaultdict(list)
    for run in runs:
        records[run.experiment].append(run)
    kept = tuple(max(same, key=_holds) for same in records.values())
    for one, same in zip(kept, records.values(), strict=True):
        for other in same:
            # As text, for what is no number is not even equal to itself.
            if str(other.fields["metrics"].get("ndcg@10")) != str(one.fields["metrics"].get("ndcg@10")):
                warnings.warn(
                    f"{other.folder} has the config and the seed of {one.folder} and other figures; only the latter is "
                    "shown, so leave out the folder of the one that is not wanted.",
                    stacklevel=2,
                )
    return kept


def _holds(run: Result) -> tuple[bool, bool, bool]:
    return run.ranks is not None, run.study is not None, "tuning" in run.fields


def _read(path: Path) -> Result:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}); run `seqrec test` for that run again.") from None
    told = fields if isinstance(fields, dict) else {}
    missing = [name for name, kind in NEEDED.items() if not isinstance(told.get(name), kind)]
    if not missing:
        missing = [f"passport.{name}" for name in COMPARED if name not in {*OPTIONAL, *fields["passport"]}]
    if missing:
        raise InputError(f"{path} has no {' and no '.join(missing)}; run `seqrec test` for that run again.")
    for name, value in fields["metrics"].items():
        if not isinstance(value, int | float | None):
            raise InputError(f"{path} has {value!r} for {name}, which is no number; run `seqrec test` for it again.")
    return Result(path.parent, fields)


def _as_text(field: Any) -> str:
    """A field of a passport in one way, for 7 and 7.0 are the same."""
    return json.dumps(json.loads(json.dumps(field), parse_float=_number), sort_keys=True)


def _number(text: str) -> int | float:
    value = float(text)
    return int(value) if value.is_integer() else value


def _without(config: Any, left_out: Set[str]) -> Any:
    """The same config without these keys, at any depth."""
    if isinstance(config, dict):
        return {name: _without(value, left_out) for name, value in config.items() if name not in left_out}
    return [_without(value, left_out) for value in config] if isinstance(config, list) else config
