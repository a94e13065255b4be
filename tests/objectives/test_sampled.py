"""A sampled softmax approaches the full one, and says honestly what it leaves out."""

import math

import pytest
import torch
from torch.nn import functional as F

from seqrec.batch import Batch
from seqrec.objectives.negatives import InBatch, NegativeSampler, Popularity, Uniform
from seqrec.objectives.sampled import HistorySampledSoftmax, IndependentSampledSoftmax, SampledSoftmax
from seqrec.recommenders.base import Encoded
from seqrec.sequences import Sequences

N_ITEMS = 9


class Fixed(NegativeSampler):
    """Draws the same pool over and over."""

    def __init__(self, pool):
        self.pool = pool

    def draw(self, encoded, n, generator=None):
        return torch.tensor(self.pool).repeat(n // len(self.pool))

    def log_probability(self, encoded, rows):
        return torch.full(rows.shape, -math.log(len(self.pool)))


def encoded_of(targets=(3, 1, 4, 1), counts=(9, 8, 7, 6, 5, 4, 3, 2, 1)):
    torch.manual_seed(0)
    table = torch.randn(N_ITEMS, 4, requires_grad=True)
    queries = torch.randn(len(targets), 4, requires_grad=True)
    history = Sequences.pack([[2, *targets[:-1]]])
    batch = Batch(torch.arange(1), history, torch.arange(len(targets)), torch.tensor(targets))
    encoded = Encoded(
        batch, queries, queries, lambda rows: table if rows is None else table[rows], torch.tensor(counts)
    )
    return encoded, queries, table


KINDS = [SampledSoftmax, IndependentSampledSoftmax]


@pytest.mark.parametrize("kind", KINDS)
def test_with_all_other_items_as_negatives_it_is_the_full_softmax(kind):
    encoded, queries, table = encoded_of()
    losses = kind(Fixed(list(range(N_ITEMS))), n_negatives=N_ITEMS)(encoded)
    expected = F.cross_entropy(queries @ table.T, encoded.batch.targets, reduction="none")
    torch.testing.assert_close(losses, expected)
    torch.testing.assert_close(
        torch.autograd.grad(losses.sum(), (queries, table)), torch.autograd.grad(expected.sum(), (queries, table))
    )


@pytest.mark.parametrize("kind", KINDS)
def test_an_accidental_hit_counts_for_nothing_when_masked_and_doubles_the_target_when_kept(kind):
    encoded, queries, table = encoded_of(targets=(3,))
    masked = kind(Fixed([3, 5]), n_negatives=2)(encoded)
    kept = kind(Fixed([3, 5]), n_negatives=2, masks_accidental_hits=False)(encoded)
    target, other = (queries[0] @ table[row] for row in (3, 5))
    torch.testing.assert_close(masked[0], torch.logaddexp(target, other) - target)
    torch.testing.assert_close(kept[0], torch.stack([target, target, other]).logsumexp(0) - target)


@pytest.mark.parametrize("kind", KINDS)
def test_a_prediction_whose_negatives_are_all_hits_has_loss_zero_and_finite_gradients(kind):
    encoded, queries, table = encoded_of(targets=(3,))
    losses = kind(Fixed([3]), n_negatives=2)(encoded)
    assert losses.tolist() == [0.0]
    assert all(g.isfinite().all() for g in torch.autograd.grad(losses.sum(), (queries, table)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("masks_accidental_hits", [True, False])
@pytest.mark.parametrize("sampler", [Uniform(), Popularity()], ids=["Uniform", "Popularity"])
def test_with_log_q_a_large_sample_gives_the_gradient_of_the_full_softmax(kind, masks_accidental_hits, sampler):
    encoded, queries, table = encoded_of()
    objective = kind(sampler, 60_000, log_q=True, masks_accidental_hits=masks_accidental_hits)
    full = F.cross_entropy(queries @ table.T, encoded.batch.targets, reduction="none")
    expected = torch.autograd.grad(full.sum(), (queries, table))
    actual = torch.autograd.grad(objective(encoded).sum(), (queries, table))
    torch.testing.assert_close(actual, expected, atol=0.05, rtol=0)


def test_without_log_q_a_popular_sampler_pulls_the_gradient_elsewhere():
    encoded, queries, table = encoded_of(counts=(900, 1, 1, 1, 1, 1, 1, 1, 1))
    full = F.cross_entropy(queries @ table.T, encoded.batch.targets, reduction="none")
    expected = torch.autograd.grad(full.sum(), queries)[0]

    def error(log_q):
        losses = SampledSoftmax(Popularity(), 20_000, log_q=log_q)(encoded)
        return (torch.autograd.grad(losses.sum(), queries)[0] - expected).abs().max()

    assert error(log_q=True) < error(log_q=False) / 3


def test_with_log_q_the_pool_estimates_the_sum_over_the_catalog_without_bias():
    encoded, queries, table = encoded_of()
    torch.manual_seed(1)
    objective = SampledSoftmax(Popularity(), 16, log_q=True)
    # exp(loss) is the sum over the candidates in units of the target's own term.
    estimate = torch.stack([objective(encoded).detach().exp() for _ in range(1000)]).mean(0)
    exact = F.cross_entropy(queries @ table.T, encoded.batch.targets, reduction="none").exp()
    torch.testing.assert_close(estimate, exact.detach(), rtol=0.1, atol=0)


def test_one_pool_serves_the_batch_and_only_its_keys_are_read():
    encoded, _, table = encoded_of()
    read = []

    def keys(rows):
        read.append(rows)
        return table[rows]

    SampledSoftmax(Uniform(), n_negatives=5)(
        Encoded(encoded.batch, encoded.states, encoded.queries, keys, encoded.counts)
    )
    assert [rows.numel() for rows in read] == [4 + 5]


@pytest.mark.parametrize("kind", KINDS)
def test_the_temperature_divides_every_score(kind):
    encoded, queries, table = encoded_of()
    losses = kind(Fixed(list(range(N_ITEMS))), n_negatives=N_ITEMS, temperature=0.1)(encoded)
    torch.testing.assert_close(
        losses, F.cross_entropy(queries @ table.T / 0.1, encoded.batch.targets, reduction="none")
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("masks_accidental_hits", [True, False])
def test_log_q_is_taken_off_what_the_temperature_has_divided(kind, masks_accidental_hits):
    encoded, queries, table = encoded_of(targets=(3,))
    pool = Fixed([5, 7])  # four draws hold each of them twice, so each counts half and both count once
    losses = kind(pool, 4, log_q=True, temperature=0.5, masks_accidental_hits=masks_accidental_hits)(encoded)
    target, *others = (queries[0] @ table[row] / 0.5 for row in (3, 5, 7))
    target = target if masks_accidental_hits else target - math.log(2)
    torch.testing.assert_close(losses[0], torch.stack([target, *others]).logsumexp(0) - target)


def test_in_batch_negatives_cannot_be_items_that_nobody_reached():
    encoded, _, table = encoded_of(targets=(3, 1))
    losses = SampledSoftmax(InBatch(), n_negatives=64)(encoded)
    (gradient,) = torch.autograd.grad(losses.sum(), table)
    assert gradient.abs().sum(1).nonzero().flatten().tolist() == [1, 3]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("arguments", "words"), [({"n_negatives": 0}, "n_negatives is 0"), ({"temperature": 0.0}, "temperature is 0.0")]
)
def test_settings_out_of_range_are_refused(kind, arguments, words):
    with pytest.raises(ValueError, match=words):
        kind(Uniform(), **arguments)


def test_predictions_of_a_history_share_negatives_that_it_neither_holds_nor_predicts():
    torch.manual_seed(0)
    items, targets = [[0, 1, 2], [3], list(range(4, 18)), [0]], [1, 2, 19, 7, *range(5, 18), 19]
    history = Sequences.pack(items)
    batch = Batch(torch.arange(4), history, torch.arange(len(targets) - 1), torch.tensor(targets[:-1]))
    table, queries = torch.randn(20, 4), torch.randn(len(targets) - 1, 4)
    encoded = Encoded(
        batch, queries, queries, lambda rows: table if rows is None else table[rows], torch.ones(20).long()
    )
    objective = HistorySampledSoftmax(n_negatives=6)
    seen, draws = [{0, 1, 2, 19}, {3, 7}, set(range(4, 18))], set()
    for _ in range(300):
        rows = objective._draw(encoded)
        for each, places in enumerate(([0, 1, 2], [3], range(4, 17))):
            pools = {tuple(rows[place].tolist()) for place in places}
            if each == 2:  # six unseen items are left, so all of them are drawn
                pools = {tuple(sorted(pool)) for pool in pools}
                assert pools == {(0, 1, 2, 3, 18, 19)}
            assert len(pools) == 1
            (pool,) = pools
            assert len(set(pool)) == 6
            assert not set(pool) & seen[each]
            draws |= {(each, item) for item in pool}
    assert {item for each, item in draws if each == 1} == set(range(20)) - seen[1]
    many = HistorySampledSoftmax(n_negatives=50)
    unseen = [set(range(20)) - seen[0], set(range(20)) - seen[1], set(range(20)) - seen[2]]
    losses = many(encoded)
    for place, each in ((0, 0), (3, 1), (9, 2)):
        candidates = [targets[place], *unseen[each]]
        expected = F.cross_entropy(queries[place] @ table[candidates].T, torch.tensor(0))
        torch.testing.assert_close(losses[place], expected)
