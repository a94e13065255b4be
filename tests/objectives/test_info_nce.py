"""InfoNCE equals its formula, leaves out what is like the target, and holds its temperature."""

import math

import pytest
import torch
from torch.nn import functional as F

from seqrec.batch import Batch
from seqrec.objectives.info_nce import InfoNCE
from seqrec.objectives.negatives import NegativeSampler
from seqrec.recommenders.base import Encoded
from seqrec.scorers import Cosine
from seqrec.sequences import Sequences


class Fixed(NegativeSampler):
    """Draws these items, whatever is asked for."""

    def __init__(self, *pool):
        self.pool = pool

    def draw(self, encoded, n, generator=None):
        return torch.tensor(self.pool)

    def log_probability(self, encoded, rows):
        return torch.zeros(rows.shape)


def encoded_of(targets, keys, queries):
    """One history whose events have these queries and are followed by these targets."""
    keys, queries = torch.tensor(keys, requires_grad=True), torch.tensor(queries, requires_grad=True)
    history = Sequences.pack([[0] * len(targets)])
    batch = Batch(torch.arange(1), history, torch.arange(len(targets)), torch.tensor(targets))
    counts = torch.ones(len(keys), dtype=torch.long)
    return Encoded(batch, queries, queries, lambda rows: keys if rows is None else keys[rows], counts), keys, queries


# Directions of 0, 90, 60 and 1 degrees, none of unit length.
KEYS = [[2.0, 0.0], [0.0, 3.0], [0.5, math.sqrt(0.75)], [5.0, 5 * math.tan(math.radians(1))]]


def test_it_is_the_cross_entropy_of_scaled_cosines_among_the_targets_of_the_batch():
    encoded, *_ = encoded_of([0, 1, 1, 2], KEYS, [[3.0, 0.0], [0.0, 4.0], [1.0, 0.0], [0.0, 0.1]])
    # Cosines with items 0, 1 and 2: (1, 0, 1/2), (0, 1, √3/2), (1, 0, 1/2), (0, 1, √3/2); each target counts once.
    e = [math.exp(10 * cosine) for cosine in (0, 0.5, math.sqrt(0.75), 1)]
    right, left = e[3] + e[0] + e[1], e[0] + e[3] + e[2]
    expected = [-math.log(share) for share in (e[3] / right, e[3] / left, e[0] / right, e[2] / left)]
    torch.testing.assert_close(InfoNCE(temperature=0.1)(encoded), torch.tensor(expected))


def test_drawn_negatives_take_the_place_of_the_other_targets():
    encoded, *_ = encoded_of([0, 1], KEYS, [[1.0, 0.0], [0.0, 1.0]])
    losses = InfoNCE(Fixed(2, 1), n_negatives=2, temperature=1.0)(encoded)
    first = math.log(math.e + math.exp(0.5) + 1) - 1
    second = math.log(math.e + math.exp(math.sqrt(0.75))) - 1
    torch.testing.assert_close(losses, torch.tensor([first, second]))


@pytest.mark.parametrize(("limit", "n_negatives"), [(0.99, 1), (0.9999, 2), (1.0, 2), (0.4, 0)])
def test_what_is_like_the_target_is_no_negative_and_nor_is_the_target(limit, n_negatives):
    encoded, *_ = encoded_of([0], KEYS, [[0.0, 1.0]])
    # Cosines with the target are 1, 0.5 and 0.99985; the query is at a right angle to it.
    losses = InfoNCE(Fixed(0, 2, 3), temperature=1.0, similarity_limit=limit)(encoded)
    others = [math.sqrt(0.75), math.sin(math.radians(1))][:n_negatives]
    torch.testing.assert_close(losses, torch.tensor([math.log(1 + sum(math.exp(score) for score in others))]))


def test_a_prediction_without_negatives_has_loss_zero_and_finite_gradients():
    encoded, keys, queries = encoded_of([0, 1], KEYS, [[1.0, 1.0], [1.0, 2.0]])
    objective = InfoNCE(Fixed(0, 3))
    losses = objective(encoded)
    assert losses[0] == 0
    assert losses[1] > 0
    gradients = torch.autograd.grad(losses.sum(), (keys, queries, objective.log_scale))
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert (gradients[1][0] == 0).all()


def test_lengths_and_the_temperature_of_the_scorer_change_nothing():
    torch.manual_seed(0)
    states, items = torch.randn(4, 8), torch.randn(6, 8)

    def losses(scorer, factor):
        keys, queries = scorer.keys(factor * items), scorer.queries(states / factor)
        return InfoNCE()(encoded_of([0, 1, 2, 5], keys.tolist(), queries.tolist())[0])

    torch.testing.assert_close(losses(Cosine(0.05), 1.0), losses(Cosine(2.0), 7.0))


def test_every_item_is_embedded_once_so_dropout_does_not_hide_the_target_among_the_negatives():
    encoded, keys, _ = encoded_of([0, 1, 0], KEYS, [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    asked = []

    def dropped(rows):
        asked.append(rows.tolist())
        return keys[rows]

    InfoNCE(Fixed(2, 0))(Encoded(encoded.batch, encoded.states, encoded.queries, dropped, encoded.counts))
    assert asked == [[0, 1, 2]]


def test_the_temperature_starts_where_it_is_said_and_is_learned():
    encoded, *_ = encoded_of([0, 1], KEYS, [[1.0, 0.1], [0.2, 1.0]])
    objective = InfoNCE()
    assert objective.log_scale.exp().item() == pytest.approx(1 / 0.07)
    objective(encoded).sum().backward()
    # Both queries are nearest to their targets, so sharper is better.
    assert objective.log_scale.grad < 0


def test_the_temperature_is_held_and_comes_back_from_the_limit():
    objective = InfoNCE()
    with torch.no_grad():
        objective.log_scale.fill_(50.0)
    encoded, *_ = encoded_of([0, 1], KEYS, [[0.1, 1.0], [1.0, 0.1]])
    losses = objective(encoded)
    cosines = F.normalize(encoded.queries, dim=1) @ F.normalize(encoded.keys(torch.tensor([0, 1])), dim=1).T
    torch.testing.assert_close(losses, F.cross_entropy(100 * cosines, torch.arange(2), reduction="none"))
    losses.sum().backward()
    torch.optim.SGD([objective.log_scale], lr=0.1).step()
    assert objective.log_scale.exp() < 100


def test_a_fixed_temperature_is_not_trained():
    encoded, keys, _ = encoded_of([0, 1], KEYS, [[1.0, 0.1], [0.2, 1.0]])
    objective = InfoNCE(learns_temperature=False)
    objective(encoded).sum().backward()
    assert objective.log_scale.grad is None
    assert keys.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "arguments", [{"n_negatives": 0}, {"temperature": 0.001}, {"similarity_limit": 0.0}, {"similarity_limit": 1.1}]
)
def test_settings_out_of_range_are_refused(arguments):
    ((name, value),) = arguments.items()
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        InfoNCE(**arguments)
