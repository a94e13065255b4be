"""The same list for everyone, ever or lately."""

import polars as pl
import pytest
import torch

from seqrec.batch import Batch
from seqrec.catalog import Catalog
from seqrec.recommenders.popularity import Popularity, RecentPopularity
from seqrec.sequences import Sequences

DAY = 86_400


def catalog_of(counts: list[int]) -> Catalog:
    return Catalog(pl.DataFrame({"item_id": [f"i{row}" for row in range(len(counts))], "count": counts}))


def batch_of(targets: list[int], asked_at: list[int] | None = None, seen: list[list[int]] | None = None) -> Batch:
    """One history of one event per prediction."""
    history = Sequences.pack([[0]] * len(targets))
    return Batch(
        users=torch.arange(len(targets)),
        history=history,
        predict_at=history.newest,
        targets=torch.tensor(targets),
        asked_at=None if asked_at is None else torch.tensor(asked_at),
        seen=None if seen is None else Sequences.pack(seen),
    )


def test_popularity_ranks_by_training_counts_and_ties_count_against():
    model = Popularity(catalog_of([5, 9, 5, 1]))
    assert model.ranks(batch_of([1, 0, 2, 3])).tolist() == [0, 2, 2, 3]
    assert model.ranks(batch_of([0, 3], seen=[[1], [0, 1]])).tolist() == [1, 1]


def test_popularity_lists_ties_by_row_and_leaves_out_what_is_seen():
    best = Popularity(catalog_of([5, 9, 5, 1])).recommend(
        Sequences.pack([[0], []]), 3, seen=Sequences.pack([[1], [0, 2, 3]])
    )
    assert best.items.tolist() == [[0, 2, 3], [1, -1, -1]]
    assert best.scores.tolist() == [[5, 5, 1], [9, float("-inf"), float("-inf")]]


def test_queries_and_keys_of_popularity_score_like_its_counts():
    model = Popularity(catalog_of([5, 9, 5, 1]))
    encoded = model.encode(batch_of([1, 0]))
    assert (encoded.queries @ encoded.keys(None).T).tolist() == [[5, 9, 5, 1]] * 2
    assert encoded.keys(torch.tensor([3, 1])).tolist() == [[1], [9]]
    assert not encoded.queries.requires_grad


def test_popularity_has_one_state_for_each_prediction_however_many_events_there_are():
    history = Sequences.pack([[0, 1, 2], [3]])
    batch = Batch(torch.arange(2), history, history.newest, torch.tensor([3, 0]))
    assert Popularity(catalog_of([5, 9, 5, 1])).encode(batch).states.shape == (2, 1)


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
def test_recent_popularity_counts_the_last_days_whatever_the_order_of_batches(order: list[int]):
    batches = [
        batch_of([0, 0, 0], [0, 1, DAY]),
        batch_of([1, 2, 0], [9 * DAY, 10 * DAY, 2 * DAY]),
        batch_of([2, 3], [8 * DAY + 1, 8 * DAY]),
    ]
    model = RecentPopularity(catalog_of([4, 1, 2, 1]), days=2.0)
    for place in order:
        model.count(batches[place])
    model.finish()
    assert model.item_scores.tolist() == [0, 1, 2, 0]
    assert model.recommend(Sequences.pack([[0]]), 4).items.tolist() == [[2, 1, 0, 3]]


def test_recent_popularity_asks_for_times_by_name():
    with pytest.raises(ValueError, match="asked_at"):
        RecentPopularity(catalog_of([1])).count(batch_of([0]))
    with pytest.raises(ValueError, match="days is 0"):
        RecentPopularity(catalog_of([1]), days=0.0)
