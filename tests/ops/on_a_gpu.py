"""What tests on a GPU share: where they run, and how near the reference in float64 on a CPU they must come."""

import pytest
import torch

DEVICE = torch.device("cuda")
TOLERANCE = {torch.float32: 2e-4, torch.bfloat16: 2e-2}

LENGTHS = {
    "no history": [],
    "only empty histories": [0, 0],
    "a single event": [1],
    "of all lengths": [1, 2, 3, 63, 0, 200, 2000],
}


def on_a_gpu(test):
    return pytest.mark.gpu(pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")(test))


def to(device, value, kind=None):
    """The same elsewhere, numbers in another precision; what is learned is learned there, too."""
    if not isinstance(value, torch.Tensor):
        return value
    learned = value.requires_grad
    return value.detach().to(device, kind if value.is_floating_point() else None).requires_grad_(learned)


def agree(found, expected, tolerance, least=1.0):
    """Each number is off by no more than this share of itself, of the largest of its tensor, and of ``least``."""
    for one, other in zip(found, expected, strict=True):
        one, other = one.detach().double().cpu(), other.detach()
        assert one.isfinite().all()
        size = float(other.abs().max()) if other.numel() else 0.0
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance * (least + size) + 1e-30)


def willing(op, *args, **kwargs):
    """Names of the implementations that take this, the one that runs first."""
    return [each.name for each in op.implementations if each.refuses(*args, **kwargs) is None]
