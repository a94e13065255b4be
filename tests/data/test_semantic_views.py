"""Substitutes are drawn from the neighbours at their rate, and neighbours are whole prefixes of other users."""

import numpy as np
import polars as pl
import pytest
import torch

from seqrec.data.batching import Arrays, Rows, TrainingBatches
from seqrec.data.prefixes import ids_of
from seqrec.data.semantic_views import SemanticNeighbours, SemanticSubstitutes
from seqrec.data.supervision import EveryEvent
from seqrec.data.views import TrainingData
from seqrec.semantics.neighbours import Neighbours, nearest, write_neighbours
from seqrec.semantics.vectors import Vectors
from seqrec.sequences import Sequences
from tests.contracts.test_views import LOG, N_ITEMS, SPLIT, item_vectors, prefix_vectors, written

DATA = TrainingData(LOG, LOG.catalog, SPLIT.train, None)


def prefixes(pairs):
    """Histories of users up to so many events, as a batch hands them to a view."""
    users = np.array([user for user, _ in pairs])
    ends = LOG.offsets[users] + np.array([n for _, n in pairs])
    histories = [LOG.items[LOG.offsets[user] : end].tolist() for user, end in zip(users, ends, strict=True)]
    return Sequences.pack(histories), users, ends, torch.Generator().manual_seed(0)


def test_every_substitute_is_a_neighbour_and_one_event_in_five_is_swapped(tmp_path):
    view = SemanticSubstitutes(DATA, item_vectors(tmp_path), k=3, share=0.2)
    near = Neighbours.open(tmp_path).rows
    items = torch.arange(N_ITEMS).repeat(4000)
    histories = Sequences(items, torch.tensor([0, items.numel()]))
    swapped = view(histories, np.array([0]), np.array([0]), torch.Generator().manual_seed(0)).items
    changed = swapped != items
    assert changed.double().mean().item() == pytest.approx(0.2, abs=4 * (0.2 * 0.8 / items.numel()) ** 0.5)
    for item in range(N_ITEMS):
        drawn = swapped[changed & (items == item)]
        assert set(drawn.tolist()) == set(near[item].tolist())
        assert torch.bincount(drawn).max() < 1.2 * len(drawn) / 3


def test_two_views_of_a_batch_are_two_draws(tmp_path):
    folder = item_vectors(tmp_path)
    views = [SemanticSubstitutes(DATA, folder, name, share=0.5, k=3) for name in ("one", "other")]
    dataset = TrainingBatches(Arrays.of(LOG), SPLIT.train, EveryEvent(), None, views)
    batch = dataset[Rows(0, 0, np.arange(len(dataset)))]
    one, other = (batch.views[name].items for name in ("one", "other"))
    own = batch.history.items
    assert ((one != own) != (other != own)).double().mean() > 0.3  # half, were it not for the few events


def test_a_share_of_one_swaps_all_and_of_none_swaps_nothing(tmp_path):
    folder, given = item_vectors(tmp_path), prefixes([(3, 5), (1, 2)])
    assert (SemanticSubstitutes(DATA, folder, k=3, share=1.0)(*given).items != given[0].items).all()
    assert torch.equal(SemanticSubstitutes(DATA, folder, k=3, share=0.0)(*given).items, given[0].items)


def test_an_item_without_enough_neighbours_stays_as_it_is(tmp_path):
    """Items that are no part of the catalog are nobody's substitute."""
    ids = pl.DataFrame({"item_id": [*(f"i{row}" for row in range(4)), *(f"elsewhere{row}" for row in range(7))]})
    folder = written(tmp_path, "items", ids, None)
    near = Neighbours.open(folder).rows
    view = SemanticSubstitutes(DATA, folder, k=1, share=1.0)
    items = torch.arange(N_ITEMS)
    swapped = view(Sequences(items, torch.tensor([0, N_ITEMS])), np.array([0]), np.array([0]), torch.Generator()).items
    for item in range(N_ITEMS):
        known = [row for row in near[item] if row < 4] if item < 4 else []
        assert swapped[item] == (known[0] if known else item)


def test_an_item_of_which_some_neighbours_are_elsewhere_is_swapped_for_the_others_as_often(tmp_path):
    ids = pl.DataFrame({"item_id": [*(f"i{row}" for row in range(N_ITEMS)), *(f"elsewhere{row}" for row in range(3))]})
    folder = written(tmp_path, "items", ids, None)
    near = Neighbours.open(folder).rows
    assert any(0 < (near[item] < N_ITEMS).sum() < 3 for item in range(N_ITEMS))
    view = SemanticSubstitutes(DATA, folder, k=3, share=1.0)
    items = torch.arange(N_ITEMS).repeat(200)
    given = Sequences(items, torch.tensor([0, items.numel()])), np.array([0]), np.array([0])
    swapped = view(*given, torch.Generator().manual_seed(0)).items
    for item in range(N_ITEMS):
        known = {int(row) for row in near[item] if row < N_ITEMS}
        assert set(swapped[items == item].tolist()) == (known or {item})


@pytest.mark.parametrize(
    ("view", "vectors"), [(SemanticSubstitutes, item_vectors), (SemanticNeighbours, prefix_vectors)]
)
def test_no_neighbour_at_all_is_refused(view, vectors, tmp_path):
    with pytest.raises(ValueError, match="k is 0; a view takes at least 1 neighbour"):
        view(DATA, vectors(tmp_path), k=0)


def test_items_with_too_few_neighbours_everywhere_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"No item of the catalog has 4 neighbours .* -k 4"):
        SemanticSubstitutes(DATA, item_vectors(tmp_path), k=4)


def test_each_history_stands_first_and_its_neighbours_follow_best_first_with_their_vectors(tmp_path):
    view = SemanticNeighbours(DATA, prefix_vectors(tmp_path), k=2)
    described, near = Vectors.open(tmp_path), Neighbours.open(tmp_path).rows
    asked = [(3, 4), (2, 1), (6, 2)]
    versions = view(*prefixes(asked))
    keys = list(zip(described.ids["user_id"], described.ids["n_events"], strict=True))
    at = iter(range(len(versions)))
    for user, n in asked:
        own = keys.index((f"u{user}", n))
        for row in (own, *near[own, :2]):
            place = next(at)
            whose, count = int(keys[row][0][1:]), keys[row][1]
            expected = LOG.items[LOG.offsets[whose] : LOG.offsets[whose] + count]
            assert versions.items[versions.offsets[place] : versions.offsets[place + 1]].tolist() == expected.tolist()
            torch.testing.assert_close(versions.vectors[place], torch.tensor(described.vectors[row]))


def test_no_neighbour_is_of_the_same_user_and_none_reaches_behind_its_training_part(tmp_path):
    view = SemanticNeighbours(DATA, prefix_vectors(tmp_path), k=3)
    trained = dict(zip(SPLIT.train.users, SPLIT.train.lengths, strict=True))
    owners, counts = view.users, view.counts
    assert (owners[view.neighbours] != owners[:, None]).all()
    assert all(count < trained[user] for user, count in zip(owners, counts, strict=True))


def test_with_one_text_per_user_a_history_is_still_read_no_further_than_it_goes(tmp_path):
    """The text is of the whole training part of the user, the history that asks only of its first four events."""
    train = SPLIT.train
    folder = written(tmp_path, "histories", ids_of(LOG, train), train.users, granularity="user")
    versions = SemanticNeighbours(DATA, folder, k=2)(*prefixes([(3, 4)]))
    (row,) = np.flatnonzero(train.users == 3)
    assert versions.items[: versions.offsets[1]].tolist() == LOG.items[LOG.offsets[3] : LOG.offsets[3] + 4].tolist()
    for place, near in enumerate(Neighbours.open(tmp_path).rows[row, :2], start=1):
        whole = LOG.items[train.starts[near] : train.ends[near]]
        assert versions.items[versions.offsets[place] : versions.offsets[place + 1]].tolist() == whole.tolist()
    texts = Vectors.open(tmp_path).vectors
    torch.testing.assert_close(versions.vectors[0], torch.tensor(texts[row]))


def test_windows_of_neighbours_keep_the_newest_events(tmp_path):
    folder = prefix_vectors(tmp_path)
    whole = SemanticNeighbours(DATA, folder, k=2)(*prefixes([(3, 5)]))
    cut = SemanticNeighbours(TrainingData(LOG, LOG.catalog, SPLIT.train, 2), folder, k=2)(*prefixes([(3, 5)]))
    for place in range(3):
        everything = whole.items[whole.offsets[place] : whole.offsets[place + 1]]
        assert cut.items[cut.offsets[place] : cut.offsets[place + 1]].tolist() == everything[-2:].tolist()


def test_a_prefix_that_nobody_embedded_is_named(tmp_path):
    view = SemanticNeighbours(DATA, prefix_vectors(tmp_path), k=2)
    with pytest.raises(ValueError, match="no vector of the first 8 events of the user u3"):
        view(*prefixes([(2, 1), (3, 8)]))


def leaky_vectors(folder):
    """A pool that also holds, for each user, all events up to the validation item, as published code does."""
    whole = LOG.offsets[1:] - LOG.offsets[:-1] - 1
    users = np.repeat(np.arange(len(whole)), whole)
    counts = np.concatenate([np.arange(1, length + 1) for length in whole])
    return written(folder, "histories", pl.DataFrame({"user_id": LOG.users.gather(users), "n_events": counts}), users)


def test_a_pool_that_holds_more_than_the_training_part_is_called_leaky_and_refused_unless_it_is_asked_for(tmp_path):
    folder = leaky_vectors(tmp_path)
    with pytest.raises(ValueError, match="is leaky: 7 of its 30 prefixes reach beyond"):
        SemanticNeighbours(DATA, folder, k=2)
    assert len(SemanticNeighbours(DATA, folder, k=2, allows_leak=True)(*prefixes([(3, 5)]))) == 3


def test_neighbours_of_the_same_user_are_called_leaky_and_refused_unless_they_are_asked_for(tmp_path):
    folder = prefix_vectors(tmp_path)
    made = Vectors.open(folder)
    found = {"fingerprint": made.manifest["fingerprint"], "same_user": True}
    write_neighbours(tmp_path, nearest(made.vectors, 2), found)
    with pytest.raises(ValueError, match="leaky: they may be other prefixes of the same user"):
        SemanticNeighbours(DATA, folder, k=2)
    assert len(SemanticNeighbours(DATA, folder, k=2, allows_leak=True)(*prefixes([(3, 5)]))) == 3


def test_vectors_of_another_data_set_are_refused(tmp_path):
    other = TrainingData(
        type(LOG)(LOG.items, LOG.times, LOG.offsets, LOG.catalog, LOG.users, {"fingerprint": "of another"}),
        LOG.catalog,
        SPLIT.train,
        None,
    )
    with pytest.raises(ValueError, match="of another data set"):
        SemanticNeighbours(other, prefix_vectors(tmp_path), k=2)


def test_more_neighbours_than_were_found_are_refused(tmp_path):
    with pytest.raises(ValueError, match="fewer than 4 neighbours"):
        SemanticNeighbours(DATA, prefix_vectors(tmp_path), k=4)
