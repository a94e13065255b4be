"""The convolution in Triton: interpreted and compiled here, and run on a GPU where there is one."""

import importlib.util

import pytest
import torch
from on_a_gpu import DEVICE, LENGTHS, TOLERANCE, agree, on_a_gpu, to, willing
from test_conv import answers, problem
from without_a_gpu import compiles, needs_triton, passes_interpreted

from seqrec.ops.conv import causal_conv1d
from seqrec.ops.dispatch import using


@needs_triton
def test_it_agrees_with_the_reference_in_tritons_interpreter():
    passes_interpreted("conv_triton_interpreted.py")


@needs_triton
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("kind", ["fp32", "bf16"])
@pytest.mark.parametrize("kernel", ["_forward", "_backward", "_backward_into_pasts"])
@pytest.mark.parametrize("absent", [(), ("bias", "initial", "for_bias")], ids=["all inputs", "fewest inputs"])
def test_it_compiles_for_a_gpu_that_is_not_here(kernel, kind, capability, absent, tmp_path, monkeypatch):
    from seqrec.ops import conv_triton

    _, known = conv_triton._sizes(torch.empty(128, 4), 1)
    kinds = {"offsets": "*i64", "owners": "*i64", "n_events": "i32", "n_rows": "i32", "stride": "i32"}
    kinds |= dict.fromkeys(("x", "for_x", "y", "for_y"), f"*{kind}")
    compiles(getattr(conv_triton, kernel), known | dict.fromkeys(absent), kinds, capability, tmp_path, monkeypatch)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64], ids=str)
def test_a_cpu_is_told_why_not(kind):
    inputs = problem([3, 2], 4, starts=False, kind=kind)
    reason = "tensors are on cpu" if kind == torch.float32 else "numbers are float64"
    with using("triton"), pytest.raises(RuntimeError, match=f"cannot run as 'triton': triton: {reason}"):
        causal_conv1d(*inputs)


def test_a_missing_package_is_named(monkeypatch):
    inputs = problem([3, 2], 4, starts=False, kind=torch.float32)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with using("triton"), pytest.raises(RuntimeError, match=r"triton is missing \(pip install 'seqrec\[gpu\]'\)"):
        causal_conv1d(*inputs)


@on_a_gpu
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("starts", [True, False], ids=["from a past", "from nothing"])
@pytest.mark.parametrize(("width", "channels", "has_bias"), [(1, 5, True), (2, 70, False), (4, 128, True)])
def test_a_gpu_computes_the_same(width, channels, has_bias, starts, kind, lengths):
    """Every implementation that takes these inputs there, values and gradients."""
    inputs = problem(lengths, width, starts, has_bias, channels, kind)
    expected = answers("reference", [to("cpu", each, torch.float64) for each in inputs])
    there = [to(DEVICE, each) for each in inputs]
    names = willing(causal_conv1d, *there)
    assert names[0] == "triton"
    for name in names:
        agree(answers(name, there), expected, TOLERANCE[kind])


@on_a_gpu
def test_a_gpu_reads_half_precision_under_full_and_parts_of_wider_rows():
    x, weight, bias, offsets, initial = (to(DEVICE, x) for x in problem([3, 0, 200], 4, True, kind=torch.float32))
    wide = torch.cat([x, x], 1).detach().bfloat16()[:, 2:5]
    found, expected = [], []
    for name, kept in (("triton", found), ("shifted", expected)):
        rows = wide.detach().requires_grad_()
        kept += answers(name, (rows, weight, bias, offsets, initial))
    assert found[0].dtype == torch.float32
    agree(found, [each.double().cpu() for each in expected], TOLERANCE[torch.bfloat16])
