"""What every view must obey. A new one adds one line to ``CASES``."""

import numpy as np
import polars as pl
import pytest
import torch

from seqrec.catalog import Catalog
from seqrec.data.batching import Arrays, Rows, TrainingBatches
from seqrec.data.log import Log
from seqrec.data.prefixes import beginnings, ids_of
from seqrec.data.protocol import LeaveOneOut
from seqrec.data.semantic_views import SemanticNeighbours, SemanticSubstitutes
from seqrec.data.supervision import EveryEvent, EveryPrefix
from seqrec.data.views import TrainingData
from seqrec.semantics.neighbours import nearest, write_neighbours
from seqrec.semantics.vectors import Vectors, training_of, write_vectors

N_USERS, N_ITEMS, TEXT_DIM = 7, 11, 5
LENGTHS = np.array([3, 4, 6, 9, 5, 3, 7])


def the_log():
    """A small log whose times are the seconds since it began."""
    random = np.random.default_rng(3)
    items = np.concatenate([random.permutation(N_ITEMS)[:length] for length in LENGTHS]).astype(np.int32)
    table = pl.DataFrame({"item_id": [f"i{row}" for row in range(N_ITEMS)], "count": [1] * N_ITEMS})
    return Log(
        items,
        np.arange(len(items)),
        np.append(0, LENGTHS.cumsum()),
        Catalog(table),
        pl.Series([f"u{row}" for row in range(N_USERS)]),
        {"fingerprint": "of this log"},
    )


LOG = the_log()
SPLIT = LeaveOneOut().split(LOG)


def written(folder, kind, ids, groups, **record):
    """Vectors of these ids, by chance, and their neighbours."""
    vectors = np.random.default_rng(0).standard_normal((len(ids), TEXT_DIM)).astype(np.float32)
    write_vectors(folder, ids, vectors, {"kind": kind, "dataset": "of this log", **record})
    write_neighbours(folder, nearest(vectors, 3, groups), {"fingerprint": Vectors.open(folder).manifest["fingerprint"]})
    return str(folder)


def item_vectors(folder, **record):
    return written(folder, "items", LOG.catalog.table.select("item_id"), None, **record)


def prefix_vectors(folder, **record):
    prefixes = beginnings(LOG, SPLIT)
    return written(folder, "histories", ids_of(LOG, prefixes), prefixes.users, **record)


CASES = [
    pytest.param(SemanticSubstitutes, item_vectors, {"k": 3, "share": 0.5}, 1, id="SemanticSubstitutes"),
    pytest.param(SemanticNeighbours, prefix_vectors, {"k": 2}, 3, id="SemanticNeighbours"),
]
each_view = pytest.mark.parametrize(("build", "vectors", "arguments", "n_versions"), CASES)
each_supervision = pytest.mark.parametrize("supervision", [EveryEvent(), EveryPrefix()], ids=["events", "prefixes"])


def batches(build, vectors, arguments, folder, supervision, max_length=None):
    data = TrainingData(LOG, LOG.catalog, SPLIT.train, max_length)
    view = build(data, vectors(folder), **arguments)
    return view, TrainingBatches(Arrays.of(LOG), SPLIT.train, supervision, max_length, [view], seed=5)


def batch_of(made, rows, epoch=0):
    return made[Rows(epoch, 0, np.array(rows))]


@each_view
@each_supervision
def test_each_history_has_as_many_versions_as_every_other_and_none_is_empty(
    build, vectors, arguments, n_versions, supervision, tmp_path
):
    view, made = batches(build, vectors, arguments, tmp_path, supervision)
    batch = batch_of(made, range(len(made)))
    versions = batch.views[view.name]
    assert len(versions) == n_versions * len(batch.history)
    assert (versions.lengths > 0).all()
    assert versions.items.min() >= 0
    assert versions.items.max() < N_ITEMS


@each_view
def test_how_long_a_version_is_depends_on_its_own_history_alone(build, vectors, arguments, n_versions, tmp_path):
    view, made = batches(build, vectors, arguments, tmp_path, EveryPrefix())
    alone = batch_of(made, [4]).views[view.name]
    beside = batch_of(made, [4, 2, 6]).views[view.name]
    assert alone.lengths.tolist() == beside.lengths[:n_versions].tolist()


@each_view
def test_the_same_seed_gives_the_same_versions(build, vectors, arguments, n_versions, tmp_path):
    view, made = batches(build, vectors, arguments, tmp_path, EveryPrefix())
    rows = range(len(made))
    again = [batch_of(made, rows).views[view.name] for _ in range(2)]
    assert torch.equal(again[0].items, again[1].items)
    assert torch.equal(again[0].offsets, again[1].offsets)


@each_view
def test_no_version_is_longer_than_what_a_model_reads(build, vectors, arguments, n_versions, tmp_path):
    view, made = batches(build, vectors, arguments, tmp_path, EveryPrefix(), max_length=2)
    assert batch_of(made, range(len(made))).views[view.name].lengths.max() == 2


@each_view
@each_supervision
def test_no_version_shows_what_is_held_out(build, vectors, arguments, n_versions, supervision, tmp_path):
    """Times tell where in the log an event stands; a substitute stands where the event stood that it replaces."""
    view, made = batches(build, vectors, arguments, tmp_path, supervision)
    held_out = torch.from_numpy(np.concatenate([SPLIT.validation.ends - 1, SPLIT.test.ends - 1]))
    versions = batch_of(made, range(len(made))).views[view.name]
    assert not torch.isin(versions.times, held_out).any()


@each_view
def test_vectors_of_another_kind_are_refused(build, vectors, arguments, n_versions, tmp_path):
    other = item_vectors if vectors is prefix_vectors else prefix_vectors
    folder = other(tmp_path)
    with pytest.raises(ValueError, match=r"holds vectors of \w+, not of"):
        build(TrainingData(LOG, LOG.catalog, SPLIT.train, None), folder, **arguments)


@each_view
def test_texts_that_quote_another_training_part_are_refused(build, vectors, arguments, n_versions, tmp_path):
    data = TrainingData(LOG, LOG.catalog, SPLIT.train, None)
    build(data, vectors(tmp_path, quotes=5, training=training_of(LOG.catalog)), **arguments)
    later = LOG.catalog.with_counts(LOG.catalog.counts + 1)
    folder = vectors(tmp_path, quotes=5, training=training_of(later))
    with pytest.raises(ValueError, match="quote histories of another training part"):
        build(data, folder, **arguments)


@each_view
def test_a_view_is_named(build, vectors, arguments, n_versions, tmp_path):
    data = TrainingData(LOG, LOG.catalog, SPLIT.train, None)
    folder = vectors(tmp_path)
    view = build(data, folder, name="mine", **arguments)
    assert view.name == "mine"
