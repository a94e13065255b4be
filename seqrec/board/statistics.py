"""How sure a difference is: paired bootstrap over users, Wilcoxon with Holm's correction, critical differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from scipy import stats
from threadpoolctl import threadpool_limits


@dataclass(frozen=True)
class SignedRank:
    """For how many users a row is better than another, and how sure that is.

    Attributes:
        p: two-sided Wilcoxon signed-rank, over users that differ; 1 where none does.
        wins: users for whom the first is better.
        ties: users for whom both are alike.
        losses: users for whom the second is better.
    """

    p: float
    wins: int
    ties: int
    losses: int


@dataclass(frozen=True)
class Paired:
    """One row against another on the same users.

    Attributes:
        difference: mean over predictions of the first minus that of the second.
        low: lower end of the interval.
        high: upper end.
        by_user: user by user; None where one row has more seeds: a mean of more of them gains a little more often, and
            much more seldom, whatever the model.
    """

    difference: float
    low: float
    high: float
    by_user: SignedRank | None


class Draws:
    """Means of several rows when the users are drawn anew, the same users for all rows: every pair is paired.

    A user's predictions stay together. Means are over predictions, as in ``result.json``.

    Args:
        gains: what each prediction is worth, for every row.
        users: the user of each prediction.
        n_seeds: of how many seeds each row is the mean; None where there is one of each.
        among: users to draw from, where the predictions are those of some of them: of dozens at least, since a draw
            without any has no mean.
        repeats: how often users are drawn.
        seed: of the draw.
    """

    def __init__(
        self,
        gains: Float[np.ndarray, "rows M"],
        users: Int[np.ndarray, "M"],
        n_seeds: Sequence[int] | None = None,
        among: Int[np.ndarray, "N"] | None = None,
        repeats: int = 2000,
        seed: int = 0,
    ) -> None:
        everyone = np.unique(users if among is None else among)
        present, at = np.unique(users, return_inverse=True)
        self.counts = np.bincount(at)
        self.sums = np.stack([np.bincount(at, row) for row in gains])
        self.n_seeds = [1] * len(gains) if n_seeds is None else list(n_seeds)
        self.means = self.sums.sum(1) / self.counts.sum()
        columns = np.vstack([self.sums, self.counts]).T
        places = np.searchsorted(everyone, present)
        times = _times(everyone.size, repeats, seed)
        parts = np.array_split(times, max(1, repeats // 50))
        with threadpool_limits(1, "blas"):  # products this thin are not worth the threads, which wait by spinning
            drawn = np.concatenate([part[:, places] @ columns for part in parts])
        self.drawn: Float[np.ndarray, "repeats rows"] = drawn[:, :-1] / drawn[:, -1:]

    def paired(self, first: int, second: int, confidence: float = 0.95) -> Paired:
        """The first row against the second, with a percentile interval of its own."""
        tail = (1 - confidence) / 2
        low, high = np.quantile(self.drawn[:, first] - self.drawn[:, second], [tail, 1 - tail])
        difference = float(self.means[first] - self.means[second])
        if self.n_seeds[first] != self.n_seeds[second]:
            return Paired(difference, float(low), float(high), None)
        # Without the last digits, which would put what is equal in an order of its own.
        per_user = np.round((self.sums[first] - self.sums[second]) / self.counts, 12)
        differing = per_user != 0
        result: Any = stats.wilcoxon(per_user[differing]) if differing.any() else None
        p = 1.0 if result is None else float(result.pvalue)
        wins, losses = int((per_user[differing] > 0).sum()), int((per_user[differing] < 0).sum())
        ties = per_user.size - wins - losses
        return Paired(difference, float(low), float(high), SignedRank(p, wins, ties, losses))

    def simultaneous(self, confidence: float = 0.95) -> Float[np.ndarray, "rows rows 2"]:
        """Intervals of every difference, row minus column, that hold all at once with this confidence.

        The width is the quantile of the largest standardised deviation over all pairs, so that a row may be called the
        best after having been chosen by the same figures.
        """
        centre = self.means[:, None] - self.means[None, :]
        off = self.drawn[:, :, None] - self.drawn[:, None, :] - centre
        scale = off.std(axis=0)
        apart = scale > 1e-12
        width = 0.0
        if apart.any():
            width = float(np.quantile((np.abs(off[:, apart]) / scale[apart]).max(axis=1), confidence))
        return np.stack([centre - width * scale, centre + width * scale], axis=-1)


@lru_cache(maxsize=1)  # groups of one table come one after another
def _times(n_users: int, repeats: int, seed: int) -> UInt8[np.ndarray, "repeats users"]:
    """How often each user is drawn."""
    generator = np.random.default_rng(seed)
    times = np.empty((repeats, n_users), dtype=np.uint8)  # nobody is drawn 256 times
    for each in times:
        each[:] = np.bincount(generator.integers(0, n_users, n_users), minlength=n_users)
    return times


def holm(p: Float[np.ndarray, "tests"]) -> Float[np.ndarray, "tests"]:
    """Holm's step-down correction of p-values that were looked at together."""
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    corrected = np.empty_like(p, dtype=float)
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected


@dataclass(frozen=True)
class CriticalDifference:
    """Mean ranks of rows over data sets, and how far apart two must be to be told apart (Nemenyi; Demšar, JMLR 2006).

    Attributes:
        mean_ranks: 1 is best.
        distance: the critical difference at 5 %.
        p: of Friedman's test that all rows are alike; None with fewer than three rows, where it is not defined.
    """

    mean_ranks: Float[np.ndarray, "rows"]
    distance: float
    p: float | None

    @property
    def verdict(self) -> str:
        """What the mean ranks can tell."""
        farthest = len(self.mean_ranks) - 1
        if self.distance > farthest:
            said = f"so few data sets tell no two rows apart, which would have to differ by {self.distance:.2f}"
        else:
            said = f"two rows are told apart if they differ by at least {self.distance:.2f} (Nemenyi, 5 %)"
        return said if self.p is None else f"{said}; Friedman's test p = {self.p:.4f}"


def critical_difference(scores: Float[np.ndarray, "sets rows"]) -> CriticalDifference:
    """Rank rows within each data set, high scores first, and compare the mean ranks.

    Raises:
        ValueError: fewer than two data sets or rows.
    """
    n_sets, n_rows = scores.shape
    if n_sets < 2 or n_rows < 2:
        raise ValueError(f"There are {n_sets} data sets and {n_rows} rows; a critical difference takes two of each.")
    ranks = stats.rankdata(-scores, axis=1)
    distance = (
        stats.studentized_range.ppf(0.95, n_rows, np.inf) / np.sqrt(2) * np.sqrt(n_rows * (n_rows + 1) / 6 / n_sets)
    )
    p = float(stats.friedmanchisquare(*scores.T).pvalue) if n_rows > 2 else None
    return CriticalDifference(ranks.mean(axis=0), float(distance), p)
