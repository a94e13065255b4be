"""Dropout keeps as much as it says, at places that tell nothing of each other, and its gradient goes the same way."""

import pytest
import torch

from seqrec.ops.dispatch import using
from seqrec.ops.dropout import drop

NAMES = ["reference", *(i.name for i in drop.implementations)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.97])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16], ids=str)
def test_the_share_that_is_dropped_and_the_size_of_the_rest(name, share, kind):
    torch.manual_seed(0)
    n = 400_001  # not a multiple of what one draw decides
    with using(name):
        out = drop(torch.full((n,), 3.0, dtype=kind), share)
    assert out.dtype == kind
    zeros = float((out == 0).double().mean())
    assert abs(zeros - share) <= 5 * (share * (1 - share) / n) ** 0.5
    torch.testing.assert_close(out[out != 0], torch.full_like(out[out != 0], 3 / (1 - share)), rtol=1e-3, atol=0)


@pytest.mark.parametrize("lag", [1, 2, 3, 4, 5])
def test_what_is_dropped_tells_nothing_of_its_neighbours(lag):
    torch.manual_seed(1)
    kept = (drop(torch.ones(400_000), 0.3) != 0).double() - 0.7
    assert abs(float((kept[lag:] * kept[:-lag]).mean())) <= 5 * 0.21 / 400_000**0.5


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_passes_where_the_number_did(name):
    torch.manual_seed(2)
    x = torch.rand(50, 7, dtype=torch.float64).add_(1).requires_grad_()
    with using(name):
        out = drop(x, 0.4)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    torch.testing.assert_close(gradient, (out / x).detach())
    assert 0 < int((gradient == 0).sum()) < 350


def test_every_draw_is_another_and_a_seed_repeats_it():
    torch.manual_seed(3)
    first, second = drop(torch.ones(1000), 0.5), drop(torch.ones(1000), 0.5)
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    torch.testing.assert_close(drop(torch.ones(1000), 0.5), first, rtol=0, atol=0)


def test_nothing_to_drop():
    assert drop(torch.ones(0, 3), 0.5).shape == (0, 3)
