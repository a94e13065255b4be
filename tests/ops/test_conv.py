"""Every implementation of the causal convolution equals a loop over histories, values and gradients."""

import pytest
import torch

from seqrec.ops.conv import causal_conv1d, causal_conv1d_step, newest_inputs
from seqrec.ops.dispatch import using
from seqrec.sequences import bounds

LENGTHS = {
    "no history": [],
    "single events": [1, 1, 1],
    "of many lengths": [3, 1, 0, 4, 63, 2],
    "shorter than the filter": [2],
    "of the usual lengths": [200, 63],
    "long": [2000, 3],
}


def problem(lengths, width, starts, has_bias=True, channels=3, kind=torch.float64):
    torch.manual_seed(0)
    made = [torch.randn(sum(lengths), channels), torch.randn(channels, width)]
    made += [torch.randn(channels)] if has_bias else []
    made += [torch.randn(len(lengths), width - 1, channels)] if starts else []
    x, weight, *others = (each.to(kind).requires_grad_() for each in made)
    bias = others.pop(0) if has_bias else None
    return (x, weight, bias, bounds(torch.tensor(lengths).long()), *others)


def answers(name, inputs):
    with using(name):
        y = causal_conv1d(*inputs)
    leaves = [each for each in inputs if each is not None and each.requires_grad]
    total = y.square().sum() + sum(0 * x.sum() for x in leaves)  # the sums of no events depend on nothing
    return y, *torch.autograd.grad(total, leaves)


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
@pytest.mark.parametrize("width", [1, 2, 4])
@pytest.mark.parametrize("starts", [True, False], ids=["from a past", "from nothing"])
@pytest.mark.parametrize("implementation", ["shifted"])
def test_implementations_agree_with_the_reference(implementation, starts, width, lengths):
    inputs = problem(lengths, width, starts)
    torch.testing.assert_close(answers(implementation, inputs), answers("reference", inputs))


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
@pytest.mark.parametrize(("kind", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 3e-2)], ids=str)
@pytest.mark.parametrize("implementation", ["shifted"])
def test_lesser_precision_stays_close_to_float64(implementation, kind, tolerance, lengths):
    inputs = problem(lengths, 4, starts=True, kind=kind)
    wide = [each.detach().double().requires_grad_() if each.is_floating_point() else each for each in inputs]
    for one, other in zip(answers(implementation, inputs), answers("reference", wide), strict=True):
        assert one.dtype == kind
        assert (one.double() - other).norm() <= tolerance * other.norm()


@pytest.mark.parametrize("autocast", [False, True])
def test_inputs_in_half_precision_meet_filters_in_full_precision_alike_everywhere(autocast):
    x, weight, bias, offsets = problem([3, 9, 1], 4, False, kind=torch.float32)
    half = x.detach().bfloat16()
    found = []
    for name in ("reference", "shifted"):
        with using(name), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            found.append(causal_conv1d(half, weight, bias, offsets))
    assert found[0].dtype == found[1].dtype == torch.float32
    torch.testing.assert_close(found[0], found[1])


def test_no_implementation_is_forgotten_here():
    """That in Triton is tried in test_conv_triton.py."""
    assert {"shifted", "triton"} == {each.name for each in causal_conv1d.implementations}


def test_a_bias_may_be_missing():
    inputs = problem([3, 5], 4, starts=False, has_bias=False)
    torch.testing.assert_close(answers("shifted", inputs), answers("reference", inputs))


def test_a_hand_made_history():
    x, weight = torch.tensor([[1.0], [2.0], [4.0], [8.0]]), torch.tensor([[10.0, 1.0]])
    y = causal_conv1d(x, weight, torch.tensor([0.5]), torch.tensor([0, 2, 4]))
    assert y[:, 0].tolist() == [1.5, 12.5, 4.5, 48.5]


def test_steps_one_by_one_equal_the_whole():
    x, weight, bias, offsets = problem([6, 6], 4, starts=False)
    y = causal_conv1d(x, weight, bias, offsets)
    past = x.new_zeros(2, 3, 3)
    for t in range(6):
        read, past = causal_conv1d_step(past, x[offsets[:-1] + t], weight, bias)
        torch.testing.assert_close(read, y[offsets[:-1] + t])
    torch.testing.assert_close(past, newest_inputs(x, 3, offsets))


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("autocast", [False, True])
def test_steps_are_as_fine_as_the_whole_where_inputs_are_narrower_than_filters_or_autocast_is_on(autocast, kind):
    x, weight, bias, offsets = problem([6, 6], 4, starts=False, kind=torch.float32)
    x, past = x.detach().to(kind), torch.zeros(2, 3, 3)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = causal_conv1d(x, weight, bias, offsets)
        for t in range(6):
            read, past = causal_conv1d_step(past, x[offsets[:-1] + t], weight, bias)
            assert read.dtype == past.dtype == torch.float32
            torch.testing.assert_close(read, y[offsets[:-1] + t], rtol=1e-6, atol=1e-6)


def test_second_derivatives_are_those_of_finite_differences():
    x, weight, bias, offsets = problem([3, 0, 2], 3, starts=False, channels=2)
    assert torch.autograd.gradgradcheck(lambda *leaves: causal_conv1d(*leaves, offsets), [x, weight, bias])


@pytest.mark.parametrize("n", [0, 1, 3])
def test_the_newest_inputs_reach_back_into_the_past(n):
    x = torch.arange(1.0, 8.0)[:, None]
    past = -torch.arange(1.0, 10.0).view(3, 3, 1)[:, 3 - n :]
    offsets = bounds(torch.tensor([5, 0, 2]))
    expected = [
        [*old, *new][len(new) :] for old, new in zip(past[..., 0].tolist(), [[1, 2, 3, 4, 5], [], [6, 7]], strict=True)
    ]
    assert newest_inputs(x, n, offsets, past)[..., 0].tolist() == expected
