"""Intervals, corrections and critical differences against scipy, hand-computed examples and what they promise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from seqrec.board.statistics import Draws, SignedRank, critical_difference, holm


def test_the_interval_is_that_of_scipys_paired_bootstrap():
    random = np.random.default_rng(1)
    gains = random.random((2, 300))
    gains[0] += 0.03
    ours = Draws(gains, np.arange(300), repeats=4000).paired(0, 1)
    theirs = stats.bootstrap(
        tuple(gains), lambda one, other, axis: np.mean(one - other, axis=axis), paired=True, vectorized=True,
        n_resamples=4000, method="percentile", random_state=2,
    ).confidence_interval  # fmt: skip
    assert ours.difference == pytest.approx(gains[0].mean() - gains[1].mean())
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs), abs=0.003)
    assert ours.by_user.p == pytest.approx(stats.wilcoxon(gains[0], gains[1]).pvalue)
    assert ours.by_user.wins + ours.by_user.losses == 300


def test_predictions_of_a_user_stay_together():
    """Four equal predictions of each user say no more than one of them."""
    random = np.random.default_rng(3)
    gains = random.random((2, 200))
    alone = Draws(gains, np.arange(200)).paired(0, 1)
    repeated = Draws(gains.repeat(4, axis=1), np.arange(200).repeat(4)).paired(0, 1)
    assert (repeated.low, repeated.high) == pytest.approx((alone.low, alone.high))
    assert repeated.by_user.p == pytest.approx(alone.by_user.p)


def test_means_are_over_predictions_as_in_a_result():
    draws = Draws(np.array([[1.0, 0.0, 0.0, 1.0]]), np.array([0, 0, 0, 1]))
    assert draws.means.tolist() == [0.5]


def test_equal_rows_are_tied_and_not_told_apart():
    gains = np.random.default_rng(4).random(50)
    draws = Draws(np.stack([gains, gains]), np.arange(50))
    found = draws.paired(0, 1)
    assert (found.difference, found.low, found.high) == (0.0, 0.0, 0.0)
    assert found.by_user == SignedRank(p=1.0, wins=0, ties=50, losses=0)
    assert np.all(draws.simultaneous() == 0)


def test_differences_that_rounding_alone_tells_apart_are_of_one_rank():
    """Thirty users gain .1 + .2, as many lose .3."""
    users = np.repeat(np.arange(60), 2)
    first, second = np.zeros(120), np.zeros(120)
    first[:60], second[60:] = np.tile([0.1, 0.2], 30), np.tile([0.3, 0.0], 30)
    found = Draws(np.stack([first, second]), users).paired(0, 1).by_user
    assert found == SignedRank(p=1.0, wins=30, ties=0, losses=30)


def test_simultaneous_intervals_hold_for_all_pairs_at_once():
    """Of alike rows, some pair is told apart in about one of twenty tries, not in one of three as with plain ones."""
    random = np.random.default_rng(5)
    plain = wrong = 0
    for _ in range(60):
        draws = Draws(random.random((6, 60)), np.arange(60), repeats=400)
        wrong += bool((draws.simultaneous()[..., 0] > 0).any())
        plain += any(draws.paired(at, other).low > 0 for at in range(6) for other in range(6) if at != other)
    assert wrong <= 8
    assert plain >= 15


def test_holms_correction_of_a_textbook_example():
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_never_lowers_a_p_and_keeps_their_order(values):
    p = np.array(values)
    corrected = holm(p)
    assert np.all(corrected >= p)
    assert np.all(corrected <= 1)
    assert np.all(np.diff(corrected[np.argsort(p)]) >= 0)


def test_the_critical_difference_of_demsars_example():
    """Four classifiers on 14 data sets: Demšar (2006) gives 2.569 sqrt(4 * 5 / (6 * 14)) = 1.25."""
    scores = np.random.default_rng(6).random((14, 4))
    found = critical_difference(scores)
    assert found.distance == pytest.approx(1.25, abs=0.005)
    assert found.verdict.startswith("two rows are told apart if they differ by at least 1.25 (Nemenyi, 5 %); Friedman")
    few = critical_difference(scores[:2]).verdict
    assert few.startswith("so few data sets tell no two rows apart, which would have to differ by 3.3")


def test_mean_ranks_share_ties_and_friedman_agrees_with_scipy():
    scores = np.array([[0.3, 0.2, 0.1], [0.5, 0.5, 0.1], [0.4, 0.1, 0.2]])
    found = critical_difference(scores)
    assert found.mean_ranks == pytest.approx([(1 + 1.5 + 1) / 3, (2 + 1.5 + 3) / 3, (3 + 3 + 2) / 3])
    assert found.p == pytest.approx(stats.friedmanchisquare(*scores.T).pvalue)
    with pytest.raises(ValueError, match="takes two of each"):
        critical_difference(scores[:1])


def test_users_are_not_counted_where_one_row_has_more_seeds():
    """The mean of three seeds gains a little more often than one of the same model, never better."""
    random = np.random.default_rng(0)
    ease = random.random(2000) * 0.2
    seeds = (random.random((4, 2000)) < ease).astype(float)
    draws = Draws(np.stack([seeds[0], seeds[1:].mean(0), seeds[3]]), np.arange(2000), [1, 3, 1])
    paired = draws.paired(0, 1)
    assert paired.difference == pytest.approx(seeds[0].mean() - seeds[1:].mean())
    assert paired.by_user is None
    assert draws.paired(0, 2).by_user is not None


def test_a_group_is_as_sure_as_its_own_users_make_it():
    """Its users come and go with all others, yet its interval is about that of drawing them alone."""
    random = np.random.default_rng(8)
    gains, chosen = random.random((2, 900)), np.arange(0, 900, 3)
    alone = Draws(gains[:, chosen], chosen).paired(0, 1)
    among = Draws(gains[:, chosen], chosen, among=np.arange(900)).paired(0, 1)
    assert among.difference == pytest.approx(alone.difference)
    assert (among.low, among.high) == pytest.approx((alone.low, alone.high), abs=0.006)
    assert among.high - among.low == pytest.approx(alone.high - alone.low, rel=0.1)


def test_groups_are_drawn_with_the_same_users():
    gains = np.random.default_rng(9).random((1, 200))
    everyone, half = np.arange(200), np.arange(100)
    whole, first, second = (
        Draws(gains[:, some], some, among=everyone).drawn[:, 0] for some in (everyone, half, half + 100)
    )
    assert np.all(np.minimum(first, second) <= whole)
    assert np.all(whole <= np.maximum(first, second))
