"""Binary objectives obey the identities of their papers."""

import pytest
import torch
from torch.nn import functional as F

from seqrec.batch import Batch
from seqrec.objectives.binary import GBCE, BinaryCrossEntropy
from seqrec.recommenders.base import Encoded
from seqrec.sequences import Sequences

N_ITEMS = 9


def encoded_of(history=(2, 3, 1, 4), targets=(3, 1, 4, 1), n_items=N_ITEMS, scale=1.0):
    torch.manual_seed(0)
    table = (scale * torch.randn(n_items, 4)).requires_grad_()
    queries = torch.randn(len(targets), 4, requires_grad=True)
    batch = Batch(
        torch.arange(1), Sequences.pack([list(history)]), torch.arange(len(targets)), torch.tensor(list(targets))
    )
    counts = torch.ones(n_items, dtype=torch.long)
    encoded = Encoded(batch, queries, queries, lambda rows: table if rows is None else table[rows], counts)
    return encoded, queries, table


def same_draws(objective, encoded):
    torch.manual_seed(5)
    return objective(encoded)


@pytest.mark.parametrize("n_negatives", [1, 7])
def test_gbce_without_calibration_is_binary_cross_entropy(n_negatives):
    encoded, *_ = encoded_of()
    plain = same_draws(BinaryCrossEntropy(n_negatives, excludes_history=False), encoded)
    torch.testing.assert_close(same_draws(GBCE(n_negatives, t=0.0), encoded), plain)


def test_beta_is_the_formula_of_the_paper():
    # ML-1M in the paper: 3,416 items, 256 negatives, t = 0.75.
    alpha, t = 256 / 3415, 0.75
    paper = alpha * (t * (1 - 1 / alpha) + 1 / alpha)
    assert GBCE(256, t).beta(3416) == pytest.approx(paper)
    assert GBCE(256, t).beta(3416) == pytest.approx(0.306, abs=5e-4)
    assert GBCE(10, t=1.0).beta(101) == pytest.approx(0.1)
    assert GBCE(256, t).beta(2) == 1.0


@pytest.mark.parametrize("t", [0.25, 0.75, 1.0])
def test_gbce_equals_the_float64_transform_of_the_positive_score(t):
    encoded, queries, table = encoded_of(history=range(4), n_items=300)
    objective = GBCE(n_negatives=8, t=t)
    losses = same_draws(objective, encoded)

    torch.manual_seed(5)
    negatives = torch.randint(300, (4 * 8,)).view(4, 8)
    queries, table = queries.double(), table.double()
    positive = (queries * table[encoded.batch.targets]).sum(1, keepdim=True)
    transformed = -torch.log(torch.sigmoid(positive) ** -objective.beta(300) - 1)
    scores = torch.cat([transformed, torch.einsum("mk,msk->ms", queries, table[negatives])], dim=1)
    labels = torch.zeros_like(scores)
    labels[:, 0] = 1
    expected = F.binary_cross_entropy_with_logits(scores, labels, reduction="none").mean(1)
    torch.testing.assert_close(losses.double(), expected, atol=1e-6, rtol=1e-6)


def test_gbce_stays_finite_where_the_transform_would_not():
    encoded, queries, table = encoded_of(scale=1000.0)
    losses = GBCE(n_negatives=4)(encoded)
    assert losses.isfinite().all()
    assert all(g.isfinite().all() for g in torch.autograd.grad(losses.sum(), (queries, table)))


def test_one_negative_gives_half_the_loss_of_the_sasrec_paper():
    # Six of seven items are held or predicted, so the negative can only be item 6.
    encoded, queries, table = encoded_of(history=(0, 1, 2, 3), targets=(1, 2, 4, 5), n_items=7)
    positive = (queries * table[encoded.batch.targets]).sum(1)
    paper = -torch.log(torch.sigmoid(positive)) - torch.log(1 - torch.sigmoid(queries @ table[6]))
    torch.testing.assert_close(BinaryCrossEntropy()(encoded), paper / 2)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: BinaryCrossEntropy(n_negatives=0), "n_negatives is 0"),
        (lambda: GBCE(n_negatives=0), "n_negatives is 0"),
        (lambda: GBCE(t=1.5), "t is 1.5"),
    ],
)
def test_settings_out_of_range_are_refused(build, words):
    with pytest.raises(ValueError, match=words):
        build()
