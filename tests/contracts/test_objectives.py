"""What every objective must obey."""

import pytest
import torch

from seqrec.batch import Batch
from seqrec.objectives.binary import GBCE, BinaryCrossEntropy
from seqrec.objectives.info_nce import InfoNCE
from seqrec.objectives.negatives import InBatch, Mixed, Popularity, Uniform
from seqrec.objectives.sampled import HistorySampledSoftmax, IndependentSampledSoftmax, SampledSoftmax
from seqrec.objectives.scored import ScoredSoftmax
from seqrec.objectives.softmax import FullSoftmax
from seqrec.recommenders.base import Encoded
from seqrec.sequences import Sequences

CASES = [
    pytest.param(FullSoftmax, {}, id="FullSoftmax"),
    pytest.param(ScoredSoftmax, {}, id="ScoredSoftmax"),
    pytest.param(SampledSoftmax, {"negatives": Uniform(), "n_negatives": 8}, id="SampledSoftmax-Uniform"),
    pytest.param(
        SampledSoftmax,
        {"negatives": Popularity(), "n_negatives": 8, "log_q": True},
        id="SampledSoftmax-log_q",
    ),
    pytest.param(SampledSoftmax, {"negatives": InBatch(), "n_negatives": 8}, id="SampledSoftmax-InBatch"),
    pytest.param(
        SampledSoftmax, {"negatives": Mixed(InBatch(), Uniform()), "n_negatives": 8}, id="SampledSoftmax-Mixed"
    ),
    pytest.param(
        IndependentSampledSoftmax,
        {"negatives": Popularity(), "n_negatives": 8, "masks_accidental_hits": False},
        id="IndependentSampledSoftmax",
    ),
    pytest.param(HistorySampledSoftmax, {"n_negatives": 5}, id="HistorySampledSoftmax"),
    pytest.param(HistorySampledSoftmax, {"n_negatives": 99}, id="HistorySampledSoftmax-all"),
    pytest.param(BinaryCrossEntropy, {"n_negatives": 2}, id="BinaryCrossEntropy"),
    pytest.param(GBCE, {"n_negatives": 8}, id="GBCE"),
    pytest.param(InfoNCE, {}, id="InfoNCE"),
    pytest.param(InfoNCE, {"negatives": Uniform(), "n_negatives": 8}, id="InfoNCE-Uniform"),
    pytest.param(InfoNCE, {"learns_temperature": False}, id="InfoNCE-fixed"),
]
each_objective = pytest.mark.parametrize(("build", "arguments"), CASES)

HISTORIES = [[3, 1, 4], [1], [5, 9, 2, 6]]
N_ITEMS = 12


def encoded_of(predict_at, targets, dtype=torch.float32):
    """A batch encoded by hand: a table of keys and one query per prediction, both with gradients."""
    torch.manual_seed(0)
    history = Sequences.pack(HISTORIES)
    table = torch.randn(N_ITEMS, 4, requires_grad=True)
    states = torch.randn(history.items.numel(), 4, requires_grad=True)
    batch = Batch(
        torch.arange(len(history)),
        history,
        torch.tensor(predict_at, dtype=torch.long),
        torch.tensor(targets, dtype=torch.long),
    )

    def keys(rows):
        return (table if rows is None else table[rows]).to(dtype)

    counts = torch.arange(N_ITEMS)
    at = states[batch.predict_at]
    return Encoded(batch, at, at.to(dtype), keys, counts), states, table


@each_objective
def test_there_is_one_finite_loss_per_prediction_and_none_is_negative(build, arguments):
    encoded, *_ = encoded_of([0, 2, 3, 7], [1, 4, 8, 11])
    losses = build(**arguments)(encoded)
    assert losses.shape == (4,)
    assert losses.dtype == torch.float32
    assert losses.isfinite().all()
    assert (losses > -1e-5).all()


@each_objective
def test_gradients_reach_both_sides_and_leave_events_that_predict_nothing_alone(build, arguments):
    encoded, states, table = encoded_of([0, 7], [1, 11])
    losses = build(**arguments)(encoded)
    for_states, for_table = torch.autograd.grad(losses.sum(), (states, table))
    for gradient in (for_states, for_table):
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0
    assert (for_states[[0, 7]].abs().sum(1) > 0).all()
    assert (for_states[[1, 2, 3, 4, 5, 6]] == 0).all()


@each_objective
def test_a_batch_without_predictions_has_no_losses_and_no_gradients(build, arguments):
    encoded, states, _ = encoded_of([], [])
    losses = build(**arguments)(encoded)
    assert losses.shape == (0,)
    losses.sum().backward()
    assert states.grad is None or (states.grad == 0).all()


@each_objective
def test_a_step_down_the_gradient_lowers_the_loss(build, arguments):
    encoded, states, table = encoded_of([0, 2, 3, 7], [1, 4, 8, 11])
    objective = build(**arguments)

    def loss():
        torch.manual_seed(9)
        fresh = Encoded(
            encoded.batch,
            states[encoded.batch.predict_at],
            states[encoded.batch.predict_at],
            encoded.keys,
            encoded.counts,
            encoded.views,
        )
        return objective(fresh).mean()

    before = loss()
    gradients = torch.autograd.grad(before, (states, table))
    with torch.no_grad():
        for leaf, gradient in zip((states, table), gradients, strict=True):
            leaf -= 0.01 * gradient
    assert loss() < before


@each_objective
def test_losses_are_computed_in_float32_under_bfloat16_autocast(build, arguments):
    encoded, *_ = encoded_of([0, 2, 3, 7], [1, 4, 8, 11], dtype=torch.bfloat16)
    objective = build(**arguments)
    torch.manual_seed(9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = objective(encoded)
    assert losses.dtype == torch.float32
    exact = Encoded(
        encoded.batch,
        encoded.states,
        encoded.queries.float(),
        lambda rows: encoded.keys(rows).float(),
        encoded.counts,
    )
    torch.manual_seed(9)
    torch.testing.assert_close(losses, objective(exact), atol=2e-2, rtol=2e-2)


@each_objective
def test_the_weights_of_a_reweighter_scale_each_prediction_alone(build, arguments):
    encoded, states, _ = encoded_of([0, 2, 3, 7], [1, 4, 8, 11])
    weights = torch.tensor([0.0, 1.0, 0.0, 2.0])
    (gradient,) = torch.autograd.grad((weights * build(**arguments)(encoded)).sum(), states)
    assert (gradient[[0, 3]] == 0).all()
    assert (gradient[[2, 7]].abs().sum(1) > 0).all()
