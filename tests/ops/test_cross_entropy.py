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


@pytest.mark.parametrize("received", [1.0, 0.037, -2.0, "others"])
@pytest.mark.parametrize("some_are_zero", [False, True])
def test_weights_told_beforehand_change_no_gradient_whether_true_or_not(received, some_are_zero):
    queries, keys, targets = _problem(257, 1_000)
    told = torch.rand(257, dtype=torch.float64)
    if some_are_zero:
        told[::3] = 0
    true = torch.rand(257, dtype=torch.float64) if received == "others" else told * received
    ours = linear_cross_entropy(queries, keys, targets, told)
    plain = F.cross_entropy(queries @ keys.T, targets, reduction="none")
    torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(
        _gradients(ours, true, queries, keys), _gradients(plain, true, queries, keys), rtol=1e-9, atol=1e-10
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_that_turn_out_true_spare_the_second_walk_over_all_scores(dtype, monkeypatch):
    walks = []
    true_walk = cross_entropy._walk
    monkeypatch.setattr(cross_entropy, "_walk", lambda *args: walks.append(1) or true_walk(*args))
    queries, keys, targets = _problem(5_000, 40, dtype=dtype)
    weights = torch.rand(5_000)
    for told, expected in ((weights, 1), (weights.flip(0), 2), (None, 2)):
        walks.clear()
        losses = linear_cross_entropy(queries, keys, targets, told)
        (losses * weights).sum().div(weights.sum()).backward()
        assert len(walks) == expected


def test_equal_weights_are_bit_identical_to_none():
    queries, keys, targets = _problem(100, 300, dtype=torch.float32)
    weights = torch.full((100,), 1.0)
    told, untold = (linear_cross_entropy(queries, keys, targets, each) for each in (weights, None))
    for one, other in zip(
        _gradients(told, weights, queries, keys), _gradients(untold, 1.0, queries, keys), strict=True
    ):
        assert torch.equal(one, other)


def test_float32_stays_close_to_float64():
    queries, keys, targets = _problem(300, 5000)
    wide = linear_cross_entropy(queries, keys, targets)
    narrow = linear_cross_entropy(queries.float(), keys.float(), targets)
    torch.testing.assert_close(narrow.double(), wide, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("told", [None, torch.linspace(0, 1, 300)], ids=["untold", "told"])
def test_keys_that_nothing_asked_for_learn_under_float16_as_well(told):
    """Their gradients are sums of tiny odds, made before any scale of the loss can lift them out of what underflows."""
    queries, keys, targets = 0.1 * torch.randn(64, 16), 0.02 * torch.randn(50_000, 16), torch.randint(100, (64,))
    weights = None if told is None else told[:64]

    def gradient(half: bool) -> torch.Tensor:
        learned = keys.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.float16, enabled=half):
            losses = linear_cross_entropy(queries, learned, targets, weights)
        (65536.0 * (losses if weights is None else losses * weights).mean()).backward()
        assert learned.grad is not None
        return learned.grad[100:] / 65536.0

    exact = gradient(half=False)
    assert (gradient(half=True) - exact).norm() < 2e-3 * exact.norm()


@pytest.mark.parametrize("told", [None, torch.linspace(0, 1, 300)], ids=["untold", "told"])
def test_half_products_under_autocast_keep_three_digits(told):
    queries, keys, targets = _problem(300, 5000, dtype=torch.float32)
    exact = linear_cross_entropy(queries, keys, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = linear_cross_entropy(queries, keys, targets, told)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, exact, rtol=2e-2, atol=5e-2)
    counts = torch.ones(300) if told is None else told
    for ours, true in zip(
        _gradients(half, counts, queries, keys), _gradients(exact, counts, queries, keys), strict=True
    ):
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


@pytest.mark.parametrize(("n_keys", "mean"), [(65_536, 1.1), (200_000, 0.35)])
def test_a_query_that_likes_all_of_very_many_keys_alike_learns_under_float16(n_keys, mean):
    """The sum of all keys is beyond what float16 holds, while no score and no mean is."""
    keys = torch.full((n_keys, 4), mean) + 0.01 * torch.randn(n_keys, 4, generator=torch.Generator().manual_seed(0))
    queries = torch.zeros(2, 4, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.float16):
        losses = linear_cross_entropy(queries, keys, torch.tensor([0, 1]))
    losses.sum().backward()
    torch.testing.assert_close(queries.grad, keys.mean(0) - keys[:2], atol=2e-3 * mean, rtol=0)
