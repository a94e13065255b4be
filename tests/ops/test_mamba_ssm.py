"""What is handed to mamba_ssm and taken from it, with functions of its shapes that scan as the reference does.

Arguments and results are those in the docstrings of ``selective_scan_fn`` and ``mamba_chunk_scan_combined``.
"""

import sys
from types import SimpleNamespace

import pytest
import test_scan
import test_ssd
import torch

from seqrec.ops.dispatch import Implementation
from seqrec.ops.scan import selective_scan
from seqrec.ops.ssd import ssd_scan
from seqrec.sequences import bounds

LENGTHS = {"no history": [], "empty": [0, 0], "of many lengths": [3, 1, 0, 4, 63, 2]}


def by_rows(scan, decay, initial, *rectangles):
    """Rows of rectangles [batch, length, ...] scanned as packed histories."""
    rows, length = rectangles[0].shape[:2]
    u, delta, b, c = (x.flatten(0, 1) for x in rectangles)
    y, newest = scan.reference(u, delta, decay, b, c, bounds(torch.full((rows,), length)), initial)
    return y.unflatten(0, (rows, length)), newest


def selective_scan_fn(u, delta, A, B, C):
    return by_rows(selective_scan, A, None, u.mT, delta.mT, B.mT, C.mT)[0].mT


def mamba_chunk_scan_combined(x, dt, A, B, C, chunk_size, initial_states=None, return_final_states=False):
    assert return_final_states
    assert B.shape[2] == C.shape[2] == 1
    return by_rows(ssd_scan, A, initial_states, x, dt, B[:, :, 0], C[:, :, 0])


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch):
    for name, function in (
        ("mamba_ssm.ops.selective_scan_interface", selective_scan_fn),
        ("mamba_ssm.ops.triton.ssd_combined", mamba_chunk_scan_combined),
    ):
        for depth in range(1, name.count(".") + 1):
            monkeypatch.setitem(sys.modules, name.rsplit(".", depth)[0], SimpleNamespace())
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(**{function.__name__: function}))


def willing(op, monkeypatch):
    """Let this one run on a CPU."""
    (ours,) = (each for each in op.implementations if each.name == "mamba_ssm")
    monkeypatch.setattr(op, "implementations", [Implementation("mamba_ssm", ours.run, lambda *_, **__: None)])


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("op", "cases", "starts"),
    [(selective_scan, test_scan, False), (ssd_scan, test_ssd, False), (ssd_scan, test_ssd, True)],
)
def test_packed_histories_come_back_as_they_went(op, cases, starts, kind, lengths, monkeypatch):
    inputs, offsets = cases.problem(lengths, kind, starts=starts)
    expected = cases.answers("reference", inputs, offsets)
    willing(op, monkeypatch)
    for one, other in zip(cases.answers("mamba_ssm", inputs, offsets), expected, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=cases.TOLERANCE[kind], atol=10 * cases.TOLERANCE[kind])
