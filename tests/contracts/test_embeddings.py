"""What every item embedding must obey. A new one adds one line to ``CASES``."""

import tempfile

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seqrec.catalog import Catalog
from seqrec.embeddings.experts import TextExperts
from seqrec.embeddings.extended import ExtendedEmbedding
from seqrec.embeddings.fusion import ConcatEmbedding, FadingEmbedding, GatedEmbedding, SumEmbedding
from seqrec.embeddings.ids import IdEmbedding
from seqrec.embeddings.pretrained import FrozenText, TextInitialised, TextTower
from seqrec.embeddings.reduction import PCA

N_ITEMS, DIM, TEXT_DIM = 12, 8, 9


def vectors_file(folder, catalog):
    """Text vectors that depend on the item alone."""
    numbers = np.random.default_rng(0).standard_normal((len(catalog), TEXT_DIM)).astype("float32")
    path = f"{folder}/vectors.parquet"
    pl.DataFrame({"item_id": catalog.ids, "vector": numbers.tolist()}).write_parquet(path)
    return path


def of_text(kind, **arguments):
    def build(catalog, dim):
        with tempfile.TemporaryDirectory() as folder:
            return kind(catalog, dim, vectors_file(folder, catalog), **arguments)

    return build


def fused(kind, **arguments):
    return lambda catalog, dim: kind(catalog, dim, of_text(TextTower, init_std=0.02), **arguments)


def with_later_items(catalog, dim):
    """A tower that was trained on all items but the last three, whose vectors are given."""
    known = Catalog(catalog.table.head(len(catalog) - 3))
    added = torch.randn(3, dim, generator=torch.Generator().manual_seed(5))
    return ExtendedEmbedding(of_text(TextTower)(known, dim), len(known), added)


CASES = [
    pytest.param(IdEmbedding, {}, id="IdEmbedding"),
    pytest.param(of_text(TextTower), {}, id="TextTower"),
    pytest.param(of_text(TextTower, reduction=PCA(5, whitens=True), init_std=0.5), {}, id="TextTower-reduced"),
    pytest.param(of_text(TextExperts, n_experts=3), {}, id="TextExperts"),
    pytest.param(of_text(TextExperts, reduction=PCA(5), init_std=0.5), {}, id="TextExperts-reduced"),
    pytest.param(of_text(FrozenText), {}, id="FrozenText"),
    pytest.param(of_text(TextInitialised), {}, id="TextInitialised"),
    pytest.param(fused(SumEmbedding), {}, id="SumEmbedding"),
    pytest.param(fused(ConcatEmbedding), {}, id="ConcatEmbedding"),
    pytest.param(fused(ConcatEmbedding, gelu=True), {}, id="ConcatEmbedding-gelu"),
    pytest.param(fused(GatedEmbedding), {}, id="GatedEmbedding"),
    pytest.param(fused(FadingEmbedding, n_bins=3), {}, id="FadingEmbedding"),
    pytest.param(with_later_items, {}, id="ExtendedEmbedding"),
]
each_embedding = pytest.mark.parametrize(("build", "arguments"), CASES)

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
    assert (torch.cdist(vectors, vectors) / vectors.norm(dim=1).mean() + torch.eye(N_ITEMS) > 1e-3).all()


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
    if not parameters:
        assert not embedding(rows).requires_grad
        return
    some = torch.autograd.grad((embedding(rows) * weights).sum(), list(parameters.values()))
    whole = torch.autograd.grad((embedding(None)[rows] * weights).sum(), list(parameters.values()))
    for name, gradient, other in zip(parameters, some, whole, strict=True):
        assert gradient.isfinite().all(), name
        assert gradient.abs().sum() > 0, name
        torch.testing.assert_close(gradient, other)


@each_embedding
def test_the_parts_of_a_vector_are_one_per_item_and_all_that_it_is_made_of(build, arguments):
    embedding, rows = ready(build, arguments), torch.tensor([3, 0, 3])
    parts = embedding.parts(rows)
    assert all(part.shape == (3, DIM) for part in parts)
    if len(parts) == 1:
        torch.testing.assert_close(parts[0], embedding(rows))
    else:
        torch.testing.assert_close(embedding._fused(*parts, rows), embedding(rows))


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
def test_a_new_item_gets_a_vector_from_its_text_alone_or_a_sentence_says_why_not(build, arguments):
    embedding = ready(build, arguments)
    texts = torch.from_numpy(np.random.default_rng(1).standard_normal((3, TEXT_DIM)).astype("float32"))
    try:
        vectors = embedding.vectors_of(texts)
    except TypeError as refusal:
        assert type(embedding).__name__ in str(refusal)  # noqa: PT017
        return
    assert vectors.shape == (3, DIM)
    assert vectors.isfinite().all()
    torch.testing.assert_close(embedding.vectors_of(texts[1:2]), vectors[1:2])
    with pytest.raises(ValueError, match=rf"vectors of {TEXT_DIM - 1} numbers"):
        embedding.vectors_of(texts[:, 1:])


@each_embedding
def test_vectors_stay_close_and_learn_under_bfloat16_autocast(build, arguments):
    embedding = ready(build, arguments)
    rows = torch.tensor([0, 5, 5, 11])
    exact = embedding(rows)
    for asked in (rows, None):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            vectors = embedding(asked)
        assert vectors.isfinite().all()
        torch.testing.assert_close(vectors.float(), exact if asked is rows else embedding(None), rtol=0.05, atol=0.02)
    if exact.requires_grad:
        vectors.float().square().sum().backward()
        assert all(w.grad is not None and w.grad.isfinite().all() for w in embedding.parameters() if w.requires_grad)
