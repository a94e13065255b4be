"""What every item embedding must obey. A new one adds one line to ``CASES``."""

import tempfile

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seqrec.catalog import Catalog
from seqrec.embeddings.extended import ExtendedEmbedding
from seqrec.embeddings.ids import IdEmbedding
from seqrec.embeddings.pretrained import TextTower


def tower(catalog, dim):
    """A tower over vectors that depend on the item alone."""
    numbers = np.random.default_rng(0).standard_normal((len(catalog), 5)).astype("float32")
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/vectors.parquet"
        pl.DataFrame({"item_id": catalog.ids, "vector": numbers.tolist()}).write_parquet(path)
        return TextTower(catalog, path, dim)


def extended(catalog, dim):
    """A table of the first items and given vectors of the others."""
    n_known = len(catalog) - 4
    return ExtendedEmbedding(IdEmbedding(Catalog(catalog.table.head(n_known)), dim), n_known, torch.randn(4, dim))


CASES = [
    pytest.param(IdEmbedding, {}, id="IdEmbedding"),
    pytest.param(tower, {}, id="TextTower"),
    pytest.param(extended, {}, id="ExtendedEmbedding"),
]
each_embedding = pytest.mark.parametrize(("build", "arguments"), CASES)

N_ITEMS, DIM = 12, 8
TABLE = pl.DataFrame(
    {
        "item_id": [f"i{row}" for row in range(N_ITEMS)],
        "count": range(N_ITEMS),
        "title": [f"Item {row}" for row in range(N_ITEMS)],
    }
)
shapes = st.lists(st.integers(0, 3), max_size=3).map(tuple)


def ready(build, arguments, seed=0):
    torch.manual_seed(seed)
    return build(Catalog(TABLE), dim=DIM, **arguments).eval()


@each_embedding
def test_none_means_every_item_of_the_catalog_in_order_and_nothing_else(build, arguments):
    embedding = ready(build, arguments)
    vectors = embedding(None)
    assert vectors.shape == (N_ITEMS, DIM)
    assert embedding.dim == DIM
    assert vectors.isfinite().all()
    torch.testing.assert_close(vectors, embedding(torch.arange(N_ITEMS)))


@each_embedding
@settings(max_examples=20)
@given(shape=shapes)
def test_rows_of_any_shape_give_one_vector_each_whatever_stands_beside_them(build, arguments, shape):
    embedding = ready(build, arguments)
    rows = torch.randint(N_ITEMS, shape)
    vectors = embedding(rows)
    assert vectors.shape == (*shape, DIM)
    torch.testing.assert_close(vectors, embedding(None)[rows])


@each_embedding
def test_no_two_items_look_alike(build, arguments):
    vectors = ready(build, arguments)(None)
    assert (torch.cdist(vectors, vectors) + torch.eye(N_ITEMS) > 1e-3).all()


@each_embedding
@pytest.mark.parametrize("row", [-1, N_ITEMS])
def test_a_row_that_is_no_item_is_refused(build, arguments, row):
    with pytest.raises(IndexError):
        ready(build, arguments)(torch.tensor([0, row]))


@each_embedding
def test_gradients_are_finite_reach_every_parameter_and_do_not_depend_on_how_rows_were_asked_for(build, arguments):
    embedding = ready(build, arguments)
    rows, weights = torch.tensor([[3, 3], [0, 11]]), torch.randn(2, 2, DIM)
    parameters = dict(embedding.named_parameters())
    some = torch.autograd.grad((embedding(rows) * weights).sum(), list(parameters.values()))
    whole = torch.autograd.grad((embedding(None)[rows] * weights).sum(), list(parameters.values()))
    for name, gradient, other in zip(parameters, some, whole, strict=True):
        assert gradient.isfinite().all(), name
        assert gradient.abs().sum() > 0, name
        torch.testing.assert_close(gradient, other)


@each_embedding
def test_what_it_learned_travels_with_the_checkpoint(build, arguments):
    embedding, other = ready(build, arguments), ready(build, arguments, seed=1)
    other.load_state_dict(embedding.state_dict())
    assert torch.equal(other(None), embedding(None))


@each_embedding
def test_evaluation_is_repeatable(build, arguments):
    embedding = ready(build, arguments)
    assert torch.equal(embedding(None), embedding(None))


@each_embedding
def test_new_items_get_vectors_from_their_texts_or_a_reason_why_not(build, arguments):
    embedding = ready(build, arguments)
    texts = torch.randn(3, 5)
    try:
        vectors = embedding.vectors_of(texts)
    except TypeError as refusal:
        vectors, reason = None, str(refusal)
    if vectors is None:
        assert "a new one has no vector" in reason
        return
    assert vectors.shape == (3, DIM)
    assert vectors.isfinite().all()
    torch.testing.assert_close(vectors[1:2], embedding.vectors_of(texts[1:2]))


def test_an_item_that_comes_later_gets_the_vector_that_it_would_have_had():
    embedding = ready(tower, {})
    torch.testing.assert_close(embedding.vectors_of(embedding.vectors), embedding(None))
    with pytest.raises(ValueError, match="vectors of 4 numbers, the model was trained on vectors of 5"):
        embedding.vectors_of(torch.randn(2, 4))
