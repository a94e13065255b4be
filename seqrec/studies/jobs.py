"""The pieces of a study that are done one by one: final runs and searches, and whether they are done already."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

import seqrec
from seqrec.data.errors import InputError
from seqrec.data.folders import digests_of_named, name_of
from seqrec.studies.study import Row, Search, Study
from seqrec.training.own_code import own_code

# Rooms and modules that no figure of a result depends on.
BESIDE = ("board", "studies", "export", "serving")
BESIDE_FILES = (
    "leaderboard",
    "reproduction",
    "quickstart",
    "run_export",
    "help_text",
    "suggestions",
    "cli",
    "robustness_report",
    "audit",
)
# Of these, what the outcome of a search depends on.
OF_SEARCHES = ("studies/searching", "studies/running")

COUNTING = "seqrec.training.counting_task.CountingTask"

Fingerprint = Mapping[str, Any]


@dataclass(frozen=True)
class Places:
    """Where a study works and where it keeps its results; machines that share both share the work.

    Attributes:
        runs: the runs themselves, with checkpoints.
        results: what is kept of them.
        any_code: whether what another version of the code has done counts as done.
    """

    runs: Path
    results: Path
    any_code: bool = False


@dataclass(frozen=True)
class Job:
    """One recipe on one data set: ``seed`` is that of a final run, or None for the search before it.

    Attributes:
        study: the study it belongs to.
        places: where it is done.
        data: name of the data set.
        label: name of the row.
        seed: see above.
    """

    study: Study
    places: Places
    data: str
    label: str
    seed: int | None

    @property
    def row(self) -> Row:
        return self.study.rows[self.label]

    @property
    def search(self) -> Search:
        assert self.study.search is not None
        return self.study.search

    @property
    def name(self) -> str:
        return f"{self.data}/{self.label}, " + ("search" if self.seed is None else f"seed {self.seed}")

    @property
    def seeds(self) -> Sequence[int]:
        """Of itself, or of the final runs that a search is for."""
        return (self.row.seeds or self.study.seeds) if self.seed is None else [self.seed]

    @property
    def _stem(self) -> str:
        return f"{self.label}-{'search' if self.seed is None else f'seed{self.seed}'}"

    @property
    def folder(self) -> Path:
        """Where the run lies, or the trials of the search."""
        return self.places.runs / self.study.name / self.data / self._stem

    @property
    def lock(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.lock")

    @property
    def said(self) -> Path:
        """What the job printed."""
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def kept(self) -> Path:
        """The file that says that the job is done, and what came out."""
        folder = self.places.results / self.study.name / self.data
        return folder / f"{self._stem}.json" if self.seed is None else folder / self._stem / "result.json"

    @property
    def before(self) -> Job | None:
        """The search that a final run waits for."""
        waits = self.seed is not None and self.row.space is not None
        return Job(self.study, self.places, self.data, self.label, None) if waits else None

    @property
    def is_ready(self) -> bool:
        return self.before is None or self.before.is_done

    @property
    def stack(self) -> list[str]:
        return [*self.study.data[self.data], *self.row.configs]

    @property
    def _set(self) -> dict[str, Any]:
        return {**self.row.set, **(self.search.set if self.seed is None else {})}

    @property
    def settings(self) -> dict[str, Any]:
        """Keys that refine the stack: those of the row, and of the trial that was chosen for it."""
        chosen = {} if self.before is None else chosen_trial(self.before.outcome)["params"]
        return {**self._set, **chosen}

    @property
    def epochs(self) -> int | None:
        """The most that it, or each of its trials, may train; None where neither study nor configs say so."""
        named = [((_content(config) or {}).get("trainer") or {}).get("max_epochs") for config in self.stack]
        return self._set.get("trainer.max_epochs") or next((epochs for epochs in reversed(named) if epochs), None)

    @property
    def arguments(self) -> list[str]:
        """What `seqrec fit` is told; where a row names other data, as published stacks do, those of the study count."""
        elsewhere = {_prepared(_content(config)) for config in self.row.configs} - {None, str(self._prepared)}
        of_the_study = {"data.prepared": str(self._prepared)} if elsewhere else {}
        return [*(f"--config={config}" for config in self.stack), *as_options(of_the_study | self.settings)]

    @property
    def counts(self) -> bool:
        """Whether its row counts, which takes seconds, where others train."""
        named = [((_content(config) or {}).get("model") or {}).get("class_path") for config in self.stack]
        return next((path for path in reversed(named) if path), None) == COUNTING

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What the figures depend on: a job is done if it was done with the same."""
        asked: list[Any] = [[_content(config) for config in self.stack], self.settings, self.seed]
        code = code_fingerprint() if self.seed is not None else code_fingerprint(OF_SEARCHES)
        if self.seed is None:
            asked += [self.row.space, self.search.trials, self.search.seed, self.search.metric]
            asked += [self.search.warmup_epochs, self.search.first]
        files = digests_of_named([asked[:2]], name_of(self._prepared))
        named = {"files": files} if files else {}
        named |= {"own_code": own} if (own := own_code(asked[:2])) else {}
        return {"config": digest(asked), "data": self._data_fingerprint, "code": code, **named}

    @property
    def _prepared(self) -> Path:
        configs = [*self.row.configs, *self.study.data[self.data]]
        named = [_prepared(found) for found in (*map(_content, configs), self.settings)]
        prepared = next((folder for folder in reversed(named) if folder), None)
        if prepared is None:
            raise InputError(f"No config of {self.name} says data.prepared; add one that does to the study.")
        return Path(prepared)

    @property
    def _data_fingerprint(self) -> str:
        manifest = self._prepared / "manifest.json"
        if not manifest.is_file():
            raise InputError(
                f"{self._prepared}, the data of {self.name}, is not there; run `seqrec prepare {self._prepared.name}` "
                "first."
            )
        return json.loads(manifest.read_text(encoding="utf-8"))["fingerprint"]

    @property
    def begun(self) -> dict[str, Any] | None:
        """The fingerprint with which its folder was begun; None where that is not what it would go on with."""
        try:
            begun = json.loads((self.folder / "job.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return begun if same(begun, self.fingerprint, self.places.any_code) else None

    @property
    def outcome(self) -> dict[str, Any]:
        """What was kept; nothing where nothing is."""
        try:
            return json.loads(self.kept.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    @property
    def is_done(self) -> bool:
        if not self.is_ready:
            return False
        return same(self.outcome.get("study", {}).get("fingerprint"), self.fingerprint, self.places.any_code)

    @property
    def seconds(self) -> float | None:
        """How long it took; None where it is not known."""
        return self.outcome.get("study", {}).get("seconds")


def jobs_of(study: Study, places: Places) -> list[Job]:
    """All jobs in the order they are best done: a search before its final runs, data set by data set."""
    jobs = []
    for data in study.data:
        for label, row in study.rows.items():
            if data not in (row.data or study.data):
                continue
            jobs += [Job(study, places, data, label, None)] if row.space is not None else []
            jobs += [Job(study, places, data, label, seed) for seed in row.seeds or study.seeds]
    return jobs


def chosen_trial(outcome: Mapping[str, Any]) -> Mapping[str, Any]:
    """The trial that a finished search chose."""
    return next(trial for trial in outcome["trials"] if trial["number"] == outcome["chosen"])


def same(one: Fingerprint | None, other: Fingerprint, any_code: bool) -> bool:
    """Whether two fingerprints agree, whatever the code if that is wanted."""
    if one is None:
        return False
    return all(one.get(part) == value for part, value in other.items() if not (any_code and part == "code"))


def as_options(settings: Mapping[str, Any]) -> list[str]:
    """Keys and values as options of the command line."""
    return [f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in settings.items()]


def digest(value: Any) -> str:
    """SHA-256 of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


@cache
def code_fingerprint(besides: Sequence[str] = ()) -> str:
    """SHA-256 of every module of the package that a figure may depend on, and of some besides."""
    package = Path(seqrec.__file__).parent
    found = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        place = path.relative_to(package)
        name = place.with_suffix("").as_posix()
        if name in besides or (place.parts[0] not in BESIDE and name not in BESIDE_FILES):
            found.update(place.as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


@cache
def _content(config: str) -> Any:
    try:
        content = yaml.safe_load(Path(config).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{config} is not YAML ({' '.join(str(error).split())}); correct it.") from None
    if content is not None and not isinstance(content, dict):
        raise InputError(f"{config} holds no keys, so it is no config; correct it, or name another file.")
    return content


def _prepared(found: Any) -> str | None:
    """The prepared folder that a config or some settings name."""
    if "data.prepared" in (found or {}):
        return found["data.prepared"]
    data = (found or {}).get("data")
    return data.get("prepared") if isinstance(data, dict) else None
