"""Biases at real-valued positions: every implementation equals the reference, and the reference equals sums by hand."""

import pytest
import torch

from seqrec.ops.contextual import contextual_bias
from seqrec.ops.dispatch import using

NAMES = [each.name for each in contextual_bias.implementations]


def test_it_counts_back_from_the_newest_visible_key_and_interpolates():
    gates = torch.tensor([[0.5, 1.0, 0.25, 0.9]])
    columns = torch.tensor([[10.0, 20.0, 40.0]])
    # Positions 1.75, 1.25, 0.25 of three visible keys; the fourth does not count.
    expected = torch.tensor([[20 + 0.75 * 20, 20 + 0.25 * 20, 10 + 0.25 * 10, 0.0]])
    for name in ("reference", *NAMES):
        with using(name):
            torch.testing.assert_close(contextual_bias(gates, columns, torch.tensor([3])), expected)


def test_positions_are_bounded_by_the_last_column():
    gates, columns = torch.ones(1, 9), torch.tensor([[1.0, 2.0, 5.0]])
    for name in ("reference", *NAMES):
        with using(name):
            bias = contextual_bias(gates, columns, torch.tensor([9]))
        assert bias.tolist() == [[5.0] * 8 + [2.0]]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("rows", "keys", "n_columns"), [(1, 1, 2), (3, 7, 4), (50, 200, 200), (2, 2000, 30), (4, 9, 2)]
)
def test_implementations_agree_with_the_reference(name, rows, keys, n_columns):
    torch.manual_seed(0)
    gates = torch.rand(2, rows, keys).requires_grad_()
    columns = torch.randn(2, rows, n_columns).requires_grad_()
    n_visible = torch.randint(0, keys + 1, (rows,))
    upstream = torch.randn(2, rows, keys)

    def run(which, dtype):
        with using(which):
            leaves = [x.detach().to(dtype).requires_grad_() for x in (gates, columns)]
            bias = contextual_bias(*leaves, n_visible.expand(2, rows))
        return bias.float(), *(x.float() for x in torch.autograd.grad((bias * upstream).sum(), leaves))

    torch.testing.assert_close(run(name, torch.float32), run("reference", torch.float64), rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("name", ["reference", *NAMES])
def test_no_gradient_flows_through_whole_positions_and_bounded_ones(name):
    gates, columns = torch.tensor([[1.0, 1.0, 1.0, 0.0]]).requires_grad_(), torch.tensor([[1.0, 2.0, 5.0]])
    with using(name):
        (gradient,) = torch.autograd.grad(contextual_bias(gates, columns, torch.tensor([4])).sum(), gates)
    assert gradient.tolist() == [[0.0] * 4]


@pytest.mark.parametrize("name", ["reference", *NAMES])
def test_a_gate_that_is_no_number_spoils_the_biases_up_to_it_and_nothing_else(name):
    gates = torch.tensor([[0.5, float("nan"), 0.5]]).requires_grad_()
    columns = torch.tensor([[1.0, 3.0, 5.0]]).requires_grad_()
    with using(name):
        bias = contextual_bias(gates, columns, torch.tensor([3]))
        torch.autograd.grad(bias.sum(), [gates, columns])
    assert bias.isnan().tolist() == [[True, True, False]]
    assert bias[0, 2] == 2


@pytest.mark.parametrize("name", ["reference", *NAMES])
def test_nothing_asks_nothing_is_said(name):
    with using(name):
        bias = contextual_bias(torch.zeros(2, 0, 0), torch.zeros(2, 0, 3), torch.zeros(2, 0, dtype=torch.long))
    assert bias.shape == (2, 0, 0)
