"""Ops that make gradients by hand either give true second derivatives or refuse to give any."""

import pytest
import torch

from seqrec.ops.contextual import contextual_bias
from seqrec.ops.cross_entropy import linear_cross_entropy
from seqrec.ops.dispatch import using
from seqrec.ops.lookup import look_up
from seqrec.ops.rectangles import Rectangles
from seqrec.ops.rows import pick, spread
from seqrec.ops.scan import selective_scan

OFFSETS = torch.tensor([0, 3, 3, 7])
SOME = torch.tensor([4, 0, 6])
LAID = Rectangles(OFFSETS, [torch.tensor([2, 0])], n_heads=2, n_events=7)


def scanned(name):
    def run(u, delta, decay, b, c):
        with using(name):
            y, newest = selective_scan(u, delta.sigmoid(), -decay.exp(), b, c, OFFSETS)
        return y.square().sum() + newest.square().sum()

    return run


# What is made of tensors of these shapes.
ONCE = {
    "the scan, compiled": (scanned("compiled"), (7, 2), (7, 2), (2, 3), (7, 3), (7, 3)),
    "the scan, step by step": (scanned("stepwise"), (7, 2), (7, 2), (2, 3), (7, 3), (7, 3)),
    "the bias of contextual positions": (
        lambda gates, columns: contextual_bias(gates.sigmoid(), columns, torch.tensor([2, 5])).square().sum(),
        *((2, 5), (2, 4)),
    ),
    "a table looked up": (lambda table: look_up(table, SOME).square().sum(), (9,)),
    "cross-entropy": (lambda q, k: linear_cross_entropy(q, k, torch.tensor([0, 2, 1])).square().sum(), (3, 4), (5, 4)),
}
TWICE = {
    "rows picked": (lambda rows: pick(rows, SOME), (7, 2)),
    "rows spread": (lambda rows: spread(rows, SOME, 8), (3, 2)),
    "histories laid in rectangles": (lambda x: LAID.gather(LAID.lay(x)), (7, 2, 2)),
}


def leaves(shapes, kind):
    torch.manual_seed(0)
    return [torch.randn(shape, dtype=kind, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize(("run", "shapes"), [(run, shapes) for run, *shapes in ONCE.values()], ids=ONCE)
def test_a_second_derivative_is_refused(run, shapes):
    inputs = leaves(shapes, torch.float32)
    for gradient in torch.autograd.grad(run(*inputs), inputs, create_graph=True):
        with pytest.raises(RuntimeError, match="once_differentiable"):
            gradient.sum().backward(retain_graph=True)


@pytest.mark.parametrize(("run", "shapes"), [(run, shapes) for run, *shapes in TWICE.values()], ids=TWICE)
def test_a_second_derivative_is_that_of_finite_differences(run, shapes):
    assert torch.autograd.gradgradcheck(run, leaves(shapes, torch.float64))
