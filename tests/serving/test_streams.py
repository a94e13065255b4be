"""What is recommended to a user depends on their events alone: not on when they came, nor on what is remembered."""

import itertools
import random

import pytest
import torch
from small_bundles import DIM, LEARNED, LENGTH, SASREC, WINDOWED, a_bundle, a_catalog, part, recipe

from seqrec.sequences import Sequences
from seqrec.serving.filters import Filters
from seqrec.serving.models import Model
from seqrec.serving.store import Event, SQLiteStore
from seqrec.serving.streams import first_of_window

RECENT = 4
DEEP = part("backbones.sasrec.SASRec", dim=DIM, n_layers=2, n_heads=1)  # tokens of one layer know nothing of the events
CASES = {
    "SASRec": recipe(SASREC, LEARNED),
    "LiGR, rotary": recipe(part("backbones.ligr.LiGR", dim=DIM, position=part("positions.rotary.RotaryPosition"))),
    "SASRec, time gaps": recipe(SASREC, part("positions.time.TimeGap", dim=DIM, init_std=1.0)),
    "GRU4Rec": recipe(part("backbones.gru4rec.GRU4Rec", dim=DIM)),
    "Compressed": recipe(
        part("backbones.compressed.Compressed", inner=DEEP, n_recent=RECENT, n_tokens=2, init_std=1.0), LEARNED
    ),
}
NO_FILTER = Filters()


@pytest.fixture
def build(tmp_path):
    """Streams over a bundle of this recipe and one store."""

    def make(described, seed=0, catalog=None):
        folder = a_bundle(tmp_path / "bundle", described, seed, catalog)
        store = SQLiteStore(tmp_path / "events.sqlite")
        return Model(folder, store, "bundle").streams, store

    return make


def some_events(n, seed=0):
    draw, catalog = random.Random(seed), a_catalog()
    clock = itertools.accumulate(draw.randint(1, 100_000) for _ in range(n))
    return [Event("ann", draw.choice(catalog.ids), 1_600_000_000 + time) for time in clock]


def expected(retriever, events, described):
    """The state after a single pass over what the window holds, in the plainest way."""
    recommender = retriever.recommender
    rows, times = retriever.rows([event.item for event in events])[0], [event.time for event in events]
    begin = first_of_window(len(rows), recommender.leaves_room or LENGTH)
    remembered = None
    if recommender.leaves_room and begin:
        older = slice(max(0, begin - (LENGTH - RECENT)), begin)
        remembered = recommender.remember(Sequences.pack([rows[older]], [times[older]]))
    with torch.no_grad():
        newest = recommender.proceed(Sequences.pack([rows[begin:]], [times[begin:]]), remembered).newest
    return retriever.following(newest, [rows], 5)[0]


def same(found, wanted):
    assert [each.item_id for each in found] == [each.item_id for each in wanted]
    assert [each.score for each in found] == pytest.approx([each.score for each in wanted], rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("described", CASES.values(), ids=CASES.keys())
def test_events_one_by_one_say_what_one_pass_says(build, described):
    streams, store = build(described)
    if not streams.continues:
        pytest.skip("what this model remembers cannot be kept in bytes")
    events = some_events(3 * LENGTH)
    for n, event in enumerate(events, start=1):
        store.append([event])
        found = streams.recommend("ann", 5, True, None, NO_FILTER)
        same(found, expected(streams.retriever, events[:n], described))
        if n <= LENGTH and not streams.retriever.recommender.leaves_room:
            whole = streams.retriever.recommend([e.item for e in events[:n]], 5, times=[e.time for e in events[:n]])
            same(found, whole)


def test_a_model_that_cannot_go_on_reads_the_newest_window(build):
    streams, store = build(WINDOWED)
    assert not streams.continues
    events = some_events(2 * LENGTH)
    store.append(events)
    found = streams.recommend("ann", 5, True, None, NO_FILTER)
    assert found == streams.retriever.recommend([event.item for event in events], 5)
    assert store.memory("ann", "bundle") is None


def test_only_new_events_are_read(build, monkeypatch):
    streams, store = build(CASES["SASRec"])
    read, proceed = [], streams.retriever.recommender.proceed

    def noted(history, remembered=None):
        read.append(history.items.numel())
        return proceed(history, remembered)

    monkeypatch.setattr(streams.retriever.recommender, "proceed", noted)
    for event in some_events(8 * LENGTH):
        store.append([event])
        streams.recommend("ann", 5, True, None, NO_FILTER)
        streams.recommend("ann", 5, True, None, NO_FILTER)
    # A window begins anew after every half of its length, and then its other half is read once more.
    assert sum(read) <= 2 * 8 * LENGTH + LENGTH
    assert max(read) <= LENGTH
    assert sorted(read)[len(read) // 2] == 1


@pytest.mark.parametrize("when", [1, 7, 30])
def test_a_lost_memory_changes_nothing(build, when):
    streams, store = build(CASES["SASRec"])
    events = some_events(when)
    store.append(events[: when // 2])
    streams.recommend("ann", 5, True, None, NO_FILTER)
    store.append(events[when // 2 :])
    with_memory = streams.recommend("ann", 5, True, None, NO_FILTER)
    store._remembering.execute("DELETE FROM memories")
    same(streams.recommend("ann", 5, True, None, NO_FILTER), with_memory)
    assert store.memory("ann", "bundle") is not None


@pytest.mark.parametrize("broken", [b"", b"short", lambda whole: whole[:90], lambda whole: b"\0" * len(whole)])
def test_a_broken_memory_is_made_again(build, broken):
    streams, store = build(CASES["SASRec"])
    store.append(some_events(9))
    wanted = streams.recommend("ann", 5, True, None, NO_FILTER)
    kept = store.memory("ann", "bundle")
    store.keep_memory("ann", "bundle", broken(kept) if callable(broken) else broken)
    same(streams.recommend("ann", 5, True, None, NO_FILTER), wanted)
    assert store.memory("ann", "bundle") == kept


def test_a_memory_of_another_model_is_made_again(build):
    streams, store = build(CASES["SASRec"])
    store.append(some_events(9))
    streams.recommend("ann", 5, True, None, NO_FILTER)
    others, _ = build(CASES["SASRec"], seed=1)
    same(
        others.recommend("ann", 5, True, None, NO_FILTER),
        expected(others.retriever, some_events(9), CASES["SASRec"]),
    )


def test_a_memory_of_a_model_with_equal_weights_and_other_heads_is_made_again(build):
    one, two = (
        recipe(part("backbones.sasrec.SASRec", dim=DIM, n_layers=2, n_heads=n_heads), LEARNED) for n_heads in (1, 4)
    )
    streams, store = build(one)
    store.append(some_events(9))
    first = streams.recommend("ann", 5, True, None, NO_FILTER)
    others, _ = build(two)
    found = others.recommend("ann", 5, True, None, NO_FILTER)
    same(found, expected(others.retriever, some_events(9), two))
    assert found != first


def test_an_item_that_a_newer_catalog_knows_counts_from_then_on(build):
    streams, store = build(CASES["SASRec"], catalog=a_catalog(100))
    store.append([Event("ann", "item-003", 1), Event("ann", "item-150", 2), Event("bob", "item-150", 3)])
    first = streams.recommend("ann", 5, True, None, NO_FILTER)
    same(first, streams.retriever.recommend(["item-003"], 5))
    assert streams.recommend("bob", 5, True, None, NO_FILTER) == []
    newer, _ = build(CASES["SASRec"], catalog=a_catalog(200))
    same(newer.recommend("ann", 5, True, None, NO_FILTER), newer.retriever.recommend(["item-003", "item-150"], 5))
    assert len(newer.recommend("bob", 5, True, None, NO_FILTER)) == 5


@pytest.mark.parametrize("name", ["SASRec", "windowed"])
def test_what_the_user_has_is_left_out_however_long_ago(build, name):
    streams, store = build({**CASES, "windowed": WINDOWED}[name])
    store.append([Event("ann", f"item-{n:03d}", n) for n in range(100)])
    found = streams.recommend("ann", 100, True, None, NO_FILTER)
    assert {each.item_id for each in found} == {f"item-{n:03d}" for n in range(100, 200)}
    assert len(streams.recommend("ann", 100, False, None, NO_FILTER)) == 100
    red = streams.recommend("ann", 5, True, None, Filters(categories=frozenset({"red"}), deny=frozenset({"item-102"})))
    assert {int(each.item_id[-3:]) % 3 for each in red} == {0}
    assert "item-102" not in {each.item_id for each in red}


def test_of_whom_nothing_is_known_nothing_is_said(build):
    streams, _ = build(CASES["SASRec"])
    assert streams.recommend("nobody", 5, True, None, NO_FILTER) is None
    others, _ = build(WINDOWED)
    assert others.recommend("nobody", 5, True, None, NO_FILTER) is None


@pytest.mark.parametrize("room", [1, 2, 5, 12, None])
def test_a_window_holds_between_half_and_all_and_moves_rarely(room):
    begins = [first_of_window(n, room) for n in range(200)]
    if room is None:
        assert set(begins) == {0}
        return
    for n, begin in enumerate(begins):
        assert n - begin <= room
        assert n - begin > room // 2 or begin == 0 or room < 3
    assert begins == sorted(begins)
    assert len(set(begins)) <= 2 + 200 // max(room // 2, 1)
