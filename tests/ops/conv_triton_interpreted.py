"""The convolution in Triton equals the reference; runs where TRITON_INTERPRET=1, started by test_conv_triton.py."""

import pytest
import torch
from test_conv import LENGTHS, answers, problem

from seqrec.ops import conv_triton
from seqrec.ops.conv import causal_conv1d
from seqrec.ops.dispatch import using

MANY = [3, 1, 0, 4, 63, 0, 0, 2, 200]
CASES = LENGTHS | {"only empty histories": [0, 0], "a single event": [1], "many, some empty": MANY, "long": [500, 3]}
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


def agree(ours, theirs, kind):
    for one, other in zip(ours, theirs, strict=True):
        assert one.dtype == kind
        assert one.shape == other.shape
        size = float(other.detach().abs().max()) if other.numel() else 0.0
        torch.testing.assert_close(one.double(), other.double(), rtol=TOLERANCE[kind], atol=TOLERANCE[kind] * size)


def exactly(inputs):
    """What the reference answers in float64."""
    wide = [each.detach().double().requires_grad_() if each.is_floating_point() else each for each in given(inputs)]
    if inputs[2] is None:
        wide.insert(2, None)
    return answers("reference", wide)


def given(inputs):
    return [each for each in inputs if each is not None]


@pytest.mark.parametrize("lengths", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("width", [1, 2, 4])
@pytest.mark.parametrize("starts", [True, False], ids=["from a past", "from nothing"])
def test_every_length_and_width_agrees(starts, width, lengths):
    inputs = problem(lengths, width, starts, kind=torch.float32)
    agree(answers("triton", inputs), exactly(inputs), torch.float32)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("has_bias", [True, False], ids=["with a bias", "without one"])
@pytest.mark.parametrize("starts", [True, False], ids=["from a past", "from nothing"])
@pytest.mark.parametrize(("width", "channels"), [(1, 1), (2, 70), (4, 3), (8, 5), (16, 2)])
def test_every_kind_of_numbers_agrees_with_and_without_what_may_be_missing(width, channels, starts, has_bias, kind):
    inputs = problem([3, 1, 0, 40], width, starts, has_bias, channels, kind)
    agree(answers("triton", inputs), exactly(inputs), kind)


@pytest.mark.parametrize("starts", [True, False], ids=["from a past", "from nothing"])
def test_inputs_in_half_precision_meet_filters_in_full_precision(starts):
    x, *others = problem(MANY, 4, starts, kind=torch.float32)
    narrow, wide = (x.detach().bfloat16().to(kind).requires_grad_() for kind in (torch.bfloat16, torch.float32))
    (y, for_x, *found), (expected, for_wide, *true) = (
        answers(*each) for each in (("triton", (narrow, *others)), ("reference", (wide, *others)))
    )
    assert y.dtype == torch.float32
    agree([for_x], [for_wide], torch.bfloat16)
    agree([y, *found], [expected, *true], torch.float32)


def test_blocks_of_events_and_channels_change_nothing(monkeypatch):
    inputs = problem([3, 1, 0, 7], 4, True, kind=torch.float32)
    together = answers("triton", inputs)
    monkeypatch.setattr(conv_triton, "_ROWS", 4)
    monkeypatch.setattr(conv_triton, "_CHANNELS", 2)
    agree(answers("triton", inputs), together, torch.float32)


def test_twice_the_same_is_the_same_to_the_last_bit():
    inputs = problem(MANY, 4, True, kind=torch.float32)
    for one, other in zip(answers("triton", inputs), answers("triton", inputs), strict=True):
        assert torch.equal(one, other)


def test_part_of_wider_rows_is_read_where_it_lies():
    _, weight, bias, offsets, initial = problem(MANY, 4, True, kind=torch.float32)
    rows = torch.randn(sum(MANY), 6).requires_grad_()

    def of(x):
        with using("triton"):
            y = causal_conv1d(x, weight, bias, offsets, initial)
        return y, *torch.autograd.grad(y.square().sum(), (rows, weight, bias, initial))

    agree(of(rows[:, 3:]), of(rows[:, 3:].contiguous()), torch.float32)
    agree(of(rows[:, ::2]), of(rows[:, ::2].contiguous()), torch.float32)


def test_a_broken_history_breaks_no_other():
    x, weight, bias, offsets, initial = problem([3, 5, 2], 4, True, kind=torch.float32)
    with torch.no_grad():
        x[3:8], initial[1] = torch.nan, torch.nan
    y, for_x, *_, for_initial = answers("triton", (x, weight, bias, offsets, initial))
    others = [0, 1, 2, 8, 9]
    assert y[3:8].isnan().all()
    assert y[others].isfinite().all()
    assert for_x[others].isfinite().all()
    assert for_initial[[0, 2]].isfinite().all()


def test_what_needs_no_gradient_is_computed_alike():
    x, weight, bias, offsets = problem(MANY, 4, False, kind=torch.float32)
    with torch.no_grad(), using("triton"):
        y = causal_conv1d(x, weight, bias, offsets)
    agree([y], [causal_conv1d.reference(x, weight, bias, offsets)], torch.float32)
    with using("triton"):
        causal_conv1d(x.detach(), weight, None, offsets).sum().backward()
    torch.testing.assert_close(weight.grad[:, -1], x.detach().sum(0))


def test_second_derivatives_are_refused():
    x, weight, bias, offsets = problem([9, 4], 4, False, kind=torch.float32)
    with using("triton"):
        y = causal_conv1d(x, weight, bias, offsets)
    (gradient,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_filters_that_are_too_wide_are_left_to_others():
    inputs = problem([9, 4], 17, False, kind=torch.float32)
    with (
        using("triton"),
        pytest.raises(RuntimeError, match="17 weights, it is written out for 16 at most"),
    ):
        causal_conv1d(*inputs)
    torch.testing.assert_close(causal_conv1d(*inputs), causal_conv1d.reference(*inputs))


@pytest.mark.parametrize("wide", ["inputs", "filters"])
def test_float64_is_left_to_others(wide):
    x, weight, bias, offsets = problem([9, 4], 4, False)
    inputs = (x, weight.float(), bias, offsets) if wide == "inputs" else (x.float(), weight, bias, offsets)
    with using("triton"), pytest.raises(RuntimeError, match="triton: numbers are float64"):
        causal_conv1d(*inputs)
