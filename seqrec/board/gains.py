"""What every prediction of a table is worth under every row, lined up, and the groups of predictions to look at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float, Int

from seqrec.board.results import Result, Row
from seqrec.board.statistics import Draws
from seqrec.data.errors import InputError
from seqrec.evaluation import metrics

KEYS = ["user", "target", "place"]
HISTORY = (0.0, 5.0, 10.0, 20.0, 50.0, np.inf)
POPULARITY = (-1.0, 0.0, 5.0, 20.0, 100.0, np.inf)
COLD = 5
OF_RANKS = {"recall": metrics.recall, "ndcg": metrics.ndcg, "mrr": metrics.mrr}
LEAST = 30  # users; fewer say nothing of a group
_ROUNDING = 1e-5


@dataclass(frozen=True)
class Group:
    """Some of the predictions.

    Attributes:
        name: what they have in common.
        chosen: which they are.
        n_users: of how many users.
    """

    name: str
    chosen: Bool[np.ndarray, "M"]
    n_users: int

    @property
    def size(self) -> int:
        return int(self.chosen.sum())

    @property
    def is_large(self) -> bool:
        """Whether something can be said of it."""
        return self.n_users >= LEAST


@dataclass(frozen=True)
class Gains:
    """What each prediction is worth, NDCG@10 unless asked otherwise, the mean over the seeds of a row.

    Attributes:
        rows: those that kept the ranks of all their seeds.
        values: one line per row.
        users: the user of each prediction.
        history: events before each target; None where no run wrote it down.
        popularity: how often each target occurs in training; None where no run wrote it down.
    """

    rows: tuple[Row, ...]
    values: Float[np.ndarray, "rows M"]
    users: Int[np.ndarray, "M"]
    history: Int[np.ndarray, "M"] | None
    popularity: Int[np.ndarray, "M"] | None

    def draws(self, group: Group | None = None) -> Draws:
        """The rows on all predictions or on those of a group, with users drawn anew, the same for all groups."""
        return self._drawn[None if group is None else group.chosen.tobytes()]

    @cached_property
    def _drawn(self) -> Mapping[bytes | None, Draws]:
        n_seeds = [len(row.runs) for row in self.rows]
        others = [group for group in (self.short(), self.long(), self.cold()) if group and group.is_large]
        groups = {
            group.chosen.tobytes(): group.chosen for group in (*self.by_history(), *self.by_popularity(), *others)
        }
        return {None: Draws(self.values, self.users, n_seeds)} | {
            key: Draws(self.values[:, chosen], self.users[chosen], n_seeds, among=self.users)
            for key, chosen in groups.items()
        }

    def by_history(self) -> list[Group]:
        """Predictions of like history, in steps that are the same for all data; small groups are left out."""
        return [] if self.history is None else self._steps(self.history, HISTORY)

    def by_popularity(self) -> list[Group]:
        """Predictions of like popularity of the target, in steps alike for all data; small groups are left out."""
        return [] if self.popularity is None else self._steps(self.popularity, POPULARITY)

    def short(self) -> Group | None:
        """The quarter of predictions with the shortest histories, and those that are as long as its longest."""
        if self.history is None:
            return None
        edge = int(np.quantile(self.history, 0.25, method="lower"))
        return self._group(f"histories of at most {edge:,} events", self.history <= edge)

    def long(self) -> Group | None:
        """The quarter of predictions with the longest histories, and those that are as short as its shortest."""
        if self.history is None:
            return None
        edge = int(np.quantile(self.history, 0.75, method="higher"))
        return self._group(f"histories of at least {edge:,} events", self.history >= edge)

    def cold(self) -> Group | None:
        """Predictions whose item training hardly knows."""
        if self.popularity is None:
            return None
        return self._group(f"items at most {COLD} times in training", self.popularity <= COLD)

    def _steps(self, values: Int[np.ndarray, "M"], edges: tuple[float, ...]) -> list[Group]:
        groups = []
        for above, until in pairwise(edges):
            span = f"over {above:,.0f}" if until == np.inf else _span(int(above) + 1, int(until))
            groups.append(self._group(span, (values > above) & (values <= until)))
        return [group for group in groups if group.is_large]

    def _group(self, name: str, chosen: Bool[np.ndarray, "M"]) -> Group:
        return Group(name, chosen, np.unique(self.users[chosen]).size)


def parted(metric: str) -> tuple[str, int]:
    """The kind of a metric of ranks, and how many of a list count; an ``InputError`` where it is none."""
    kind, _, k = metric.partition("@")
    if kind not in OF_RANKS or not k.isdigit() or int(k) < 1:
        same = " (recall is the hit rate)" if kind in ("hit", "hr", "hits", "hit_rate") else ""
        raise InputError(
            f"There is no metric '{metric}'; name one of {', '.join(OF_RANKS)} with a length, e.g. ndcg@10{same}."
        )
    return kind, int(k)


def gains_of(rows: Iterable[Row], metric: str = "ndcg@10") -> Gains | None:
    """The predictions of the rows that kept the ranks of all their seeds; None where no row did.

    Args:
        rows: of one table.
        metric: ``recall``, ``ndcg`` or ``mrr`` and how many of a list count, such as ``recall@20``.

    Raises:
        InputError: a file of ranks is not whole, does not hold the predictions of the others, or not those of its
            result; there is no such metric.
    """
    kind, k = parted(metric)
    kept = tuple(row for row in rows if row.is_complete)
    if not kept:
        return None
    first: tuple[Result, pl.DataFrame] | None = None
    about: dict[str, np.ndarray] = {}
    values = []
    for row in kept:
        seeds = []
        for run in row.runs:
            table = _ranks(run)
            first = first or (run, table)
            if not table.select(KEYS).equals(first[1].select(KEYS)):
                raise InputError(
                    f"{run.folder / 'ranks.parquet'} holds other predictions than {first[0].folder / 'ranks.parquet'}, "
                    "though their passports agree; run `seqrec test` for both runs again."
                )
            about |= {name: table[name].to_numpy() for name in ("history", "popularity") if name in table.columns}
            seeds.append(_gains(table, kind, k))
        values.append(np.mean(seeds, axis=0))
    assert first is not None
    users = first[1]["user"].to_numpy()
    return Gains(kept, np.stack(values), users, about.get("history"), about.get("popularity"))


def _gains(table: pl.DataFrame, kind: str, k: int) -> Float[np.ndarray, "M"]:
    return OF_RANKS[kind](torch.from_numpy(table["rank"].to_numpy().copy()), k).double().numpy()


def _ranks(run: Result) -> pl.DataFrame:
    """Predictions in an order that all runs share; ``place`` tells a user's repeated target apart."""
    assert run.ranks is not None
    try:
        table = pl.read_parquet(run.ranks)
        # One target of a user may be asked for after several histories; ranks order them where lengths are not known.
        table = table.sort("user", "target", *(["history"] if "history" in table.columns else []), "rank")
    except pl.exceptions.PolarsError as error:
        why = " ".join(str(error).split())
        raise InputError(f"{run.ranks} holds no ranks ({why}); run `seqrec test` for that run again.") from None
    wanted, told = (run.fields["metrics"].get(name) for name in ("count", "ndcg@10"))
    if wanted is not None and table.height != int(wanted):
        raise InputError(
            f"{run.ranks} holds {table.height:,} predictions and result.json counts {int(wanted):,}; run `seqrec test` "
            "for that run again."
        )
    if told is not None and abs(_gains(table, "ndcg", 10).mean() - told) > _ROUNDING:
        raise InputError(
            f"{run.ranks} does not give the NDCG@10 of {told:.4f} that result.json says; run `seqrec test` for that "
            "run again."
        )
    return table.with_columns(place=pl.int_range(pl.len()).over("user", "target"))


def _span(lowest: int, highest: int) -> str:
    return f"{lowest:,}" if lowest == highest else f"{lowest:,} to {highest:,}"
