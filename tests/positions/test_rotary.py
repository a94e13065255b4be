"""What is peculiar to rotary positions."""

import pytest
import torch

from seqrec.positions.rotary import RotaryPosition


def test_inner_products_know_the_distance_alone():
    torch.manual_seed(0)
    rotary = RotaryPosition(8).double()
    q, k = torch.randn(2, 5, 3, 8, dtype=torch.float64)
    near, far = torch.tensor([0, 1, 5, 17, 100]), torch.tensor([3, 1, 0, 20, 90])

    def product(shift):
        return (rotary.turn(q, near + shift) * rotary.turn(k, far + shift)).sum(-1)

    torch.testing.assert_close(product(0), product(1234))
    assert not torch.allclose(product(0), (q * k).sum(-1))


def test_vectors_keep_their_length_and_the_first_place_turns_nothing():
    rotary, x = RotaryPosition(6), torch.randn(4, 2, 6)
    torch.testing.assert_close(rotary.turn(x, torch.arange(4)).norm(dim=-1), x.norm(dim=-1))
    torch.testing.assert_close(rotary.turn(x, torch.zeros(4, dtype=torch.long)), x)


def test_the_first_pair_turns_by_a_radian_per_event():
    x = torch.tensor([[[1.0, 0, 0, 0]]])
    turned = RotaryPosition(4).turn(x, torch.tensor([2])).flatten()
    torch.testing.assert_close(
        turned,
        torch.tensor([2.0, 0, 2.0, 0]).cos() * torch.tensor([1.0, 0, 0, 0])
        + torch.tensor([0, 0, 1.0, 0]) * torch.tensor(2.0).sin(),
    )


def test_vectors_in_half_precision_turn_by_angles_in_full():
    torch.manual_seed(0)
    rotary, x, far = RotaryPosition(8), torch.randn(5, 2, 8).bfloat16(), torch.arange(1000, 1005)
    turned = rotary.turn(x, far)
    assert turned.dtype == torch.bfloat16
    assert torch.equal(turned, rotary.turn(x.float(), far).bfloat16())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(rotary.turn(x, far), turned)
    exact = RotaryPosition(8).double().turn(x.double(), far)  # rounded once, at the end
    torch.testing.assert_close(turned.double(), exact, rtol=2**-8, atol=1e-3)


@pytest.mark.parametrize(("arguments", "message"), [((7,), "pairs"), ((8, 0.5), "base")])
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        RotaryPosition(*arguments)
