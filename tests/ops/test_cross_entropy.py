"""The blocked loss equals plain cross-entropy, value and gradient, whatever each loss counts."""

import pytest
import torch
from torch.nn import functional as F

from seqrec.ops import cross_entropy
from seqrec.ops.cross_entropy import linear_cross_entropy


def _problem(n_queries, n_keys, width=8, dtype=torch.float64):
    generator = torch.Generator().manual_seed(n_queries * 1000 + n_keys)
    queries = torch.randn(n_queries, width, dtype=dtype, generator=generator).requires_grad_()
    keys = torch.randn(n_keys, width, dtype=dtype, generator=generator).requires_grad_()
    return queries, keys, torch.randint(n_keys, (n_queries,), generator=generator)


def _gradients(losses, weights, *inputs):
    return torch.autograd.grad((losses * weights).sum(), inputs)


@pytest.mark.parametrize(("n_queries", "n_keys"), [(1, 1), (1, 50), (33, 7), (100, 300), (257, 12_101)])
@pytest.mark.parametrize("equal", [True, False])
def test_values_and_gradients_equal_plain_cross_entropy_in_float64(n_queries, n_keys, equal):
    queries, keys, targets = _problem(n_queries, n_keys)
    weights = torch.full((n_queries,), 0.3, dtype=torch.float64) if equal else torch.rand(n_queries).double()
    ours = linear_cross_entropy(queries, keys, targets)
    plain = F.cross_entropy(queries @ keys.T, targets, reduction="none")
    torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(
        _gradients(ours, weights, queries, keys), _gradients(plain, weights, queries, keys), rtol=1e-9, atol=1e-10
    )


def test_float32_stays_close_to_float64():
    queries, keys, targets = _problem(300, 5000)
    wide = linear_cross_entropy(queries, keys, targets)
    narrow = linear_cross_entropy(queries.float(), keys.float(), targets)
    torch.testing.assert_close(narrow.double(), wide, rtol=1e-5, atol=1e-5)


def test_half_products_under_autocast_keep_three_digits():
    queries, keys, targets = _problem(300, 5000, dtype=torch.float32)
    exact = linear_cross_entropy(queries, keys, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = linear_cross_entropy(queries, keys, targets)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, exact, rtol=2e-2, atol=5e-2)
    ones = torch.ones(300)
    for ours, true in zip(_gradients(half, ones, queries, keys), _gradients(exact, ones, queries, keys), strict=True):
        assert (ours - true).norm() < 0.02 * true.norm()


def test_huge_scores_do_not_overflow():
    queries, keys, targets = _problem(5, 9, dtype=torch.float32)
    losses = linear_cross_entropy(queries * 1e4, keys * 1e4, targets)
    assert torch.isfinite(losses).all()


def test_no_prediction_gives_no_loss():
    queries, keys, targets = _problem(0, 9)
    losses = linear_cross_entropy(queries, keys, targets)
    assert losses.shape == (0,)
    query_gradient, key_gradient = _gradients(losses, 1.0, queries, keys)
    assert query_gradient.shape == (0, 8)
    assert not key_gradient.any()


def test_no_block_of_scores_outgrows_its_budget(monkeypatch):
    monkeypatch.setitem(cross_entropy._BLOCK_BYTES, "cpu", 1)
    queries, keys, targets = _problem(100, 40)
    seen = []
    true_exp = torch.Tensor.exp_
    monkeypatch.setattr(torch.Tensor, "exp_", lambda self: seen.append(self.shape[0]) or true_exp(self))
    linear_cross_entropy(queries, keys, targets)
    assert max(seen) == 32
