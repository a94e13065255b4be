"""What papers claim, to be shown beside what was measured here and never mixed into it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from seqrec.board.results import Table
from seqrec.data.errors import InputError

KINDS = ("paper", "readme", "log", "thread")
METRICS = tuple(f"{name}@{k}" for name in ("recall", "ndcg", "mrr", "coverage") for k in (1, 5, 10, 20, 50, 200))
CLICKS = ("auc", "gauc", "log_loss")


@dataclass(frozen=True)
class Protocol:
    """How a claim was measured; None where its source does not say.

    Attributes:
        split: the split as this library calls it, or in words where it has no such split.
        seen_is_excluded: whether a ranking left out what the user had.
        cold_targets: kept or dropped.
        candidates: what competed with the target.
    """

    split: str
    seen_is_excluded: bool | None
    cold_targets: str | None
    candidates: str


@dataclass(frozen=True)
class Claim:
    """One row that somebody published.

    Attributes:
        model: its name there.
        data: the data set, by the name of its card where there is one.
        copy: which copy of it: what is known of how it was made.
        metrics: by our names.
        protocol: how it was measured.
        source: who published it and where the figures stand.
        kind: paper, readme, log (of a run) or thread (quoted in an issue).
        verified: whether the figures were read where their authors put them, not quoted by somebody else.
        users: how many users it has there; None where the source does not say.
        items: how many items; None where the source does not say.
        note: what else a reader must know.
        ours: the runs here that follow its settings, by the names of their folders without the seed.
    """

    model: str
    data: str
    copy: str
    metrics: Mapping[str, float]
    protocol: Protocol
    source: str
    kind: str
    verified: bool
    users: int | None = None
    items: int | None = None
    note: str = ""
    ours: Sequence[str] = ()

    @property
    def data_there(self) -> str:
        """Which copy of the data, in words."""
        counts = [f"{count:,} {of}" for of, count in (("users", self.users), ("items", self.items)) if count]
        return ", ".join([*counts, self.copy])

    def differences(self, table: Table) -> list[str]:
        """Why it may not be compared with a table; what the source does not say is named, too."""
        unknown = [f"{label} not stated" for label, value, _ in self._stated(table) if value is None]
        return [*self.contradictions(table), *unknown, "order of equal times and test targets not published"]

    def contradictions(self, table: Table) -> list[str]:
        """What its source says of the protocol, and the table was made otherwise."""
        return [f"{label}: {words}" for label, value, words in self._stated(table) if value is not None and words]

    def _stated(self, table: Table) -> list[tuple[str, Any, str]]:
        """Of each field its label, what the source says, and that in words if the table was made otherwise."""
        passport, found = table.passport, []
        # Everyone is in one of the parts, at least where the newest events of each user are held out.
        there = {"users": max(passport.get("users", {}).values(), default=None), "items": passport.get("items")}
        for label, value in (("users", self.users), ("items", self.items)):
            if value is not None and there[label] is not None:
                found.append((label, value, "" if value == there[label] else f"{value:,}"))
        stated = {
            "kind": self.protocol.split,
            "seen_is_excluded": self.protocol.seen_is_excluded,
            "cold_targets": self.protocol.cold_targets,
            "candidates": self.protocol.candidates,
        }
        labels = {"kind": "split", "seen_is_excluded": "seen items", "cold_targets": "cold targets"}
        for field, value in stated.items():
            found.append(
                (labels.get(field, field), value, "" if value == passport.get(field) else _words(field, value))
            )
        return found


def read_claims(path: Path) -> list[Claim]:
    """The claims of a file.

    Raises:
        InputError: one of them lacks a field, has an unknown one, or a value that is not of its kind.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not YAML ({error}); correct it.") from None
    if not isinstance(content, dict) or not isinstance(content.get("claims"), list):
        raise InputError(f"{path} holds no list of claims; give it the key `claims`.")
    protocols = content.get("protocols", {})
    return [_claim(path, at, entry, protocols) for at, entry in enumerate(content["claims"], 1)]


def _claim(path: Path, at: int, entry: Any, protocols: Mapping[str, Any]) -> Claim:
    where = f"Claim {at} of {path}"
    entry = _known(where, entry, Claim)
    named = entry["protocol"]
    if named not in protocols:
        raise InputError(f"{where} names the protocol '{named}', which is not among {sorted(protocols)}; describe it.")
    protocol = Protocol(**_known(f"Protocol {named} of {path}", protocols[named], Protocol))
    figures = entry["metrics"]
    if not isinstance(figures, dict) or not figures:
        raise InputError(f"{where} has no metrics; give at least one.")
    for name, value in figures.items():
        if name not in (*METRICS, *CLICKS) or not isinstance(value, float) or not 0 <= value <= 1:
            raise InputError(f"{where} has {name}: {value}; a metric is one of ours and lies between 0 and 1.")
    if entry["kind"] not in KINDS or not isinstance(entry["verified"], bool):
        raise InputError(f"{where}: kind must be one of {', '.join(KINDS)}, and verified true or false; correct it.")
    for name in ("model", "data", "copy", "source"):
        if not isinstance(entry[name], str) or not entry[name].strip():
            raise InputError(f"{where} has {name}: {entry[name]}; give a text.")
    for name in ("users", "items"):
        if name in entry and (not isinstance(entry[name], int) or entry[name] < 1):
            raise InputError(f"{where} has {name}: {entry[name]}; give a whole number, or leave it out.")
    ours = entry.get("ours", [])
    if not isinstance(ours, list) or not all(isinstance(name, str) for name in ours):
        raise InputError(f"{where} has ours: {ours}; list the runs that follow its settings, such as [sigma-beauty].")
    return Claim(**(entry | {"protocol": protocol}))


def _known(where: str, entry: Any, kind: Any) -> dict[str, Any]:
    """The entry, if it has the fields of this kind and no others."""
    names = {field.name for field in fields(kind)}
    needed = {field.name for field in fields(kind) if field.default is MISSING}
    given = set(entry) if isinstance(entry, dict) else set()
    if not needed <= given <= names:
        wrong = [f"lacks {name}" for name in sorted(needed - given)]
        wrong += [f"has the unknown field {name}" for name in sorted(given - names)]
        raise InputError(f"{where} {', '.join(wrong)}; correct it.")
    return dict(entry)


def _words(field: str, value: Any) -> str:
    return ("excluded" if value else "ranked") if field == "seen_is_excluded" else str(value)
