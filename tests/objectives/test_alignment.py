"""Alignment against a plain NumPy one, on samples whose distributions are known, and on a real fusion."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seqrec.batch import Batch
from seqrec.catalog import Catalog
from seqrec.embeddings.fusion import ConcatEmbedding
from seqrec.embeddings.ids import IdEmbedding
from seqrec.objectives.alignment import InfoNCEAlignment, KernelAlignment, Rows, kernel_discrepancy
from seqrec.recommenders.base import Encoded
from seqrec.sequences import Sequences


def plainly(ones: np.ndarray, others: np.ndarray) -> float:
    """One pair after the other, in double precision."""
    n, both = len(ones), np.concatenate([ones, others]).astype(np.float64)
    squared = ((both[:, None] - both[None]) ** 2).sum(-1)

    def kernel(a: int, b: int) -> float:
        return sum(np.exp(-squared[a, b] / (2 * width * squared.mean())) for width in (0.125, 0.25, 0.5, 1, 2))

    within = sum(kernel(a, b) + kernel(n + a, n + b) for a in range(n) for b in range(n) if a != b) / (n * (n - 1))
    return within - 2 * sum(kernel(a, n + b) for a in range(n) for b in range(n)) / n**2


@given(st.integers(2, 9), st.integers(1, 5), st.floats(0.01, 100), st.integers(0, 2**31))
def test_it_is_what_pairs_add_up_to(n, dim, scale, seed):
    ones, others = scale * torch.randn(2, n, dim, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(
        kernel_discrepancy(ones, others).item(), plainly(ones.numpy(), others.numpy()), rtol=1e-4, atol=1e-4
    )


@given(st.integers(0, 2**31))
def test_the_order_of_a_sample_does_not_matter(seed):
    generator = torch.Generator().manual_seed(seed)
    ones, others = torch.randn(2, 7, 3, generator=generator)
    shuffled = kernel_discrepancy(ones[torch.randperm(7, generator=generator)], others)
    torch.testing.assert_close(shuffled, kernel_discrepancy(ones, others))


def test_samples_of_one_distribution_are_near_and_a_shift_is_seen():
    torch.manual_seed(0)
    alike = [kernel_discrepancy(*torch.randn(2, 200, 16)).item() for _ in range(20)]
    assert abs(np.mean(alike)) < 0.01
    assert kernel_discrepancy(torch.randn(200, 16), torch.randn(200, 16) + 1).item() == pytest.approx(1.07, abs=0.1)


def test_the_bandwidth_has_no_gradient():
    """A gradient through it would tell samples to grow: without, one that is scaled has the slope of fixed widths."""
    torch.manual_seed(0)
    ones, others = torch.randn(5, 3, dtype=torch.double), torch.randn(5, 3, dtype=torch.double)
    leaf = ones.float().requires_grad_()
    kernel_discrepancy(leaf, others.float()).backward()
    both = torch.cat([ones, others])
    mean = torch.cdist(both, both).square().mean()
    fixed = ones.requires_grad_()
    both = torch.cat([fixed, others])
    squared = (both[:, None] - both[None]).square().sum(-1)
    kernel = sum(torch.exp(-squared / (2 * width * mean)) for width in (0.125, 0.25, 0.5, 1, 2))
    apart = ~torch.eye(5, dtype=torch.bool)
    value = (kernel[:5, :5][apart].sum() + kernel[5:, 5:][apart].sum()) / 20 - 2 * kernel[:5, 5:].mean()
    value.backward()
    torch.testing.assert_close(leaf.grad.double(), fixed.grad, rtol=1e-3, atol=1e-5)


class Doubled(IdEmbedding):
    """Stands for texts: a table far from the other one."""

    def forward(self, rows=None):
        return 2 * super().forward(rows) + 3


CATALOG = Catalog(pl.DataFrame({"item_id": [f"i{row}" for row in range(30)], "count": np.ones(30, dtype=np.int64)}))


def encoded_by(embedding, histories=((1, 2, 3, 2), (5,)), targets=(7, 2)):
    history = Sequences.pack([list(each) for each in histories])
    batch = Batch(torch.arange(len(history)), history, history.newest, torch.tensor(targets))
    states = embedding(history.items)[history.newest]
    return Encoded(batch, states, states, embedding, torch.ones(30, dtype=torch.long), parts=embedding.parts)


def test_it_draws_the_two_sides_of_a_fusion_together_and_touches_items_of_the_batch_alone():
    torch.manual_seed(0)
    embedding = ConcatEmbedding(CATALOG, 8, Doubled, gelu=True)
    alignment = KernelAlignment()
    first = alignment(encoded_by(embedding))
    first.backward()
    touched = embedding.ids.table.weight.grad.abs().sum(1).nonzero().flatten().tolist()
    assert touched == [1, 2, 3, 5, 7]
    optimizer = torch.optim.Adam(embedding.parameters(), 0.1)
    for _ in range(200):
        optimizer.zero_grad()
        alignment(encoded_by(embedding)).backward()
        optimizer.step()
    assert alignment(encoded_by(embedding)) < 0.1 < first


def test_of_many_items_some_are_drawn():
    embedding = ConcatEmbedding(CATALOG, 8, Doubled)
    asked = []

    def parts(rows):
        asked.append(rows)
        return embedding.parts(rows)

    encoded = encoded_by(embedding)
    encoded = Encoded(encoded.batch, encoded.states, encoded.queries, embedding, encoded.counts, parts=parts)
    KernelAlignment(most_items=3)(encoded)
    assert len(set(asked[0].tolist())) == 3
    assert set(asked[0].tolist()) <= {1, 2, 3, 5, 7}


@pytest.mark.parametrize(
    ("rows", "compared"), [(Rows.unique, [1, 2, 3, 5, 7, 8, 9]), (Rows.flat, [1, 2, 2, 2, 3, 5, 7, 8, 8, 9, 9])]
)
def test_items_are_compared_once_or_as_often_as_they_occur_negatives_included(rows, compared):
    embedding = ConcatEmbedding(CATALOG, 8, Doubled)
    encoded, asked = encoded_by(embedding), []
    batch = replace(encoded.batch, negatives=torch.tensor([[8, 9], [9, 8]]))
    KernelAlignment(rows=rows)(replace(encoded, batch=batch, parts=lambda of: asked.append(of) or embedding.parts(of)))
    assert sorted(asked[0].tolist()) == compared


def test_an_embedding_with_one_side_is_answered_with_what_to_take():
    for build in (KernelAlignment, InfoNCEAlignment):
        with pytest.raises(
            ValueError, match=rf"{build.__name__} .* has 1; stack a fusion such as configs/plugin/text-c"
        ):
            build()(encoded_by(IdEmbedding(CATALOG, 8)))


@given(st.integers(2, 9), st.integers(1, 5), st.floats(0.05, 2), st.integers(0, 2**31))
def test_info_nce_asks_each_vector_of_an_item_to_find_its_text_by_cosine(n, dim, temperature, seed):
    ones, others = torch.randn(2, n, dim, generator=torch.Generator().manual_seed(seed))
    a, b = (each.double().numpy() for each in (ones, others))
    scores = a @ b.T / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1) / temperature
    plain = np.mean([np.log(np.exp(row - row[i]).sum()) for i, row in enumerate(scores)])
    found = InfoNCEAlignment(temperature=temperature)._apart(ones, others)
    torch.testing.assert_close(found.item(), plain, rtol=1e-4, atol=1e-5)


def test_info_nce_ties_each_item_to_its_own_text_where_one_distribution_for_both_sides_is_not_enough():
    """Texts in another order have the same distribution."""
    vectors = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    moved = vectors.roll(1, 0)
    assert KernelAlignment()._apart(vectors, vectors) == pytest.approx(KernelAlignment()._apart(vectors, moved).item())
    assert InfoNCEAlignment()._apart(vectors, vectors) < InfoNCEAlignment()._apart(vectors, moved) - 1


def test_a_temperature_that_is_not_above_0_is_refused():
    with pytest.raises(ValueError, match=r"temperature is 0.0; it must be above 0"):
        InfoNCEAlignment(temperature=0.0)
