"""What the fillers of the simple attacks are made of."""

import numpy as np
from scipy import stats

from seqrec.data.poisoning.base import Mission, sample_lengths
from seqrec.data.poisoning.heuristic import Bandwagon, ProfileCopy, Random
from seqrec.data.poisoning.targets import Bucket

N_ITEMS, N_FAKES = 200, 400
TARGETS = np.array([10, 60, 110, 160, 190])


def mission() -> Mission:
    """Item 0 is the most popular, item 199 the least; users have 20 different items each."""
    random = np.random.default_rng(0)
    chances = 1 / np.arange(1, N_ITEMS + 1)
    histories = [random.choice(N_ITEMS, 20, replace=False, p=chances / chances.sum()) for _ in range(300)]
    items = np.concatenate(histories)
    return Mission(
        items,
        np.arange(0, items.size + 1, 20),
        np.bincount(items, minlength=N_ITEMS),
        TARGETS,
        random.integers(10, 51, N_FAKES),
    )


def fillers(profiles) -> np.ndarray:
    items = np.concatenate(profiles)
    return items[~np.isin(items, TARGETS)]


def test_random_fillers_are_uniform():
    found = fillers(Random().forge(mission(), np.random.default_rng(1)))
    # A uniform number inside the item's cell makes the test for continuous distributions exact.
    open_items = np.setdiff1d(np.arange(N_ITEMS), TARGETS)
    places = np.searchsorted(open_items, found) + np.random.default_rng(2).random(found.size)
    assert stats.kstest(places / open_items.size, "uniform").pvalue > 0.01
    popular = fillers(Bandwagon(popular=0.3).forge(mission(), np.random.default_rng(1)))
    places = np.searchsorted(open_items, popular) + np.random.default_rng(2).random(popular.size)
    assert stats.kstest(places / open_items.size, "uniform").pvalue < 0.01


def test_a_tenth_of_the_fillers_of_bandwagon_are_drawn_from_the_most_popular_tenth_of_the_items():
    """The other nine tenths fall there as often as chance has it."""
    known = mission()
    by_count = np.argsort(-known.counts[known.fillers], kind="stable")
    head = known.fillers[by_count[: N_ITEMS // 10]]
    for attack, expected in ((Random(), 0.1), (Bandwagon(), 0.1 + 0.9 * 0.1)):
        found = fillers(attack.forge(known, np.random.default_rng(1)))
        assert abs(np.isin(found, head).mean() - expected) < 0.012


def test_a_fake_pushes_what_five_draws_with_replacement_give():
    profiles = Random().forge(mission(), np.random.default_rng(1))
    pushed = np.array([np.isin(profile, TARGETS).sum() for profile in profiles])
    expected = 5 * (1 - (4 / 5) ** 5)  # different ones among five draws from five
    assert abs(pushed.mean() - expected) < 0.15
    assert set(pushed) <= {1, 2, 3, 4, 5}


def test_no_fake_is_longer_than_the_catalog_allows():
    random = np.random.default_rng(0)
    for length, most, expected in ((3, 99, 10), (30, 99, 30), (80, 99, 50), (30, 20, 20), (30, 7, 7), (3, 7, 7)):
        assert sample_lengths(np.array([length]), 2, most, random).tolist() == [expected] * 2


def test_a_bucket_begins_with_its_lower_percentile_and_ends_before_its_upper_one():
    counts = np.random.default_rng(0).permutation(101)  # of which the p-th percentile is p
    bounds = {Bucket.tail: (0, 50), Bucket.lower_torso: (50, 75), Bucket.upper_torso: (75, 95), Bucket.head: (95, 101)}
    for bucket, (first, end) in bounds.items():
        assert sorted(counts[bucket.members(counts)]) == list(range(first, end))


def test_targets_stand_anywhere_but_at_the_end():
    profiles = Random().forge(mission(), np.random.default_rng(1))
    places = [place / (len(profile) - 3) for profile in profiles for place in np.flatnonzero(np.isin(profile, TARGETS))]
    assert min(places) == 0
    assert max(places) == 1
    assert abs(np.mean(places) - 0.5) < 0.05


def test_a_copy_keeps_the_order_of_the_newest_events_of_a_real_user():
    known = mission()
    histories = [known.history(user).tolist() for user in range(known.n_users)]
    short = Mission(known.items, known.offsets, known.counts, TARGETS, np.full(50, 15))
    for profile in ProfileCopy().forge(short, np.random.default_rng(1)):
        kept = [item for item in profile.tolist() if item not in TARGETS]
        assert any([item for item in history if item not in TARGETS][-len(kept) :] == kept for history in histories)


def test_a_copy_that_must_be_longer_than_anyone_is_begins_with_strange_items():
    known = mission()
    long = Mission(known.items, known.offsets, known.counts, TARGETS, np.full(5, 40))
    for profile in ProfileCopy().forge(long, np.random.default_rng(1)):
        kept = [item for item in profile.tolist() if item not in TARGETS]
        assert any(
            [item for item in known.history(user).tolist() if item not in TARGETS] == kept[-n:]
            for user in range(known.n_users)
            for n in range(15, 21)
        )
