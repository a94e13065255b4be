"""What is made of a free vector and a text: equal to either where the other has no say, and fading with frequency."""

import numpy as np
import polars as pl
import pytest
import torch
from torch.nn import functional as F

from seqrec.catalog import Catalog
from seqrec.embeddings.fusion import ConcatEmbedding, FadingEmbedding, GatedEmbedding, SumEmbedding
from seqrec.embeddings.ids import IdEmbedding
from seqrec.embeddings.pretrained import FrozenText, TextInitialised, TextTower
from seqrec.embeddings.reduction import PCA

COUNTS = [0, 1, 1, 2, 3, 5, 8, 13, 21, 34]
CATALOG = Catalog(pl.DataFrame({"item_id": [f"i{row}" for row in range(10)], "count": COUNTS}))
NUMBERS = np.random.default_rng(0).standard_normal((10, 6)).astype("float32") * np.arange(1, 7, dtype="float32")
DIM = 4


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "vectors.parquet"
    pl.DataFrame({"item_id": CATALOG.ids, "vector": NUMBERS.tolist()}).write_parquet(path)
    return str(path)


def made(kind, file, **arguments):
    torch.manual_seed(0)
    return kind(CATALOG, DIM, lambda catalog, dim: TextTower(catalog, dim, file, init_std=0.02), **arguments).eval()


def test_a_sum_adds(file):
    both = made(SumEmbedding, file)
    torch.testing.assert_close(both(), both.ids() + both.text())


def test_a_concatenation_whose_map_reads_one_half_is_that_half(file):
    both = made(ConcatEmbedding, file)
    with torch.no_grad():
        both.join.weight.copy_(torch.cat([torch.eye(DIM), torch.zeros(DIM, DIM)], 1))
        both.join.bias.zero_()
    torch.testing.assert_close(both(), both.ids())
    bent = made(ConcatEmbedding, file, gelu=True)
    bent.join.load_state_dict(both.join.state_dict())
    torch.testing.assert_close(bent(), F.gelu(bent.ids()))


@pytest.mark.parametrize(("bias", "part"), [(50.0, "ids"), (-50.0, "text")])
def test_a_gate_that_is_open_to_one_side_gives_that_side_exactly(file, bias, part):
    both = made(GatedEmbedding, file)
    with torch.no_grad():
        both.gate.weight.zero_()
        both.gate.bias.fill_(bias)
    assert torch.equal(both(), getattr(both, part)())


def test_a_gate_reads_both_sides(file):
    both = made(GatedEmbedding, file)
    with torch.no_grad():
        both.gate.weight.normal_(std=20.0)
        both.gate.bias.normal_()
        ids, text = both.ids(), both.text()
        logits = ids @ both.gate.weight[:, :DIM].T + text @ both.gate.weight[:, DIM:].T + both.gate.bias
        gates = 1 / (1 + torch.exp(-logits))
    torch.testing.assert_close(both(), gates * ids + (1 - gates) * text)


def test_text_fades_as_items_grow_frequent(file):
    both = made(FadingEmbedding, file, n_bins=3)
    assert both.bins[0] == 0
    assert both.bins[1:].tolist() == sorted(both.bins[1:].tolist())
    assert set(both.bins[1:].tolist()) == {1, 2, 3}
    share = ((both() - both.text()) / (both.ids() - both.text())).mean(1)
    torch.testing.assert_close(share, both.logits[both.bins].sigmoid(), rtol=1e-3, atol=1e-3)
    assert (share[1:].diff() >= -1e-3).all()
    assert share[0] < share[1] < share[9]


def test_bins_of_frequency_hold_about_as_many_interactions_each(file):
    counts = (3000 / np.arange(1, 3001) ** 0.8).astype(int) * (np.arange(3000) < 2900)
    catalog = Catalog(pl.DataFrame({"item_id": [f"i{row}" for row in range(3000)], "count": counts}))
    both = FadingEmbedding(catalog, DIM, lambda catalog, dim: IdEmbedding(catalog, dim))
    share = np.bincount(both.bins.numpy(), counts, minlength=11) / counts.sum()
    assert share[0] == 0
    # One item or one count may be larger than a tenth, so that a bin beside it holds less.
    largest = np.bincount(counts, counts).max() / counts.sum()
    assert (np.abs(share[1:] - 0.1) <= largest).all()
    assert largest < 0.1
    assert (both.bins[counts == 0] == 0).all()
    order = both.bins[torch.from_numpy(counts.argsort(kind="stable"))]
    assert (order.diff() >= 0).all()


@pytest.mark.parametrize("kind", [SumEmbedding, ConcatEmbedding, GatedEmbedding, FadingEmbedding])
def test_free_vectors_may_begin_as_texts(file, kind):
    both = made(kind, file, ids=lambda catalog, dim: TextInitialised(catalog, dim, file))
    alone = TextInitialised(CATALOG, DIM, file)
    torch.testing.assert_close(both.ids(), alone())
    assert sum(weight.shape == (10, DIM) for weight in both.parameters()) == 1


@pytest.mark.parametrize("kind", [SumEmbedding, ConcatEmbedding, GatedEmbedding, FadingEmbedding])
def test_a_new_item_is_one_of_the_catalog_whose_free_vector_says_nothing(file, kind):
    both = made(kind, file)
    with torch.no_grad():
        both.ids.table.weight[0] = 0  # counted 0 times in training, as any new item
    torch.testing.assert_close(both.vectors_of(torch.from_numpy(NUMBERS[:1])), both(torch.tensor([0])))


def test_a_tower_beside_a_table_begins_as_wide_as_the_table(file):
    tower = TextTower(CATALOG, DIM, file, init_std=0.02).eval()
    assert tower().square().mean().sqrt().item() == pytest.approx(0.02, rel=1e-4)


def test_a_new_text_goes_the_way_of_those_that_training_knew(file):
    for text in (
        TextTower(CATALOG, DIM, file, reduction=PCA(3, whitens=True)).eval(),
        FrozenText(CATALOG, DIM, file),
    ):
        torch.testing.assert_close(text.vectors_of(torch.from_numpy(NUMBERS)), text())


def test_whitened_components_have_the_identity_as_their_covariance():
    vectors = torch.from_numpy(np.random.default_rng(1).standard_normal((500, 6)) * np.arange(1, 7))
    mean, directions = PCA(4, whitens=True, floor=0.0).fit(vectors)
    z = (vectors.float() - mean) @ directions
    torch.testing.assert_close(z.T @ z / len(z), torch.eye(4), atol=1e-4, rtol=0)


def test_the_floor_is_added_to_the_variances_that_divide():
    vectors = torch.tensor([[-1.0, 5.0], [1.0, 5.0]])  # a variance of 1, and of 4 with the floor
    mean, directions = PCA(1, whitens=True, floor=3.0).fit(vectors)
    torch.testing.assert_close(((vectors - mean) @ directions).abs(), torch.full((2, 1), 0.5))


def test_plain_components_are_those_of_the_singular_values_in_order():
    vectors = torch.from_numpy(NUMBERS)
    mean, directions = PCA(3).fit(vectors)
    _, _, expected = torch.linalg.svd((vectors - vectors.mean(0)).double())
    torch.testing.assert_close((directions.T.double() @ expected[:3].T).abs(), torch.eye(3).double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(mean, vectors.mean(0))


def test_more_components_than_numbers_are_refused(file):
    with pytest.raises(ValueError, match="keep 7 directions of vectors of 6 numbers"):
        FrozenText(CATALOG, 7, file)


def test_a_table_begins_as_its_texts_and_is_trained(file):
    table = TextInitialised(CATALOG, DIM, file, init_std=0.5)
    frozen = FrozenText(CATALOG, DIM, file, whitens=False, init_std=0.5)
    torch.testing.assert_close(table().detach(), frozen())
    assert table().requires_grad
    assert not frozen().requires_grad


def test_a_frozen_table_is_bit_for_bit_the_same_after_training(file):
    both = made(SumEmbedding, file).train()
    before = both.text.texts.vectors.clone()
    optimiser = torch.optim.AdamW(both.parameters(), lr=0.1, weight_decay=0.1)
    both().square().sum().backward()
    optimiser.step()
    assert torch.equal(both.text.texts.vectors, before)


def test_a_text_part_of_another_width_is_refused(file):
    with pytest.raises(ValueError, match=r"have widths \(4, 5\); give both 4"):
        SumEmbedding(CATALOG, DIM, lambda catalog, dim: TextTower(catalog, dim + 1, file))


@pytest.mark.parametrize("arguments", [{"n_bins": 1}, {"spread": -1.0}])
def test_settings_of_fading_that_fade_nothing_are_refused(file, arguments):
    with pytest.raises(ValueError, match="at least 2 bins"):
        made(FadingEmbedding, file, **arguments)


@pytest.mark.parametrize("whitens", [False, True])
def test_components_are_of_what_differs_from_the_mean(file, whitens):
    vectors = torch.from_numpy(NUMBERS) + 5
    path = file.replace("vectors", "shifted")
    pl.DataFrame({"item_id": CATALOG.ids, "vector": vectors.tolist()}).write_parquet(path)
    shifted, plain = (FrozenText(CATALOG, DIM, each, whitens=whitens) for each in (path, file))
    torch.testing.assert_close(shifted().mean(0), torch.zeros(DIM), atol=1e-6, rtol=0)
    torch.testing.assert_close(shifted(), plain(), atol=1e-5, rtol=1e-4)
