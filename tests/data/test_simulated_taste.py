"""The simulated long taste is what it says: the recent part hides what is asked for, and both oracles are exact."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

from seqrec.data.card import Card
from seqrec.data.log import Log
from seqrec.data.prepare import prepare_log
from seqrec.data.protocol import LeaveOneOut
from seqrec.data.simulated import LEAVES, MAKERS
from seqrec.data.simulated_taste import MODEL_SHARES, SimulatedLongTaste

ROOT = Path(__file__).parents[2]
DISCOUNT = 1 / np.log2(np.arange(10) + 2)


@pytest.fixture(scope="module")
def source() -> SimulatedLongTaste:
    return SimulatedLongTaste(users=2000)


def histories(source: SimulatedLongTaste) -> dict[str, list[str]]:
    log = source.read().collect().sort("user_id", "timestamp")
    grouped = log.group_by("user_id", maintain_order=True).agg("item_id")
    return dict(zip(grouped["user_id"], grouped["item_id"].to_list(), strict=True))


def targets(source: SimulatedLongTaste, place: int) -> np.ndarray:
    return np.array([int(history[place][-5:]) for history in histories(source).values()])


def with_another_maker(source: SimulatedLongTaste, place: int, shift: int) -> SimulatedLongTaste:
    """The same log but for the favourite makers in the leaf that each user's event at ``place`` is of."""
    arguments = {"users": source.n_users, "items": source.n_items, "older": source.older, "recent": source.recent}
    other = SimulatedLongTaste(**arguments)
    users, asked = np.arange(source.n_users), targets(source, place) // 30
    other.taste[users, asked] = (other.taste[users, asked] + shift) % len(MAKERS)
    return other


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
    assert dict(source.read().collect_schema()) == {
        "user_id": pl.String,
        "item_id": pl.String,
        "timestamp": pl.Int64,
    }
    log = source.read().collect()
    assert log["timestamp"].is_sorted()
    assert log.select("user_id", "timestamp").is_unique().all()
    assert set(log.group_by("user_id").len()["len"]) == {40 + 15 + 2}
    assert set(log["item_id"]) <= set(source.items().collect()["item_id"])


def test_products_say_who_made_them_and_every_title_is_another(source):
    items = source.items().collect()
    assert items["item_id"].is_unique().all()
    assert items["title"].is_unique().all()
    assert items.height == source.n_items
    assert items.row(750)[1:] == ("Bread no. 1", "Bread, a grocery.", ["Groceries", "Bread"])
    for row in (0, 100, 749):
        title, text, (department, leaf) = items.row(row)[1:]
        assert (department, leaf) == LEAVES[row // 30]
        assert title.split()[0] == MAKERS[row // 3 % 10]
        assert leaf in title
        assert leaf.lower() in text


@pytest.mark.parametrize("place", [-1, -2])
@pytest.mark.parametrize("recent", [3, 10, 50])
def test_the_recent_events_are_the_same_whatever_maker_is_asked_for(place, recent):
    source = SimulatedLongTaste(users=300, older=60, recent=recent)
    before, after = (list(histories(s).values()) for s in (source, with_another_maker(source, place, shift=3)))
    for one, other in zip(before, after, strict=True):
        assert one[place - recent : place] == other[place - recent : place]
        assert one[: place - recent] != other[: place - recent]
        assert one[place] != other[place]


@pytest.mark.parametrize("place", [-1, -2])
def test_who_reads_the_recent_events_alone_averages_over_all_makers(place):
    source = SimulatedLongTaste(users=100)
    every = [with_another_maker(source, place, shift).oracle_distributions(place) for shift in range(len(MAKERS))]
    np.testing.assert_allclose(source.oracle_distributions(place, knows_old=False), np.mean(every, axis=0))


def test_who_reads_all_events_finds_the_maker_in_their_titles(source):
    titles = dict(source.items().select("item_id", "title").collect().iter_rows())
    for history in list(histories(source).values())[:50]:
        leaf = titles[history[-1]].split()[-1]
        (maker,) = {titles[raw].split()[0] for raw in history[:-1] if titles[raw].endswith(leaf)}
        chances = dict(zip(titles.values(), source.next_item_distribution(history[:-1]), strict=True))
        looks = zip(("Compact", "Classic", "Sturdy"), MODEL_SHARES, strict=True)
        assert {title: chance for title, chance in chances.items() if chance} == {
            f"{maker} {look} {leaf}": share for look, share in looks
        }


@pytest.mark.parametrize("place", [-1, -2])
@pytest.mark.parametrize("knows_old", [True, False])
def test_what_happened_follows_the_stated_distribution_and_no_other(source, place, knows_old):
    chances, target = source.oracle_distributions(place, knows_old), targets(source, place)
    limit = 43.8  # the 99.9 % quantile
    assert misfit(chances, target) < limit
    flat = (chances > 0) / (chances > 0).sum(axis=1, keepdims=True)
    stranger = np.roll(chances, 1, axis=0)
    for wrong in (flat, stranger):
        assert misfit(wrong, target) > limit


@pytest.mark.parametrize("place", [-1, -2])
def test_models_are_drawn_by_their_shares(source, place):
    shares = np.bincount(targets(source, place) % 3) / source.n_users
    np.testing.assert_allclose(shares, MODEL_SHARES, atol=0.035)  # three standard errors


@pytest.mark.parametrize("place", [-1, -2])
@pytest.mark.parametrize(
    ("knows_old", "ndcg", "recall"),
    [
        (True, 0.6 + 0.3 / np.log2(3) + 0.1 / np.log2(4), 1.0),
        (False, 0.06 * DISCOUNT.sum(), 0.6),  # ten first models, one of each maker
    ],
)
def test_what_both_oracles_reach_is_known(source, place, knows_old, ndcg, recall):
    best = -np.sort(-source.oracle_distributions(place, knows_old), axis=1)[:, :10]
    np.testing.assert_allclose(best @ DISCOUNT, ndcg)
    np.testing.assert_allclose(best.sum(axis=1), recall)
    ranks = source.oracle_ranks(place, knows_old)["rank"].to_numpy()
    found = np.where(ranks < 10, 1 / np.log2(ranks + 2), 0.0)
    assert found.mean() == pytest.approx(ndcg, abs=3 * found.std() / np.sqrt(len(ranks)))
    assert (ranks < 10).mean() == pytest.approx(recall, abs=3 * np.sqrt(recall * (1 - recall) / len(ranks)))


def test_ranks_of_the_oracle_speak_of_the_newest_events(source):
    after = histories(source)
    for place in (-1, -2):
        ranks = source.oracle_ranks(place)
        assert ranks.columns == ["user_id", "item_id", "rank"]
        assert all(after[user][place] == item for user, item, _ in ranks.iter_rows())


def test_it_is_prepared_and_split_without_losing_a_target(tmp_path):
    source = SimulatedLongTaste(users=200, items=760)
    log = prepare_log(source, tmp_path / "log")
    ids, users = log.catalog.ids, list(log.users)
    rows = np.split(log.items, log.offsets[1:-1])
    assert {user: [ids[row] for row in own.tolist()] for user, own in zip(users, rows, strict=True)} == histories(
        source
    )
    config = yaml.safe_load((ROOT / "configs/data/long-taste.yaml").read_text())["data"]
    split = LeaveOneOut(**config["protocol"]["init_args"]).split(log)
    for part, place in ((split.test, -1), (split.validation, -2)):
        asked = [(users[user], ids[int(log.items[end - 1])]) for user, end in zip(part.users, part.ends, strict=True)]
        assert asked == source.oracle_ranks(place).select("user_id", "item_id").rows()


def test_the_card_counts_what_the_generator_makes_and_the_config_reads_all_of_it(tmp_path):
    card = Card.load("simulated-long-taste")
    source = card.source()
    assert isinstance(source, SimulatedLongTaste)
    log = prepare_log(source, tmp_path / "log")
    counts = {"users": len(log.users), "items": len(log.catalog), "interactions": log.items.size}
    assert counts == {name: card.counts[name] for name in counts}
    config = yaml.safe_load((ROOT / "configs/data/long-taste.yaml").read_text())["data"]
    assert config["max_length"] == source.older + source.recent
    assert Log.open(tmp_path / "log").catalog.titles[0] == "Alder Compact Tents"


@pytest.mark.parametrize("arguments", [{"users": 0}, {"items": 750}, {"older": 28}, {"recent": 2}, {"seed": -1}])
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
