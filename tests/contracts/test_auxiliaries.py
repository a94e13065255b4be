"""What every auxiliary must obey. A new one adds one line to ``CASES``."""

from dataclasses import replace

import pytest
import torch

from seqrec.batch import Batch
from seqrec.objectives.adversarial import AdversarialPerturbation
from seqrec.objectives.alignment import InfoNCEAlignment, KernelAlignment
from seqrec.objectives.distillation import NeighbourDistillation
from seqrec.objectives.scored import KeyLength
from seqrec.objectives.semantic_contrast import Attention, Negatives, NeighbourContrast, SubstituteContrast
from seqrec.recommenders.base import Encoded
from seqrec.sequences import Sequences

CASES = [
    pytest.param(KeyLength, {}, id="KeyLength"),
    pytest.param(NeighbourContrast, {"text_dim": 3, "dropout": 0.0}, id="NeighbourContrast"),
    pytest.param(
        NeighbourContrast,
        {
            "text_dim": 3,
            "dropout": 0.0,
            "negatives": Negatives.synthetic,
            "attention": Attention.dynamic,
            "same_user_repels": False,
        },
        id="NeighbourContrast-synthetic",
    ),
    pytest.param(SubstituteContrast, {}, id="SubstituteContrast"),
    pytest.param(KernelAlignment, {}, id="KernelAlignment"),
    pytest.param(InfoNCEAlignment, {}, id="InfoNCEAlignment"),
    pytest.param(NeighbourDistillation, {}, id="NeighbourDistillation"),
    pytest.param(AdversarialPerturbation, {"epsilon": 0.1}, id="AdversarialPerturbation"),
]
each_auxiliary = pytest.mark.parametrize(("build", "arguments"), CASES)

HISTORIES = [[3, 1, 4], [1], [5, 9, 2, 6]]


def encoded_of(histories=HISTORIES, dtype=torch.float32):
    """Histories encoded by hand, each predicting behind its newest event, and the leaves that have gradients."""
    torch.manual_seed(0)
    history = Sequences.pack(histories)
    views = {
        "substitutes": history,
        "other_substitutes": history,
        "neighbours": replace(
            Sequences.pack([part for each in histories for part in (each, [2], [7, 8])]),
            vectors=torch.randn(3 * len(histories), 3),
        ),
    }
    parts = (history, *views.values())
    leaves = [torch.randn(n, 4, requires_grad=True) for n in (*(part.items.numel() for part in parts), 12)]
    batch = Batch(torch.arange(len(history)), history, history.newest, torch.arange(len(history)), views=views)
    return encoded_from(batch, leaves, dtype), leaves


def encoded_from(batch, leaves, dtype=torch.float32):
    states, *views, table = leaves

    def keys(rows):
        return (table if rows is None else table[rows]).to(dtype)

    at = states[batch.predict_at]
    named = {name: leaf[view.newest].to(dtype) for (name, view), leaf in zip(batch.views.items(), views, strict=True)}

    def parts(rows):
        return keys(rows), 2 * keys(rows).roll(1, -1) + 1

    return Encoded(batch, at, at.to(dtype), keys, torch.arange(12), named, parts=parts)


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
    assert auxiliary(encoded_from(encoded.batch, leaves)) < before


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
    torch.manual_seed(1)
    auxiliary = build(**arguments)
    exact = auxiliary(encoded_of()[0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        narrow = auxiliary(encoded_of(dtype=torch.bfloat16)[0])
    torch.testing.assert_close(narrow.float(), exact, rtol=0.02, atol=0.02)
