"""Shapes in the types are checked while the tests run."""

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

# numba and Triton compile functions as they are written, without checks; not every system has Triton.
import seqrec.ops.contextual_kernels
import seqrec.ops.scan_kernels

with contextlib.suppress(ImportError):
    import seqrec.ops.scan_triton  # noqa: F401

install_import_hook("seqrec", "beartype.beartype")

# How long an example takes says how busy the machine is; pytest's own timeout catches what hangs.
settings.register_profile("seqrec", deadline=None)
settings.load_profile("seqrec")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets; tests that need it skip only where it does not exist."""
    folder = Path(os.environ.get("SEQREC_DATA", "../shared/data"))
    if not folder.is_dir():
        pytest.skip(f"{folder} does not exist; set SEQREC_DATA to the folder of real data sets")
    return folder.resolve()
