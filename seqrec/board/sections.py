"""One table with all that the page says of it: cells, paired statistics, answers and claims."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product
from typing import Any

import numpy as np

from seqrec.board.answers import Answer, answers
from seqrec.board.gains import Gains, gains_of
from seqrec.board.mandatory import baseline, missing
from seqrec.board.reported import Claim
from seqrec.board.results import Result, Row, Table, tables_of
from seqrec.board.statistics import CriticalDifference, Paired, critical_difference, holm

METRICS = ("recall@10", "ndcg@10", "mrr@10", "coverage@10", "popularity_rank@10")
NOT_RUN = "not run"
NEXT = "NDCG@10 against the row below"
PUBLISHED = ("published row", "row here", "metric", "published", "ours", "difference", "why")


@dataclass(frozen=True)
class Cell:
    """What a reader sees, and the number to sort by."""

    text: str
    value: float | None = None


@dataclass(frozen=True)
class Section:
    """All that is said of one table.

    Attributes:
        table: the rows.
        gains: of the rows that kept the ranks of their users.
        baseline: the row that others are held against.
        missing: mandatory rows that the table lacks.
        answers: which model to choose.
        claims: what others report on this data.
    """

    table: Table
    gains: Gains | None
    baseline: Row
    missing: Sequence[str]
    answers: Sequence[Answer]
    claims: Sequence[Claim]

    @cached_property
    def paired(self) -> Mapping[str, tuple[Paired, float | None]]:
        """Of each row that can be paired with the baseline: the comparison, and p after Holm's correction, if it has
        one."""
        if self.gains is None or self.baseline not in self.gains.rows:
            return {}
        base, draws = self.gains.rows.index(self.baseline), self.gains.draws()
        found = {
            row.label: draws.paired(at, base) for at, row in enumerate(self.gains.rows) if row is not self.baseline
        }
        known = {label: each.by_user.p for label, each in found.items() if each.by_user is not None}
        corrected = dict(zip(known, holm(np.array(list(known.values()))).tolist(), strict=True))
        return {label: (each, corrected.get(label)) for label, each in found.items()}

    @cached_property
    def below(self) -> Mapping[str, Paired]:
        """Of each row that kept the ranks of its users: against the next of those further down the table."""
        if self.gains is None:
            return {}
        places = [self.gains.rows.index(row) for row in self.table.rows if row in self.gains.rows]
        return {self.gains.rows[at].label: self.gains.draws().paired(at, under) for at, under in pairwise(places)}

    @property
    def columns(self) -> list[str]:
        """Names of the cells of a row, in order."""
        metrics = [name for name in METRICS if any(row.values(name) for row in self.table.rows)]
        return [
            *("row", "model", "seeds", "trials", *metrics),
            *(f"NDCG@10 against {self.baseline.label}", "p (Holm)", "win / tie / loss", NEXT),
            *("parameters", "minutes", "trained on", "peak GiB", "s per 1,000 lists", "commit", "to get it again"),
        ]

    def cells(self) -> list[list[Cell]]:
        """The cells of every row, then a line for every mandatory row that is missing."""
        blank = [Cell("–")] * (len(self.columns) - 2)
        absent = [[Cell(name), Cell(NOT_RUN), *blank] for name in self.missing]
        return [self._cells(row) for row in self.table.rows] + absent

    def published(self) -> list[list[Cell]]:
        """What was published beside the rows here that follow its settings, a line per metric; see ``PUBLISHED``.

        Nothing of what is known of its protocol may differ from that of this table.
        """
        lines = []
        for claim in self.claims:
            if claim.contradictions(self.table):
                continue
            why = Cell("; ".join([*claim.differences(self.table), *([claim.note] if claim.note else [])]))
            rows = [row for row in self.table.rows if any(run.stem in claim.ours for run in row.runs)]
            for row, (name, value) in product(rows, claim.metrics.items()):
                ours = row.mean(name)
                if ours is None:
                    continue
                gap = Cell(f"{ours - value:+.4f}" + (f" ({ours / value - 1:+.1%})" if value else ""), ours - value)
                where = claim.kind if claim.verified else f"{claim.kind}, quoted by others"
                whose = [Cell(f"{claim.model} ({where})"), Cell(row.label), Cell(name)]
                lines.append([*whose, Cell(f"{value:.4f}", value), _spread(row, name), gap, why])
        return lines

    def _cells(self, row: Row) -> list[Cell]:
        runs = row.runs
        mixed = ", of different code" if len({run.code for run in runs}) > 1 else ""
        commits = sorted({_commit(run.fields) for run in runs})
        metrics = [name for name in METRICS if name in self.columns]
        return [
            *(Cell(row.label), Cell(row.model + row.caveat), Cell(f"{len(runs)}{mixed}", float(len(runs)))),
            _number(row.trials, 1.0, ",.0f"),
            *(_spread(row, name) for name in metrics),
            *self._against(row),
            _difference(self.below[row.label]) if row.label in self.below else Cell("–"),
            _number(row.mean("parameters"), 1.0, ",.0f"),
            _number(row.mean("wall_seconds"), 60.0, ",.1f"),
            Cell("; ".join(row.machines)),
            _number(row.mean("peak_memory_bytes"), 2.0**30, ",.2f"),
            _number(row.seconds_of_a_thousand, 1.0, ",.3f"),
            *(Cell(", ".join(commits)), Cell(row.command)),
        ]

    def _against(self, row: Row) -> list[Cell]:
        if row is self.baseline:
            return [Cell("baseline", 0.0), Cell("–"), Cell("–")]
        if row.label not in self.paired:
            whose = "of users not kept" if not row.is_complete else f"of {self.baseline.label} not kept"
            return [Cell(f"ranks {whose}"), Cell("–"), Cell("–")]
        found, p = self.paired[row.label]
        each = found.by_user
        if each is None or p is None:
            return [_difference(found), Cell("–"), Cell(f"{len(row.runs)} against {len(self.baseline.runs)} seeds")]
        counts = f"{each.wins:,} / {each.ties:,} / {each.losses:,}"
        return [_difference(found), Cell(p_text(p), p), Cell(counts, float(each.wins - each.losses))]


def sections_of(
    results: Iterable[Result], claims: Sequence[Claim], wanted: str | None, minutes: float
) -> list[Section]:
    """One section per passport.

    Args:
        results: of all runs.
        claims: what others report; each is shown beside the tables of its data.
        wanted: label of the baseline; None chooses one per table.
        minutes: budget of training time that the fourth answer is about.
    """
    sections = []
    for table in tables_of(results):
        gains = gains_of(table.rows)
        beside = [claim for claim in claims if f"{table.data}-".startswith(f"{claim.data}-")]
        said = answers(table, gains, minutes)
        sections.append(Section(table, gains, baseline(table, wanted), missing(table), said, beside))
    return sections


def across(sections: Sequence[Section]) -> list[tuple[str, list[str], list[str], CriticalDifference]]:
    """Critical differences over the data sets that were split alike: the split, the data, the rows that all of them
    have, and what was found. Rows are the same where their names are. Not every row need have been run on all of the
    data, so there is one for each choice of data sets that some row was run on."""
    alike: dict[tuple[str, ...], dict[str, Table]] = defaultdict(dict)
    for table in sorted((section.table for section in sections), key=lambda each: -len(each.rows)):
        # Data of one name are one data set, however often it was prepared or begun with.
        alike[table.rows[0].runs[0].protocol].setdefault(table.data, table)
    found = []
    for by_data in alike.values():
        tables = [by_data[data] for data in sorted(by_data)]
        names = dict.fromkeys(row.name for table in tables for row in table.rows)
        for runs_on in dict.fromkeys(tuple(bool(table.row(name)) for table in tables) for name in names):
            some = [table for table, has in zip(tables, runs_on, strict=True) if has]
            labels = [name for name in names if all(table.row(name) for table in some)]
            if len(some) < 2 or len(labels) < 2:
                continue
            scores = [[row.mean("ndcg@10") or 0.0 for label in labels if (row := table.row(label))] for table in some]
            found.append((some[0].split, [table.data for table in some], labels, critical_difference(np.array(scores))))
    return found


def _commit(fields: Mapping[str, Any]) -> str:
    """What trained a run, short: the commit of seqrec, and every module of someone's own with its digest."""
    digest, dash, changed = str(fields.get("commit")).partition("-")
    own = [f"{name} {code[:9]}" for name, code in (fields.get("own_code") or {}).items()]
    return " with ".join([digest[:9] + dash + changed, *own])


def p_text(p: float) -> str:
    """A p-value as a reader sees it."""
    return "< .0001" if p < 1e-4 else f"{p:.4f}"


def _spread(row: Row, name: str) -> Cell:
    """Mean ± standard deviation over seeds; the mean alone where there is one."""
    value, spread, digits = row.mean(name), row.spread(name), 1 if name.startswith("popularity_rank") else 4
    if value is None:
        return Cell("–")
    return Cell(f"{value:,.{digits}f}" + ("" if spread is None else f" ± {spread:.{digits}f}"), value)


def _difference(found: Paired) -> Cell:
    return Cell(f"{found.difference:+.4f} [{found.low:+.4f}, {found.high:+.4f}]", found.difference)


def _number(value: float | None, unit: float, form: str) -> Cell:
    return Cell("–") if value is None else Cell(format(value / unit, form), value)
