"""How kernels for a GPU are tried on a machine without one: interpreted, and compiled for one that is not here."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

HAS_TRITON = (platform.system(), platform.machine()) == ("Linux", "x86_64")
needs_triton = pytest.mark.skipif(not HAS_TRITON, reason="Triton is not for this system")


def passes_interpreted(cases: str) -> None:
    """A file of tests beside this one passes and skips none.

    It has a process of its own, because Triton decides between compiler and interpreter when it is imported.
    """
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(Path(__file__).with_name(cases))]
    done = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout


def compiles(kernel, known, kinds, capability, folder, monkeypatch) -> None:
    """For a GPU of this capability, from the values that are known by then and the types of the other arguments, which
    are ``*fp32`` where they are not named."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    monkeypatch.setenv("TRITON_CACHE_DIR", str(folder))
    options = {"num_warps": known["num_warps"]}
    known = {name: value for name, value in known.items() if name in kernel.arg_names}
    signature = {name: "constexpr" if name in known else kinds.get(name, "*fp32") for name in kernel.arg_names}
    target = GPUTarget("cuda", capability, 32)
    assert triton.compile(ASTSource(kernel, signature, known), target, options).asm["cubin"]
