"""Scans for a GPU: the one in Triton, interpreted and compiled here, and all of them on a GPU where there is one."""

import importlib.util

import pytest
import torch
from on_a_gpu import DEVICE, LENGTHS, TOLERANCE, agree, on_a_gpu, to, willing
from test_scan import answers, problem
from test_ssd import answers as ssd_answers
from test_ssd import problem as ssd_problem
from without_a_gpu import compiles, needs_triton, passes_interpreted

from seqrec.ops.dispatch import using
from seqrec.ops.scan import selective_scan
from seqrec.ops.ssd import ssd_scan


@needs_triton
def test_it_agrees_with_the_reference_in_tritons_interpreter():
    passes_interpreted("triton_interpreted.py")


@needs_triton
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("kind", ["fp32", "bf16"])
@pytest.mark.parametrize("kernel", ["_forward", "_backward"])
@pytest.mark.parametrize("absent", [(), ("initial", "for_newest", "for_initial")], ids=["all inputs", "fewest inputs"])
def test_it_compiles_for_a_gpu_that_is_not_here(kernel, kind, capability, absent, tmp_path, monkeypatch):
    from seqrec.ops import scan_triton

    _, known = scan_triton._sizes(torch.empty(128, 32), 1)
    known |= {"KEEPS_MARKS": not absent, **dict.fromkeys(absent)}
    kinds = {"offsets": "*i64", "n_events": "i32"}
    kinds |= dict.fromkeys(("u", "delta", "b", "c", "y", "for_y", "for_u", "for_delta"), f"*{kind}")
    compiles(getattr(scan_triton, kernel), known, kinds, capability, tmp_path, monkeypatch)


@pytest.mark.parametrize("name", ["triton", "mamba_ssm"])
@pytest.mark.parametrize("kind", [torch.float32, torch.float64], ids=str)
def test_a_cpu_is_told_why_not(name, kind):
    inputs, offsets = problem([3, 2], kind, starts=False)
    reason = "tensors are on cpu" if kind == torch.float32 else "numbers are float64"
    with using(name), pytest.raises(RuntimeError, match=f"cannot run as '{name}': {name}: {reason}"):
        selective_scan(**inputs, offsets=offsets)


def test_mamba_2_on_a_cpu_is_told_why_not():
    inputs, offsets = ssd_problem([3, 2], torch.float32)
    with using("mamba_ssm"), pytest.raises(RuntimeError, match="mamba_ssm: tensors are on cpu"):
        ssd_scan(**inputs, offsets=offsets)


def test_a_missing_package_is_named(monkeypatch):
    inputs, offsets = problem([3, 2], torch.float32)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with using("triton"), pytest.raises(RuntimeError, match=r"triton is missing \(pip install 'seqrec\[gpu\]'\)"):
        selective_scan(**inputs, offsets=offsets)


@on_a_gpu
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("starts", [True, False], ids=["from a state", "from nothing"])
@pytest.mark.parametrize("op", ["selective_scan", "ssd_scan", "ssd_scan in TF32"])
def test_a_gpu_computes_the_same(op, starts, kind, lengths, monkeypatch):
    """Every implementation that takes these inputs there, values and gradients."""
    tolerance = TOLERANCE[kind]
    if op.endswith("TF32"):
        monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
        tolerance = 2e-2
    compare(op, lengths, kind, tolerance, starts=starts)


@on_a_gpu
@pytest.mark.parametrize(("smallest", "largest"), [(1e-4, 1.1e-4), (50.0, 50.1), (1e-4, 50.0)])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("op", ["selective_scan", "ssd_scan"])
def test_extreme_steps_stay_finite_and_agree_on_a_gpu(op, kind, smallest, largest):
    compare(op, LENGTHS["of all lengths"], kind, TOLERANCE[kind], least=0.0, smallest=smallest, largest=largest)


def compare(op, lengths, kind, tolerance, least=1.0, **told):
    if op == "selective_scan":
        (inputs, offsets), op, answer = problem(lengths, kind, **told), selective_scan, answers
    else:
        (inputs, offsets), op, answer = ssd_problem(lengths, kind, channels=16, n=16, **told), ssd_scan, ssd_answers
    expected = answer("reference", {name: to("cpu", x, torch.float64) for name, x in inputs.items()}, offsets)
    there, bounds = {name: to(DEVICE, x) for name, x in inputs.items()}, offsets.to(DEVICE)
    names = willing(op, **there, offsets=bounds)
    assert names[0] == "triton" or op is ssd_scan
    for name in names:
        agree(answer(name, there, bounds), expected, tolerance, least)
