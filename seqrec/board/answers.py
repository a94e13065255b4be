"""Which model to choose: for short histories, for long ones, for cold items and under a budget of time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from seqrec.board.gains import Gains, Group
from seqrec.board.results import Row, Table


@dataclass(frozen=True)
class Answer:
    """A question and what the results say.

    Attributes:
        question: what was asked, with the group of predictions it is about.
        models: the rows to choose from, best first, with their caveats; one where the results tell it apart; none
            where nothing can be said.
        why: the figures and the interval behind it, and the rows that were no candidates.
    """

    question: str
    models: tuple[str, ...]
    why: str

    @property
    def headline(self) -> str:
        if not self.models:
            return "cannot be said"
        return self.models[0] if len(self.models) == 1 else f"not told apart: {', '.join(self.models)}"


def answers(table: Table, gains: Gains | None, minutes: float) -> list[Answer]:
    """The four answers of one table; none where nothing was trained but only counted.

    Args:
        table: rows that may be compared.
        gains: of the rows that kept their ranks.
        minutes: the budget of training time.
    """
    if not table.is_trained:
        return []
    questions: list[tuple[str, Group | None]] = [
        ("short histories", gains and gains.short()),
        ("long histories", gains and gains.long()),
        ("cold items", gains and gains.cold()),
    ]
    return [
        *(_among(question, table, gains, group) for question, group in questions),
        _within(table, gains, minutes),
    ]


def _among(question: str, table: Table, gains: Gains | None, group: Group | None) -> Answer:
    if gains is None or len(gains.rows) < 2:
        return Answer(question, (), "fewer than two rows kept the ranks of their users")
    if group is None:
        return Answer(question, (), "the ranks were kept without the lengths of histories and the counts of items")
    question = f"{question} ({group.name})"
    if not group.is_large:
        return Answer(question, (), f"users with such targets: {group.n_users}, which is too few")
    found = _best(question, gains, list(range(len(gains.rows))), group, f"{group.size:,} targets")
    without = [row.label for row in table.rows if not row.is_complete]
    if not without:
        return found
    return replace(found, why=f"{found.why}; left out, for lack of the ranks of a seed: {', '.join(without)}")


def _within(table: Table, gains: Gains | None, minutes: float) -> Answer:
    question = f"training in at most {minutes:g} minutes"
    quick = [row for row in table.rows if (seconds := row.mean("wall_seconds")) is not None and seconds <= 60 * minutes]
    if not quick:
        return Answer(question, (), f"no row trained that fast; {_quickest(table.rows)}")
    if len(quick) == 1:
        return Answer(question, (quick[0].label + quick[0].caveat,), "the only row that trained that fast")
    places = [] if gains is None else [at for at, row in enumerate(gains.rows) if row in quick]
    if gains is None or len(places) < 2:
        why = f"of {len(quick)} rows that trained that fast, {len(places)} kept the ranks of their users"
        leader = quick[0]  # rows come best first
        return Answer(question, (), f"{why}; the highest mean is that of {leader.label}, without an interval")
    found = _best(question, gains, places, None, f"{gains.users.size:,} targets")
    if len({machine for row in quick for machine in row.machines}) > 1:
        found = replace(found, why=f"{found.why}; not all were timed on one machine, or it was not recorded")
    without = [row.label for row in quick if not row.is_complete]
    if not without:
        return found
    return replace(found, why=f"{found.why}; left out, for lack of the ranks of a seed: {', '.join(without)}")


def _best(question: str, gains: Gains, places: Sequence[int], group: Group | None, size: str) -> Answer:
    """The best of some rows, and those that the simultaneous intervals do not tell apart from it."""
    draws = gains.draws(group)
    order = sorted(places, key=lambda at: -draws.means[at])
    best, rivals = order[0], order[1:]
    intervals = draws.simultaneous()
    alike = [at for at in rivals if intervals[best, at, 0] <= 0]
    names = tuple(gains.rows[at].label + gains.rows[at].caveat for at in (best, *alike))
    nearest = rivals[0]
    low, high = intervals[best, nearest]
    why = (
        f"NDCG@10 {draws.means[best]:.4f} of {gains.rows[best].label}, {draws.means[best] - draws.means[nearest]:+.4f} "
        f"[{low:+.4f}, {high:+.4f}] to {gains.rows[nearest].label}; {size}"
    )
    if alike:
        why += f"; of these {_quickest([gains.rows[at] for at in (best, *alike)])}"
    return Answer(question, names, why)


def _quickest(rows: Sequence[Row]) -> str:
    timed = [(seconds, row.label) for row in rows if (seconds := row.mean("wall_seconds")) is not None]
    if not timed:
        return "training times were not written down"
    seconds, label = min(timed)
    duration = f"{seconds:,.1f} seconds" if seconds < 60 else f"{seconds / 60:,.1f} minutes"
    return f"{label} trains fastest, in {duration}"
