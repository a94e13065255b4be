"""The blocked loss of scores equals the plain one, value and gradient."""

import pytest
import torch
from torch.nn import functional as F

from seqrec.ops import scored_cross_entropy as module
from seqrec.ops.cross_entropy import linear_cross_entropy
from seqrec.ops.dispatch import using
from seqrec.ops.scored_cross_entropy import scored_cross_entropy


def problem(n_queries, n_keys, dtype=torch.float64):
    generator = torch.Generator().manual_seed(n_queries * 1000 + n_keys)
    queries = torch.randn(n_queries, 6, dtype=dtype, generator=generator).requires_grad_()
    keys = torch.randn(n_keys, 6, dtype=dtype, generator=generator).requires_grad_()
    return queries, keys, torch.randint(n_keys, (n_queries,), generator=generator)


@pytest.mark.parametrize("name", [each.name for each in scored_cross_entropy.implementations])
@pytest.mark.parametrize(("n_queries", "n_keys"), [(0, 3), (1, 1), (33, 7), (100, 300)])
@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_implementations_agree_with_the_reference(name, n_queries, n_keys, rows, monkeypatch):
    monkeypatch.setitem(module._BLOCK_BYTES, "cpu", 4 * n_keys * rows)
    queries, keys, targets = problem(n_queries, n_keys)
    power = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(n_queries, dtype=torch.float64)

    def answers(implementation):
        with using(implementation):
            losses = scored_cross_entropy(queries, keys, targets, lambda products: power * torch.sinh(products))
        return losses, *torch.autograd.grad((losses * weights).sum(), (queries, keys, power))

    torch.testing.assert_close(answers(name), answers("reference"))


def test_a_device_that_nobody_measured_has_blocks_as_well(monkeypatch):
    monkeypatch.delitem(module._BLOCK_BYTES, "cpu")
    with using("blocked"):
        assert scored_cross_entropy(*problem(3, 4), torch.square).shape == (3,)


def test_a_hand_made_loss():
    queries, keys = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0], [3.0, 5.0]])
    losses = scored_cross_entropy(queries, keys, torch.tensor([1]), torch.square)  # scores 1 and 9
    torch.testing.assert_close(losses, F.softplus(torch.tensor([-8.0])))


def test_with_inner_products_as_scores_it_is_the_linear_loss():
    queries, keys, targets = problem(50, 40)
    losses = scored_cross_entropy(queries, keys, targets, lambda products: products)
    torch.testing.assert_close(losses, linear_cross_entropy(queries, keys, targets))


def test_products_are_float32_under_autocast_and_made_again_as_such():
    queries, keys, targets = problem(50, 40, torch.float32)
    exact = scored_cross_entropy(queries, keys, targets, torch.square)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        narrow = scored_cross_entropy(queries, keys, targets, torch.square)
    torch.testing.assert_close(narrow, exact)
    gradients = [torch.autograd.grad(losses.sum(), (queries, keys)) for losses in (narrow, exact)]
    torch.testing.assert_close(*gradients)
