"""Functions are compiled where nothing can be written, too."""

import subprocess
import sys

import pytest

pytest.importorskip("numba")

PROGRAM = """
from numba.core import caching

def refuses(*_):
    raise RuntimeError("cannot cache function: no locator available")

caching.FunctionCache.__init__ = refuses
import torch
from seqrec.ops.dispatch import using
from seqrec.ops.scan import selective_scan

u, delta, b = torch.randn(5, 3), torch.rand(5, 3), torch.randn(5, 2)
given = u, delta, -torch.rand(3, 2), b, b, torch.tensor([0, 2, 5])
with using("compiled"):
    found = selective_scan(*given)[0]
torch.testing.assert_close(found, selective_scan.reference(*given)[0])
"""


def test_where_no_folder_can_be_written_to_a_scan_is_compiled_anew():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
