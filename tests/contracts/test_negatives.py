"""What every negative sampler must obey. A new one adds one line to ``CASES``."""

import pytest
import torch

from seqrec.batch import Batch
from seqrec.objectives.negatives import InBatch, Mixed, Popularity, Uniform
from seqrec.recommenders.base import Encoded
from seqrec.sequences import Sequences

CASES = [
    pytest.param(Uniform, {}, id="Uniform"),
    pytest.param(Popularity, {}, id="Popularity"),
    pytest.param(Popularity, {"exponent": 0.5}, id="Popularity, its root"),
    pytest.param(InBatch, {}, id="InBatch"),
    pytest.param(Mixed, {"first": InBatch(), "second": Uniform(), "share": 0.25}, id="Mixed"),
]
each_sampler = pytest.mark.parametrize(("build", "arguments"), CASES)


def encoded_of(targets, counts):
    history = Sequences.pack([targets])
    batch = Batch(torch.arange(1), history, torch.arange(len(targets)), torch.tensor(targets, dtype=torch.long))
    table = torch.randn(len(counts), 4)
    return Encoded(
        batch,
        states=torch.randn(len(targets), 4),
        queries=torch.randn(len(targets), 4),
        keys=lambda rows: table if rows is None else table[rows],
        counts=torch.tensor(counts),
    )


@each_sampler
@pytest.mark.parametrize("n", [0, 1, 300])
def test_as_many_items_of_the_catalog_are_drawn_as_asked_for(build, arguments, n):
    drawn = build(**arguments).draw(encoded_of([1, 2], counts=[1, 2, 3, 4]), n)
    assert drawn.shape == (n,)
    assert drawn.dtype == torch.long
    assert ((drawn >= 0) & (drawn < 4)).all()


@each_sampler
def test_items_are_drawn_as_often_as_the_sampler_says(build, arguments):
    # The targets of the batch occur in proportion to the counts, as they do over many batches.
    sampler, encoded = build(**arguments), encoded_of([0] * 5 + [1] * 3 + [2] * 2, counts=[5, 3, 2])
    drawn = sampler.draw(encoded, 40_000, torch.Generator().manual_seed(0))
    shares = drawn.bincount(minlength=3) / drawn.numel()
    expected = sampler.log_probability(encoded, torch.arange(3)).exp()
    torch.testing.assert_close(expected.sum(), torch.tensor(1.0))
    torch.testing.assert_close(shares, expected, atol=0.015, rtol=0)


@each_sampler
def test_neighbouring_draws_are_independent(build, arguments):
    sampler, encoded = build(**arguments), encoded_of([0] * 5 + [1] * 3 + [2] * 2, counts=[5, 3, 2])
    first, second = sampler.draw(encoded, 40_000, torch.Generator().manual_seed(0)).view(-1, 2).T
    shares = sampler.log_probability(encoded, torch.arange(3)).exp()
    pairs = (3 * first + second).bincount(minlength=9).view(3, 3) / first.numel()
    torch.testing.assert_close(pairs, shares[:, None] * shares, atol=0.015, rtol=0)


@each_sampler
def test_log_probabilities_are_finite_for_every_item_in_any_shape_also_for_one_never_seen(build, arguments):
    sampler, encoded = build(**arguments), encoded_of([1, 3], counts=[0, 2, 0, 40])
    rows = torch.tensor([[0, 1, 2], [3, 3, 0]])
    found = sampler.log_probability(encoded, rows)
    assert found.shape == rows.shape
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    torch.testing.assert_close(found, torch.stack([sampler.log_probability(encoded, row) for row in rows]))


@each_sampler
def test_a_generator_repeats_what_is_drawn_and_nothing_else_is_random(build, arguments):
    sampler, encoded = build(**arguments), encoded_of([1, 2], counts=[1, 2, 3, 4])
    before = torch.get_rng_state()
    one, other, another = (sampler.draw(encoded, 50, torch.Generator().manual_seed(seed)) for seed in (7, 7, 8))
    assert one.tolist() == other.tolist() != another.tolist()
    assert torch.equal(torch.get_rng_state(), before)


@each_sampler
def test_without_a_generator_the_global_seed_decides(build, arguments):
    sampler, encoded = build(**arguments), encoded_of([1, 2], counts=[1, 2, 3, 4])
    torch.manual_seed(3)
    one = sampler.draw(encoded, 50)
    torch.manual_seed(3)
    assert one.tolist() == sampler.draw(encoded, 50).tolist()


@each_sampler
def test_a_batch_without_predictions_gets_items_of_the_catalog_or_none(build, arguments):
    drawn = build(**arguments).draw(encoded_of([], counts=[1, 2, 3, 4]), 50)
    assert drawn.numel() in (0, 50)
    assert ((drawn >= 0) & (drawn < 4)).all()
