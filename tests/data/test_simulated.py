"""The simulated shop is what it says: its stated distribution is the one it draws from, and nothing ranks better."""

import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from seqrec.data.simulated import LEAVES, SUCCESSOR_SHARES, SimulatedShop


@pytest.fixture(scope="module")
def shop() -> SimulatedShop:
    return SimulatedShop()


def histories(shop: SimulatedShop) -> dict[str, list[str]]:
    log = shop.read().collect().sort("user_id", "timestamp", maintain_order=True)
    grouped = log.group_by("user_id", maintain_order=True).agg("item_id")
    return dict(zip(grouped["user_id"], grouped["item_id"].to_list(), strict=True))


def ndcg(ranks: np.ndarray) -> float:
    return float(np.where(ranks < 10, 1 / np.log2(ranks + 2), 0.0).mean())


def test_the_same_seed_gives_the_same_shop_and_another_seed_another():
    first, again, other = (SimulatedShop(users=20, items=60, mean_events=8.0, seed=seed) for seed in (1, 1, 2))
    assert first.read().collect().equals(again.read().collect())
    assert first.items().collect().equals(again.items().collect())
    assert first.oracle_ranks().equals(again.oracle_ranks())
    assert not first.read().collect().equals(other.read().collect())


def test_the_order_in_which_it_is_asked_changes_nothing():
    one, other = (SimulatedShop(users=20, items=60, mean_events=8.0) for _ in range(2))
    ranks, log = one.oracle_ranks(), one.read().collect()
    assert other.read().collect().equals(log)
    assert other.oracle_ranks().equals(ranks)


def test_the_log_is_in_order_of_time_and_rates_what_is_sold():
    shop = SimulatedShop(users=20, items=60, mean_events=8.0)
    log = shop.read().collect()
    assert log["timestamp"].is_sorted()
    assert set(log["rating"]) <= {1.0, 2.0, 3.0, 4.0, 5.0}
    assert set(log["item_id"]) <= set(shop.items().collect()["item_id"])


def test_two_thousand_users_take_seconds():
    start = time.process_time()
    assert SimulatedShop(seed=3).read().collect().height == pytest.approx(60_000, rel=0.05)
    assert time.process_time() - start < 8  # usually well below one second; the machine may be busy


@settings(max_examples=15, deadline=None)
@given(
    users=st.integers(1, 30),
    items=st.integers(50, 90),
    seed=st.integers(0, 99),
    session_length=st.floats(1, 9),
    pull=st.floats(0, 1),
)
def test_nobody_buys_twice_and_no_two_events_of_a_user_tie(users, items, seed, session_length, pull):
    shop = SimulatedShop(users, items, seed, mean_events=9.0, session_length=session_length, pull=pull)
    log = shop.read().collect()
    assert log.select("user_id", "item_id").is_unique().all()
    assert log.select("user_id", "timestamp").is_unique().all()
    lengths = log.group_by("user_id").len()["len"]
    assert lengths.len() == users
    assert lengths.is_between(5, items // 2).all()


def test_the_distribution_is_the_one_the_docstring_describes():
    shop = SimulatedShop(users=3, items=75, mean_events=8.0, session_length=4.0, pull=0.6)
    leaf, demand = shop._shelves.leaf, shop._shelves.demand
    for row, (user, history) in enumerate(histories(shop).items()):
        rows = [int(raw[-5:]) for raw in history[:-1]]
        expected = np.zeros(75)
        for item in set(range(75)) - set(rows):
            new = shop.taste[row, leaf[item]] * demand[item]
            shared = demand[item] * (leaf[item] == leaf[rows[-1]])
            expected[item] = new / 4 + 3 / 4 * (0.6 * shop._shelves.follows[rows[-1], item] + 0.4 * shared)
        expected /= expected.sum()
        np.testing.assert_allclose(shop.next_item_distribution(user, history[:-1]), expected)
        np.testing.assert_allclose(shop.oracle_distributions()[row], expected)


def test_every_distribution_sums_to_one_and_leaves_out_what_the_user_has(shop):
    user, history = next(iter(histories(shop).items()))
    for known in range(len(history)):
        chances = shop.next_item_distribution(user, history[:known])
        assert chances.sum() == pytest.approx(1.0)
        assert chances.min() >= 0.0
        assert all(chances[int(raw[-5:])] == 0.0 for raw in history[:known])


def test_the_first_event_is_drawn_by_taste_and_demand(shop):
    chances = shop.next_item_distribution("user-00007", [])
    by_leaf = np.bincount(shop._shelves.leaf, weights=chances, minlength=len(LEAVES))
    np.testing.assert_allclose(by_leaf, shop.taste[7])


def test_an_item_is_followed_by_its_successors_inside_its_leaf(shop):
    follows, leaf = shop._shelves.follows, shop._shelves.leaf
    np.testing.assert_allclose(np.sort(follows, axis=1)[:, :-4:-1], np.tile(SUCCESSOR_SHARES, (500, 1)))
    before, after = np.nonzero(follows)
    assert (leaf[before] == leaf[after]).all()


@pytest.mark.parametrize("place", [-1, -2, -3, -4])
def test_what_happened_follows_the_stated_distribution(shop, place):
    """Where the event falls in its own cumulated distribution must be uniform; 20 bins, chi-square with 19 freedoms."""
    chances = shop.oracle_distributions(place)
    target = shop.oracle_ranks(place)["item_id"].str.slice(-5).cast(pl.Int64).to_numpy()
    order = np.argsort(-chances, axis=1)
    heights = np.cumsum(np.take_along_axis(chances, order, axis=1), axis=1)
    column = np.argmax(order == target[:, None], axis=1)
    users = np.arange(len(target))
    lottery = np.random.default_rng(0).random(len(target))
    marks = heights[users, column] - lottery * chances[users, target]
    counts = np.bincount(np.minimum((marks * 20).astype(int), 19), minlength=20)
    expected = len(target) / 20
    assert ((counts - expected) ** 2 / expected).sum() < 43.8  # the 99.9 % quantile


def test_every_item_occurs_as_often_as_stated(shop):
    places = (-1, -2, -3, -4)
    chances = [shop.oracle_distributions(place) for place in places]
    targets = np.concatenate([shop.oracle_ranks(p)["item_id"].str.slice(-5).cast(pl.Int64).to_numpy() for p in places])
    mean = sum(c.sum(axis=0) for c in chances)
    variance = sum((c * (1 - c)).sum(axis=0) for c in chances)
    distance = (np.bincount(targets, minlength=500) - mean) / np.sqrt(variance)
    assert 0.75 < (distance**2).mean() < 1.25  # one, give or take four standard errors of 500 items


def test_sessions_are_as_long_as_asked_for():
    shop = SimulatedShop(users=500, items=2000, mean_events=20.0, session_length=4.0)
    later = np.delete(shop._walks.begins, shop._walks.offsets[:-1])
    assert later.mean() == pytest.approx(1 / 4, abs=0.03)
    gaps = shop.read().collect().sort("user_id", "timestamp").select(pl.col("timestamp").diff().over("user_id"))
    assert (gaps.drop_nulls()["timestamp"] >= 3600).mean() == pytest.approx(later.mean(), abs=0.03)


def test_ranks_of_the_oracle_speak_of_the_newest_events(shop):
    ranks, after = shop.oracle_ranks(), histories(shop)
    assert ranks.columns == ["user_id", "item_id", "rank"]
    assert all(after[user][-1] == item for user, item, _ in ranks.iter_rows())
    user, item, rank = ranks.row(11)
    chances = shop.next_item_distribution(user, after[user][:-1])
    assert rank == (chances > chances[int(item[-5:])]).sum()


def test_no_ranking_beats_the_oracle_and_the_sequence_matters(shop):
    after = histories(shop)
    target = shop.oracle_ranks()["item_id"].str.slice(-5).cast(pl.Int64).to_numpy()
    rows = [[int(raw[-5:]) for raw in history[:-1]] for history in after.values()]
    counts, follows = np.zeros(500), np.zeros((500, 500))
    for history in rows:
        counts[history] += 1
        np.add.at(follows, (history[:-1], history[1:]), 1)

    def reached(scores: np.ndarray) -> float:
        scores = scores.copy()
        for row, history in enumerate(rows):
            scores[row, history] = -1.0
        own = scores[np.arange(len(target)), target]
        return ndcg((scores >= own[:, None]).sum(axis=1) - 1)

    oracle = ndcg(shop.oracle_ranks()["rank"].to_numpy())
    popularity = reached(np.tile(counts, (len(rows), 1)))
    taste = reached(shop.taste[:, shop._shelves.leaf] * shop._shelves.demand)
    markov = reached(follows[[history[-1] for history in rows]] + counts / 1e6)
    assert popularity < taste < markov < oracle
    assert popularity < 0.25 * oracle
    assert 0.7 * oracle < markov < 0.98 * oracle


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), noise=st.floats(0.01, 5))
def test_no_other_ranking_has_a_higher_expectation(seed, noise):
    shop = SimulatedShop(users=10, items=60, mean_events=8.0, seed=seed % 7)
    chances = shop.oracle_distributions()
    other = np.log(chances + 1e-9) + noise * np.random.default_rng(seed).normal(size=chances.shape)
    discount = 1 / np.log2(np.arange(10) + 2)

    def expected(scores: np.ndarray) -> np.ndarray:
        best = np.argsort(-scores, axis=1)[:, :10]
        return np.take_along_axis(chances, best, axis=1) @ discount

    assert (expected(other) <= expected(chances) + 1e-12).all()


def test_titles_and_descriptions_carry_the_category(shop):
    items = shop.items().collect()
    assert items["item_id"].is_unique().all()
    for title, text, (department, leaf) in items.select("title", "text", "categories").iter_rows():
        assert leaf in title
        assert leaf.lower() in text
        assert department.lower() in text


def test_every_interaction_has_a_review_that_names_the_item(shop):
    log, reviews = shop.read().collect(), shop.reviews().collect()
    assert reviews.select("user_id", "item_id").equals(log.select("user_id", "item_id"))
    titles = dict(shop.items().collect().select("item_id", "title").iter_rows())
    assert all(review.startswith(titles[item]) for item, review in reviews.head(100).select("item_id", "review").rows())


@pytest.mark.parametrize(
    "arguments",
    [{"users": 0}, {"items": 49}, {"mean_events": 300.0}, {"session_length": 0.5}, {"pull": 1.5}, {"zipf": -1.0}],
)
def test_arguments_out_of_range_are_refused_by_name(arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=name):
        SimulatedShop(**arguments)


def test_a_place_or_person_that_is_not_there_is_refused(shop):
    with pytest.raises(ValueError, match="place = 0"):
        shop.oracle_ranks(0)
    with pytest.raises(KeyError):
        shop.next_item_distribution("nobody", [])


def test_the_card_counts_what_the_generator_makes(shop):
    card = yaml.safe_load((Path(__file__).parents[2] / "data/cards/simulated-shop.yaml").read_text())
    log = SimulatedShop(**card["source"]["init_args"]).read().collect()
    counts = {"users": log["user_id"].n_unique(), "items": log["item_id"].n_unique(), "interactions": log.height}
    assert counts == {name: card["counts"][name] for name in counts}
