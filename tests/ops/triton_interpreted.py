"""The scan in Triton equals the reference; runs where TRITON_INTERPRET=1, started by test_scan_triton.py."""

import pytest
import torch
from test_scan import LENGTHS, TOLERANCE, answers, problem

from seqrec.ops import scan_triton
from seqrec.ops.dispatch import using
from seqrec.ops.scan import selective_scan

SHORTER = {
    "very long beside short ones": [130, 0, 3, 60],
    "long": [100, 3],
    "very long": [129],
    "more than take a step together": [2, 0, 1] * 10,
}
MANY = LENGTHS["of many lengths"]


def agree(inputs, offsets, kind):
    ours, reference = (answers(name, inputs, offsets) for name in ("triton", "reference"))
    for one, other in zip(ours, reference, strict=True):
        assert one.dtype == other.dtype
        size = float(other.detach().abs().max()) if other.numel() else 0.0
        torch.testing.assert_close(one, other, rtol=TOLERANCE[kind], atol=TOLERANCE[kind] * (1 + size))


@pytest.mark.parametrize("name", LENGTHS)
def test_every_length_agrees(name):
    agree(*problem(SHORTER.get(name, LENGTHS[name]), torch.float32), torch.float32)


@pytest.mark.parametrize(
    ("kind", "starts"), [(torch.float32, False), (torch.bfloat16, True), (torch.bfloat16, False)], ids=str
)
def test_half_precision_agrees_with_and_without_a_state_to_start_from(kind, starts):
    agree(*problem(MANY, kind, starts=starts), kind)


def test_blocks_of_channels_change_nothing(monkeypatch):
    inputs, offsets = problem([3, 1, 0, 20], torch.float32)
    together = answers("triton", inputs, offsets)
    monkeypatch.setattr(scan_triton, "_TILE", 8)
    alone = answers("triton", inputs, offsets)
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(("smallest", "largest"), [(1e-4, 1.1e-4), (50.0, 50.1), (1e-4, 50.0)])
def test_extreme_steps_stay_finite_and_agree(smallest, largest):
    inputs, offsets = problem([40, 3, 1], torch.float32, smallest, largest)
    exact, _ = problem([40, 3, 1], torch.float64, smallest, largest)
    for one, other in zip(answers("triton", inputs, offsets), answers("reference", exact, offsets), strict=True):
        assert torch.isfinite(one).all()
        scale = float(other.detach().abs().max())
        torch.testing.assert_close(one.double(), other, rtol=1e-3, atol=1e-5 * scale)


def test_not_a_number_is_not_hidden():
    inputs, offsets = problem([9, 4], torch.float32)
    with torch.no_grad():
        inputs["delta"][3, 1] = float("nan")
    y, newest, for_u, *_ = answers("triton", inputs, offsets)
    assert y[3:9, 1].isnan().all()
    assert newest[0, 1].isnan().all()
    assert for_u[:4, 1].isnan().all()
    assert y[9:].isfinite().all()
    assert for_u[9:].isfinite().all()


def test_nothing_is_kept_where_nothing_is_learned():
    inputs, offsets = problem([20, 3], torch.float32)
    with torch.no_grad(), using("triton"):
        y, newest = selective_scan(**inputs, offsets=offsets)
    expected = selective_scan.reference(**inputs, offsets=offsets)
    torch.testing.assert_close((y, newest), expected)


def test_second_derivatives_are_refused():
    inputs, offsets = problem([9, 4], torch.float32)
    with using("triton"):
        y, _ = selective_scan(**inputs, offsets=offsets)
    (gradient,) = torch.autograd.grad(y.square().sum(), inputs["u"], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_a_cpu_has_a_better_one():
    inputs, offsets = problem([5], torch.float32)
    assert next(i.name for i in selective_scan.implementations if i.refuses(**inputs, offsets=offsets) is None) == (
        "compiled"
    )
