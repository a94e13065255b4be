"""The chunked scan of Mamba-2 equals the recurrence read aloud, values and gradients."""

import pytest
import torch

from seqrec.ops.dispatch import using
from seqrec.ops.scan import selective_scan
from seqrec.ops.ssd import ssd_scan
from seqrec.sequences import bounds

LENGTHS = {
    "no history": [],
    "only empty histories": [0, 0],
    "single events": [1, 1, 1],
    "of many lengths": [3, 1, 0, 4, 63, 2],
    "more than one chunk": [64, 65, 5, 200, 128],
    "none short but empty ones": [0, 30, 60, 0],
    "very long": [2000],
}
TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-4, torch.bfloat16: 2e-2}


def problem(lengths, kind=torch.float64, smallest=0.01, largest=1.0, starts=True, heads=2, channels=3, n=4):
    torch.manual_seed(sum(lengths))
    total = sum(lengths)
    made = {
        "u": torch.randn(total, heads, channels),
        "delta": torch.empty(total, heads).uniform_(smallest, largest),
        "decay": -torch.empty(heads).uniform_(0.5, 3.0),
        "b": torch.randn(total, n),
        "c": torch.randn(total, n),
    }
    if starts:
        made["initial"] = torch.randn(len(lengths), heads, channels, n)
    return {name: x.to(kind).requires_grad_() for name, x in made.items()}, bounds(torch.tensor(lengths).long())


def answers(name, inputs, offsets):
    """Outputs and gradients."""
    with using(name):
        y, newest = ssd_scan(**inputs, offsets=offsets)
    weigh = [torch.cos(torch.arange(out.numel(), device=out.device) / 3).view_as(out) for out in (y, newest)]
    total = sum((out.to(weight.dtype) * weight).sum() for out, weight in zip((y, newest), weigh, strict=True))
    total = total + sum(0 * x.sum() for x in inputs.values())  # the outputs of no events depend on nothing
    return y, newest, *torch.autograd.grad(total, list(inputs.values()))


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
@pytest.mark.parametrize("starts", [True, False], ids=["from a state", "from nothing"])
@pytest.mark.parametrize("kind", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("implementation", ["chunked"])
def test_implementations_agree_with_the_reference(implementation, kind, starts, lengths):
    inputs, offsets = problem(lengths, kind, starts=starts)
    ours, reference = (answers(name, inputs, offsets) for name in (implementation, "reference"))
    for one, other in zip(ours, reference, strict=True):
        assert one.dtype == other.dtype
        size = float(other.detach().abs().max()) if other.numel() else 0.0
        torch.testing.assert_close(one, other, rtol=TOLERANCE[kind], atol=TOLERANCE[kind] * (1 + size))


@pytest.mark.parametrize(("smallest", "largest"), [(1e-4, 1.1e-4), (50.0, 50.1), (1e-4, 50.0)])
@pytest.mark.parametrize("name", ["reference", "chunked"])
def test_extreme_steps_stay_finite_and_agree(name, smallest, largest):
    inputs, offsets = problem([40, 3, 1, 70], torch.float32, smallest, largest)
    exact, _ = problem([40, 3, 1, 70], torch.float64, smallest, largest)
    for one, other in zip(answers(name, inputs, offsets), answers("reference", exact, offsets), strict=True):
        assert torch.isfinite(one).all()
        scale = float(other.detach().abs().max())
        torch.testing.assert_close(one.double(), other, rtol=1e-3, atol=1e-5 * scale + 1e-30)


def test_no_implementation_is_forgotten_here():
    assert {"chunked", "mamba_ssm"} == {each.name for each in ssd_scan.implementations}


def test_it_is_the_selective_scan_with_one_decay_and_step_per_head():
    inputs, offsets = problem([9, 4], starts=False)
    heads, channels = inputs["u"].shape[1:]
    y, newest = ssd_scan(**inputs, offsets=offsets)
    general, states = selective_scan(
        inputs["u"].flatten(1),
        inputs["delta"].repeat_interleave(channels, 1),
        inputs["decay"].repeat_interleave(channels)[:, None].expand(heads * channels, 4),
        inputs["b"],
        inputs["c"],
        offsets,
    )
    torch.testing.assert_close(y.flatten(1), general)
    torch.testing.assert_close(newest.flatten(1, 2), states)


@pytest.mark.parametrize("name", ["reference", "chunked", "exported"])
def test_huge_steps_take_no_digit_from_the_small_ones_behind_them(name):
    torch.manual_seed(0)
    total, late = 64, 40
    delta = torch.tensor([50.0] * 32 + [1e-4] * 32)[:, None]
    wide = [torch.randn(total, 1, 4), delta, torch.tensor([-16.0]), torch.randn(total, 8), torch.randn(total, 8)]

    def of(name, kind):
        inputs = [x.to(kind).requires_grad_() for x in wide]
        run = ssd_scan._exported if name == "exported" else ssd_scan
        with using("reference" if name == "exported" else name):
            y, newest = run(*inputs, bounds(torch.tensor([total])))
        return y[late:], newest, *torch.autograd.grad(y[late:].sum() + newest.sum(), inputs)

    for one, other in zip(of(name, torch.float32), of("reference", torch.float64), strict=True):
        assert (one.double() - other).norm() <= 1e-5 * other.norm()
