"""The rows without which a table can flatter: three that count, and a SASRec that was tuned like the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from seqrec.board.results import Row, Table

WEEK = 7
PLAIN = [
    "seqrec.embeddings.ids.IdEmbedding",
    "seqrec.backbones.sasrec.SASRec",
    "seqrec.objectives.softmax.FullSoftmax",
]
POSITIONS = "seqrec.positions.learned."


def _model(row: Row) -> dict[str, Any]:
    return row.runs[0].fields["config"].get("model", {}).get("init_args", {})


def _recommender(row: Row) -> dict[str, Any]:
    recommender = _model(row).get("recommender", {})
    return recommender if isinstance(recommender, dict) else {"class_path": recommender}


def _is(row: Row, name: str) -> bool:
    return str(_recommender(row).get("class_path", "")).endswith(f".{name}")


def is_recent(row: Row) -> bool:
    """Popularity of the last week of training."""
    days = _recommender(row).get("init_args", {}).get("days")
    return _is(row, "RecentPopularity") and days == WEEK


def is_sasrec(row: Row) -> bool:
    """SASRec itself: items are known by their ids alone, events by a learned position in the input or by none, the loss
    is the full softmax and nothing else."""
    told, inside = _model(row), _recommender(row).get("init_args", {})
    parts = [part or {} for part in (inside.get("embedding"), inside.get("backbone"), told.get("objective"))]
    places = (inside.get("position") or {}).get("class_path", POSITIONS)
    in_attention = parts[1].get("init_args", {}).get("position")
    plain = [part.get("class_path") for part in parts] == PLAIN and places.startswith(POSITIONS) and not in_attention
    return plain and not told.get("auxiliaries") and not told.get("reweighter")


def is_tuned(row: Row) -> bool:
    """Whether its results carry the record of a search."""
    return all(run.fields.get("tuning") for run in row.runs)


MANDATORY: dict[str, Callable[[Row], bool]] = {
    "popularity": lambda row: _is(row, "Popularity"),
    "7-day popularity": is_recent,
    "first-order Markov": lambda row: _is(row, "Markov"),
    "SASRec with a record of its tuning": lambda row: is_sasrec(row) and is_tuned(row),
}


def missing(table: Table) -> list[str]:
    """The mandatory rows that a table lacks. Nobody knows the last week of a log that keeps no clock."""
    wanted = {name: fits for name, fits in MANDATORY.items() if fits is not is_recent or keeps_clock(table)}
    return [name for name, fits in wanted.items() if not any(fits(row) for row in table.rows)]


def keeps_clock(table: Table) -> bool:
    """Whether the times of the data are real ones, as far as any result says."""
    return all(run.fields["passport"].get("has_clock", True) for row in table.rows for run in row.runs)


def baseline(table: Table, wanted: str | None) -> Row:
    """The row that the others are held against: the one of this label where the table has it, SASRec, transitions,
    popularity, or the best row, in this order; of several the best on validation, however it was tuned, first those
    that kept their ranks."""
    by_label = table.row(wanted) if wanted else None
    if by_label is not None:
        return by_label
    tests = [is_sasrec, MANDATORY["first-order Markov"], MANDATORY["popularity"]]
    candidates = sorted(table.by_validation, key=lambda row: not row.is_complete)
    return next((row for fits in tests for row in candidates if fits(row)), table.rows[0])
