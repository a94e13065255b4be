"""The simulated long taste is what it says: the recent part hides what is asked for, and both oracles are exact."""

from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

from seqrec.data.card import Card
from seqrec.data.prepare import prepare_log
from seqrec.data.protocol import LeaveOneOut
from seqrec.data.simulated import LEAVES
from seqrec.data.simulated_taste import FAITH, SimulatedLongTaste

ROOT = Path(__file__).parents[2]
CONFIG = yaml.safe_load((ROOT / "configs/data/long-taste.yaml").read_text())["data"]
DISCOUNT = 1 / np.log2(np.arange(10) + 2)


@pytest.fixture(scope="module")
def source() -> SimulatedLongTaste:
    return SimulatedLongTaste(users=2000)


def histories(source: SimulatedLongTaste) -> dict[str, list[str]]:
    log = source.read().collect().sort("user_id", "timestamp")
    grouped = log.group_by("user_id", maintain_order=True).agg("item_id")
    return dict(zip(grouped["user_id"], grouped["item_id"].to_list(), strict=True))


def rows(source: SimulatedLongTaste) -> np.ndarray:
    return np.array([[int(raw[-5:]) for raw in history] for history in histories(source).values()])


def misfit(chances: np.ndarray, target: np.ndarray) -> float:
    """Chi-square with 19 freedoms: where events fall in their own cumulated distributions must be uniform."""
    order = np.argsort(-chances, axis=1, kind="stable")
    heights = np.cumsum(np.take_along_axis(chances, order, axis=1), axis=1)
    users = np.arange(len(target))
    column = np.argmax(order == target[:, None], axis=1)
    marks = heights[users, column] - np.random.default_rng(0).random(len(target)) * chances[users, target]
    counts = np.bincount(np.clip((marks * 20).astype(int), 0, 19), minlength=20)
    expected = len(target) / 20
    return float(((counts - expected) ** 2 / expected).sum())


def test_the_same_seed_gives_the_same_log_and_another_seed_another():
    first, again, other = (SimulatedLongTaste(users=20, seed=seed) for seed in (1, 1, 2))
    ranks = again.oracle_ranks()  # the order of asking changes nothing
    assert first.read().collect().equals(again.read().collect())
    assert first.items().collect().equals(again.items().collect())
    assert first.oracle_ranks().equals(ranks)
    assert not first.read().collect().equals(other.read().collect())


def test_the_log_is_shaped_like_a_source():
    source = SimulatedLongTaste(users=20, older=40, recent=15)
    log = source.read().collect()
    assert dict(log.schema) == {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64}
    assert log["timestamp"].is_sorted()
    assert log.select("user_id", "timestamp").is_unique().all()
    assert set(log.group_by("user_id").len()["len"]) == {40 + 15 + 2}
    assert set(log["item_id"]) <= set(source.items().collect()["item_id"])


def test_titles_and_descriptions_carry_the_leaf_and_no_two_titles_are_alike():
    items = SimulatedLongTaste(items=5000).items().collect()
    assert items["item_id"].is_unique().all()
    assert items["title"].is_unique().all()
    for number in (0, 151, 3749):
        title, text, categories = items.row(number)[1:]
        assert categories == list(LEAVES[number // 150])
        assert categories[1] in title
        assert categories[1].lower() in text
    assert items.row(3750)[1:] == ("Bread no. 1", "Bread, a grocery.", ["Groceries", "Bread"])


@pytest.mark.parametrize("place", [-1, -2])
@pytest.mark.parametrize("recent", [3, 10, 50])
def test_the_recent_events_are_the_same_whatever_the_favourite_of_the_asked_leaf(place, recent):
    source, other = (SimulatedLongTaste(users=300, older=60, recent=recent) for _ in range(2))
    before = rows(source)
    users, asked = np.arange(300), before[:, place] // 30
    other.taste[users, asked] = (other.taste[users, asked] + 1) % 30
    changed = before != rows(other)
    assert not changed[:, place - recent : place].any()
    assert changed[:, : place - recent].any(axis=1).mean() > 0.9
    assert changed[:, place].mean() == pytest.approx(FAITH, abs=0.07)  # three standard errors


@pytest.mark.parametrize("place", [-1, -2])
@pytest.mark.parametrize("knows_old", [True, False])
def test_both_distributions_average_over_every_possible_favourite(place, knows_old):
    source = SimulatedLongTaste(users=40, items=100, older=29, recent=20)
    for history, chances in zip(rows(source), source.oracle_distributions(place, knows_old), strict=True):
        leaf = history[place] // 3
        known = history[:place] if knows_old else history[:place][-20:]
        expected, total = np.zeros(100), 0.0
        for favourite in range(3 * leaf, 3 * leaf + 3):
            drawn = np.zeros(100)
            drawn[3 * leaf : 3 * leaf + 3] = (1 - FAITH) / 3
            drawn[favourite] += FAITH
            likelihood = np.prod([drawn[item] for item in known if item // 3 == leaf])
            expected, total = expected + likelihood * drawn, total + likelihood
        np.testing.assert_allclose(chances, expected / total)


def test_who_reads_all_events_expects_what_the_user_had_most_often_of_the_leaf(source):
    leaf_of = dict(source.items().select("item_id", pl.col("categories").list.get(1)).collect().iter_rows())
    ids = list(leaf_of)
    for history in list(histories(source).values())[:50]:
        had = Counter(raw for raw in history[:-1] if leaf_of[raw] == leaf_of[history[-1]]).most_common(2)
        if len(had) == 1 or had[0][1] > had[1][1]:
            chances = source.next_item_distribution(history[:-1])
            assert ids[chances.argmax()] == had[0][0]
            assert chances.sum() == pytest.approx(1.0)


@pytest.mark.parametrize("place", [-1, -2])
def test_what_happened_follows_the_stated_distributions_and_no_others(source, place):
    target = rows(source)[:, place]
    knowing, recent = (source.oracle_distributions(place, knows_old) for knows_old in (True, False))
    limit = 43.8  # the 99.9 % quantile
    assert misfit(knowing, target) < limit
    assert misfit(recent, target) < limit
    too_sure = knowing**2 / (knowing**2).sum(axis=1, keepdims=True)
    for wrong in (too_sure, (knowing + recent) / 2, np.roll(knowing, 1, axis=0), np.roll(recent, 1, axis=0)):
        assert misfit(wrong, target) > limit


@pytest.mark.parametrize("place", [-1, -2])
def test_what_both_oracles_reach_is_known(source, place):
    others = (1 - FAITH) / 30
    for knows_old, ndcg, recall in (
        (True, FAITH + others * DISCOUNT.sum(), FAITH + others * 10),  # once the favourite is known
        (False, DISCOUNT.sum() / 30, 10 / 30),
    ):
        best = -np.sort(-source.oracle_distributions(place, knows_old), axis=1)[:, :10]
        assert (best @ DISCOUNT).mean() == pytest.approx(ndcg, rel=0.01)
        assert best.sum(axis=1).mean() == pytest.approx(recall, rel=0.01)
        ranks = source.oracle_ranks(place, knows_old)["rank"].to_numpy()
        found = np.where(ranks < 10, 1 / np.log2(ranks + 2), 0.0)
        assert found.mean() == pytest.approx(ndcg, abs=3 * found.std() / np.sqrt(len(ranks)))
        assert (ranks < 10).mean() == pytest.approx(recall, abs=3 * np.sqrt(recall * (1 - recall) / len(ranks)))


def test_it_is_prepared_and_split_without_losing_a_target(tmp_path):
    source = SimulatedLongTaste(users=200, items=400)
    log = prepare_log(source, tmp_path / "log")
    ids, users = log.catalog.ids, list(log.users)
    split = np.split(log.items, log.offsets[1:-1])
    assert {user: [ids[row] for row in own.tolist()] for user, own in zip(users, split, strict=True)} == histories(
        source
    )
    parts = LeaveOneOut(**CONFIG["protocol"]["init_args"]).split(log)
    for part, place in ((parts.test, -1), (parts.validation, -2)):
        asked = [(users[user], ids[int(log.items[end - 1])]) for user, end in zip(part.users, part.ends, strict=True)]
        assert asked == source.oracle_ranks(place).select("user_id", "item_id").rows()


def test_the_card_counts_what_the_generator_makes_and_the_config_reads_all_of_it():
    card = Card.load("simulated-long-taste")
    source = card.source()
    assert isinstance(source, SimulatedLongTaste)
    log = source.read().collect()
    counts = {"users": log["user_id"].n_unique(), "items": log["item_id"].n_unique(), "interactions": log.height}
    assert counts == {name: card.counts[name] for name in counts}
    assert CONFIG["max_length"] == source.older + source.recent


@pytest.mark.parametrize("arguments", [{"users": 0}, {"items": 99}, {"older": 28}, {"recent": 2}, {"seed": -1}])
def test_arguments_out_of_range_are_refused_by_name(arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=name):
        SimulatedLongTaste(**arguments)


def test_what_no_visit_leads_to_cannot_be_asked(source):
    with pytest.raises(ValueError, match="place = -3"):
        source.oracle_ranks(-3)
    with pytest.raises(ValueError, match="item-00999 is a grocery"):
        source.next_item_distribution(["item-00999"])
    with pytest.raises(KeyError):
        source.next_item_distribution(["nothing"])
