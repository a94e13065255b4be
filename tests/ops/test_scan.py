"""Every implementation of the selective scan equals the recurrence read aloud, values and gradients."""

import itertools

import pytest
import torch

from seqrec.ops import scan
from seqrec.ops.dispatch import using
from seqrec.ops.scan import selective_scan, selective_step
from seqrec.sequences import bounds

LENGTHS = {
    "no history": [],
    "only empty histories": [0, 0],
    "single events": [1, 1, 1],
    "of many lengths": [3, 1, 0, 4, 63, 2],
    "very long beside short ones": [1000, 0, 3, 129],
    "all alike": [7, 7],
    "long": [200, 3],
    "very long": [2000],
    "more than take a step together": [2, 0, 1] * 60,
}
TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-4, torch.bfloat16: 2e-2}


def problem(lengths, kind=torch.float64, smallest=0.01, largest=1.0, starts=True, channels=5, n=3):
    torch.manual_seed(sum(lengths))
    total = sum(lengths)
    # Channels long past are forgotten, so that a gradient through 2,000 events stays comparable.
    made = {
        "u": torch.randn(total, channels),
        "delta": torch.empty(total, channels).uniform_(smallest, largest),
        "decay": -torch.empty(channels, n).uniform_(0.5, 3.0),
        "b": torch.randn(total, n),
        "c": torch.randn(total, n),
    }
    if starts:
        made["initial"] = torch.randn(len(lengths), channels, n)
    return {name: x.to(kind).requires_grad_() for name, x in made.items()}, bounds(torch.tensor(lengths).long())


def answers(name, inputs, offsets):
    """Outputs and gradients."""
    with using(name):
        y, newest = selective_scan(**inputs, offsets=offsets)
    weigh = [torch.cos(torch.arange(out.numel(), device=out.device) / 3).view_as(out) for out in (y, newest)]
    total = sum((out.to(weight.dtype) * weight).sum() for out, weight in zip((y, newest), weigh, strict=True))
    total = total + sum(0 * x.sum() for x in inputs.values())  # the outputs of no events depend on nothing
    return y, newest, *torch.autograd.grad(total, list(inputs.values()))


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
@pytest.mark.parametrize("starts", [True, False], ids=["from a state", "from nothing"])
@pytest.mark.parametrize(
    ("implementation", "kind"),
    [
        ("stepwise", torch.float64),
        *itertools.product(["stepwise", "compiled"], [torch.float32, torch.bfloat16]),
    ],
    ids=str,
)
def test_implementations_agree_with_the_reference(implementation, kind, starts, lengths):
    inputs, offsets = problem(lengths, kind, starts=starts)
    ours, reference = (answers(name, inputs, offsets) for name in (implementation, "reference"))
    for one, other in zip(ours, reference, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(
            one,
            other,
            rtol=TOLERANCE[kind],
            atol=TOLERANCE[kind] * (1 + float(other.detach().abs().max() if other.numel() else 0)),
        )


@pytest.mark.parametrize("name", ["of many lengths", "more than take a step together", "no history"])
@pytest.mark.parametrize("starts", [True, False], ids=["from a state", "from nothing"])
@pytest.mark.parametrize("together", [1, 50])
def test_histories_that_step_group_after_group_agree_with_the_reference(together, starts, name, monkeypatch):
    monkeypatch.setattr(scan, "_CACHED", 15 * together)
    inputs, offsets = problem(LENGTHS[name], starts=starts)
    assert len(scan.time_major(offsets, together)) >= len(LENGTHS[name]) / together
    ours, reference = (answers(name, inputs, offsets) for name in ("stepwise", "reference"))
    torch.testing.assert_close(ours, reference, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("smallest", "largest"), [(1e-4, 1.1e-4), (50.0, 50.1), (1e-4, 50.0)])
@pytest.mark.parametrize("name", ["reference", "stepwise", "compiled"])
def test_extreme_steps_stay_finite_and_agree(name, smallest, largest):
    inputs, offsets = problem([40, 3, 1], torch.float32, smallest, largest)
    exact, _ = problem([40, 3, 1], torch.float64, smallest, largest)
    for one, other in zip(answers(name, inputs, offsets), answers("reference", exact, offsets), strict=True):
        assert torch.isfinite(one).all()
        scale = float(other.detach().abs().max())
        torch.testing.assert_close(one.double(), other, rtol=1e-3, atol=1e-5 * scale)


def test_no_implementation_is_forgotten_here():
    assert {"stepwise", "compiled", "triton", "mamba_ssm"} == {each.name for each in selective_scan.implementations}


def test_float64_is_not_for_the_compiled_scan():
    inputs, offsets = problem([3, 2])
    with using("compiled"), pytest.raises(RuntimeError, match="numbers are float64"):
        selective_scan(**inputs, offsets=offsets)


def test_threads_change_nothing():
    """Each history is read by one thread; only the sum over histories, for the decay, is taken in another order."""
    inputs, offsets = problem([700, 3, 0, 500, 40], torch.float32)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = answers("compiled", inputs, offsets)
        torch.set_num_threads(3)
        together = answers("compiled", inputs, offsets)
    finally:
        torch.set_num_threads(before)
    for place, (one, other) in enumerate(zip(alone, together, strict=True)):
        torch.testing.assert_close(one, other, rtol=1e-5 if place == 4 else 0, atol=1e-4 if place == 4 else 0)


def test_not_a_number_is_not_hidden():
    inputs, offsets = problem([9, 4], torch.float32)
    with torch.no_grad():
        inputs["delta"][3, 1] = float("nan")
    with using("compiled"):
        y, newest = selective_scan(**inputs, offsets=offsets)
    assert y[3:9, 1].isnan().all()
    assert newest[0, 1].isnan().all()
    assert y[9:].isfinite().all()


def test_a_hand_made_history():
    y, newest = selective_scan(
        u=torch.tensor([[1.0], [2.0]]),
        delta=torch.tensor([[0.5], [1.0]]),
        decay=torch.tensor([[-1.0]]),
        b=torch.tensor([[3.0], [1.0]]),
        c=torch.tensor([[1.0], [2.0]]),
        offsets=torch.tensor([0, 2]),
    )
    second = 1.5 * torch.exp(torch.tensor(-1.0)) + 2.0
    torch.testing.assert_close(y, torch.stack([torch.tensor([1.5]), 2 * second[None]]))
    torch.testing.assert_close(newest, second[None, None, None])


def test_steps_one_by_one_equal_the_scan():
    inputs, offsets = problem([9, 9], starts=False)  # float64: with whatever implementation takes it
    y, newest = selective_scan(**inputs, offsets=offsets)
    state = torch.zeros_like(newest)
    at = offsets[:-1]
    for t in range(9):
        now = {name: inputs[name][at + t] for name in ("u", "delta", "b", "c")}
        read, state = selective_step(state, **now, decay=inputs["decay"])
        torch.testing.assert_close(read, y[at + t])
    torch.testing.assert_close(state, newest)


def test_half_precision_around_the_scan_does_not_reach_its_states():
    inputs, offsets = problem([30, 4], torch.float32)
    plain, _ = selective_scan(**inputs, offsets=offsets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        wrapped, states = selective_scan(**inputs, offsets=offsets)
    assert states.dtype == torch.float32
    torch.testing.assert_close(wrapped, plain, rtol=0, atol=0)
