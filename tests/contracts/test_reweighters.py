"""What every reweighter must obey. A new one adds one line to ``CASES``."""

import pytest
import torch

from seqrec.batch import Batch
from seqrec.objectives.base import EqualWeights
from seqrec.recommenders.base import Encoded
from seqrec.sequences import Sequences

CASES = [pytest.param(EqualWeights, {}, id="EqualWeights")]
each_reweighter = pytest.mark.parametrize(("build", "arguments"), CASES)


def encoded_of(histories, dtype=torch.float32):
    """Histories encoded by hand, each predicting behind its newest event."""
    torch.manual_seed(0)
    history = Sequences.pack(histories)
    states, table = torch.randn(history.items.numel(), 4), torch.randn(12, 4, dtype=dtype)
    batch = Batch(torch.arange(len(history)), history, history.newest, torch.arange(len(history)))
    return Encoded(
        batch,
        states,
        states[history.newest].to(dtype),
        lambda rows: table if rows is None else table[rows],
        torch.arange(12),
    )


@each_reweighter
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("histories", [[[3, 1, 4], [1], [5, 9, 2, 6]], []], ids=["three", "none"])
def test_every_prediction_has_a_weight_and_the_batch_one_penalty_in_float32(build, arguments, histories, dtype):
    weighting = build(**arguments)(encoded_of(histories, dtype))
    assert weighting.weights.shape == (len(histories),)
    assert weighting.penalty.shape == ()
    for value in (weighting.weights, weighting.penalty):
        assert value.dtype == torch.float32
        assert value.isfinite().all()
    assert (weighting.weights >= 0).all()


@each_reweighter
def test_a_batch_that_predicts_weighs_something(build, arguments):
    """The loss is divided by the sum of the weights."""
    assert build(**arguments)(encoded_of([[3, 1, 4], [1]])).weights.sum() > 0
