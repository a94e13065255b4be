"""First-order transitions against counting pairs one by one."""

import itertools
from collections import Counter

import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seqrec.batch import Batch
from seqrec.catalog import Catalog
from seqrec.recommenders import markov
from seqrec.recommenders.markov import Markov
from seqrec.sequences import Sequences

N = 6
HISTORIES = st.lists(st.lists(st.integers(0, N - 1), min_size=2, max_size=6), min_size=1, max_size=6)


def catalog_of(histories: list[list[int]]) -> Catalog:
    counts = Counter(item for history in histories for item in history)
    ids = [f"i{row}" for row in range(N)]
    return Catalog(pl.DataFrame({"item_id": ids, "count": [counts[row] for row in range(N)]}))


def every_event(histories: list[list[int]], seen: list[list[int]] | None = None) -> Batch:
    history = Sequences.pack([row[:-1] for row in histories])
    return Batch(
        users=torch.arange(len(histories)),
        history=history,
        predict_at=torch.arange(history.items.numel()),
        targets=torch.cat([torch.tensor(row[1:]) for row in histories]),
        seen=None if seen is None else Sequences.pack(seen),
    )


def taught(histories: list[list[int]], model: Markov | None = None) -> Markov:
    model = model or Markov(catalog_of(histories))
    for start in range(0, len(histories), 2):
        model.count(every_event(histories[start : start + 2]))
    model.finish()
    return model


@settings(max_examples=40, deadline=None)
@given(HISTORIES, st.integers(1, N + 2))
def test_lists_go_by_transitions_then_popularity_then_row(histories: list[list[int]], k: int):
    pairs = Counter(pair for history in histories for pair in itertools.pairwise(history))
    counts = Counter(item for history in histories for item in history)
    best = taught(histories).recommend(Sequences.pack([[0, item] for item in range(N)]), k)
    for item, found in enumerate(best.items.tolist()):
        expected = sorted(range(N), key=lambda other: (-pairs[item, other], -counts[other], other))[:k]
        assert found == expected + [-1] * (k - len(expected))


@settings(max_examples=40, deadline=None)
@given(HISTORIES, st.sets(st.integers(0, N - 1)))
def test_ranks_count_unseen_rivals_with_as_many_transitions(histories: list[list[int]], seen: set[int]):
    pairs = Counter(pair for history in histories for pair in itertools.pairwise(history))
    counts = Counter(item for history in histories for item in history)
    n_predictions = sum(len(history) - 1 for history in histories)
    batch = every_event(histories, [sorted(seen)] * n_predictions)
    ranks = iter(taught(histories).ranks(batch).tolist())
    for history in histories:
        for came, target in itertools.pairwise(history):
            bar = (pairs[came, target], counts[target])
            rivals = [n for n in range(N) if n != target and n not in seen and (pairs[came, n], counts[n]) >= bar]
            assert next(ranks) == len(rivals)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch):
    histories = [[0, 1, 2, 3], [3, 1, 2], [4, 5, 0, 1]]
    model, seen = taught(histories), [[n % N] for n in range(8)]
    ranks, batch = model.ranks(every_event(histories, seen)), every_event(histories, seen)
    asked, left_out = Sequences.pack([[0], [1], [2]]), Sequences.pack([[1], [], [3]])
    lists = model.recommend(asked, 3, left_out).items
    monkeypatch.setattr("seqrec.recommenders.markov._SCORES_PER_BLOCK", N)
    assert torch.equal(model.ranks(batch), ranks)
    assert torch.equal(model.recommend(asked, 3, left_out).items, lists)


@pytest.mark.parametrize("waits", [1, 3, 2**20])
def test_when_pairs_are_sorted_in_changes_nothing(monkeypatch: pytest.MonkeyPatch, waits: int):
    histories = [[0, 1, 2, 0, 1], [1, 2], [2, 0, 1], [3, 3, 3, 1], [0, 1], [5, 4]]
    monkeypatch.setattr(markov, "_PAIRS_AT_LEAST", waits)
    model = taught(histories)
    pairs = Counter(pair for history in histories for pair in itertools.pairwise(history))
    found = {
        (item, int(model.followers[place])): int(model.transitions[place])
        for item in range(N)
        for place in range(int(model.starts[item]), int(model.starts[item + 1]))
    }
    assert found == pairs


def test_a_history_without_events_gets_the_popular_items():
    histories = [[2, 2, 1, 2, 1]]
    assert taught(histories).recommend(Sequences.pack([[2], [], [1]]), 2).items.tolist() == [[1, 2], [2, 1], [2, 1]]


def test_objectives_are_told_what_to_do_instead():
    model = taught([[0, 1]])
    with pytest.raises(TypeError, match="count and finish"):
        model.encode(every_event([[0, 1]]))
