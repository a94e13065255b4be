"""What every auxiliary must obey. A new one adds one line to ``CASES``."""

import pytest
import torch

from seqrec.batch import Batch
from seqrec.objectives.adversarial import AdversarialPerturbation
from seqrec.objectives.scored import KeyLength
from seqrec.recommenders.base import Encoded
from seqrec.sequences import Sequences

CASES = [
    pytest.param(KeyLength, {}, id="KeyLength"),
    pytest.param(AdversarialPerturbation, {"epsilon": 0.1}, id="AdversarialPerturbation"),
]
each_auxiliary = pytest.mark.parametrize(("build", "arguments"), CASES)

HISTORIES = [[3, 1, 4], [1], [5, 9, 2, 6]]


def encoded_of(histories=HISTORIES, dtype=torch.float32):
    """Histories encoded by hand, each predicting behind its newest event, and the leaves that have gradients."""
    torch.manual_seed(0)
    history = Sequences.pack(histories)
    states = torch.randn(history.items.numel(), 4, requires_grad=True)
    table = torch.randn(12, 4, requires_grad=True)
    batch = Batch(torch.arange(len(history)), history, history.newest, torch.arange(len(history)))

    def keys(rows):
        return (table if rows is None else table[rows]).to(dtype)

    return Encoded(batch, states, states[history.newest].to(dtype), keys, torch.arange(12)), (states, table)


@each_auxiliary
def test_it_is_one_finite_number_with_a_name_and_a_weight(build, arguments):
    auxiliary = build(**arguments, weight=0.25)
    term = auxiliary(encoded_of()[0])
    assert term.shape == ()
    assert term.isfinite()
    assert auxiliary.weight == 0.25
    assert auxiliary.name.isidentifier()


@each_auxiliary
def test_a_step_down_its_gradient_lowers_it(build, arguments):
    auxiliary = build(**arguments)
    encoded, leaves = encoded_of()
    before = auxiliary(encoded)
    gradients = torch.autograd.grad(before, leaves, allow_unused=True, materialize_grads=True)
    assert all(gradient.isfinite().all() for gradient in gradients)
    with torch.no_grad():
        for leaf, gradient in zip(leaves, gradients, strict=True):
            leaf -= 0.01 * gradient
    states, _ = leaves
    after = Encoded(
        encoded.batch, states, states[encoded.batch.predict_at], encoded.keys, encoded.counts, encoded.views
    )
    assert auxiliary(after) < before


@each_auxiliary
def test_a_batch_without_histories_has_a_finite_term_and_finite_gradients(build, arguments):
    """Where ranks share a batch that has fewer histories than there are ranks, some receive none."""
    encoded, leaves = encoded_of([])
    term = build(**arguments)(encoded)
    assert term.shape == ()
    assert term.isfinite()
    for gradient in torch.autograd.grad(term, leaves, allow_unused=True, materialize_grads=True):
        assert gradient.isfinite().all()


@each_auxiliary
def test_it_stays_close_under_bfloat16_autocast(build, arguments):
    auxiliary = build(**arguments)
    exact = auxiliary(encoded_of()[0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        narrow = auxiliary(encoded_of(dtype=torch.bfloat16)[0])
    torch.testing.assert_close(narrow.float(), exact, rtol=0.02, atol=0.02)
