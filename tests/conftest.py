"""Shapes in the types are checked while the tests run; logs for many rooms."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

# Several processes of tests share the cores; this is read when torch and numba are imported, here and in commands.
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    threads = str(max(1, (os.cpu_count() or 1) // int(workers)))
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"), threads)

import numpy as np
import polars as pl
import pytest
from hypothesis import settings
from jaxtyping import install_import_hook
from text_service import TextService, running
from torch import Tensor

# numba, Triton and torch's exporter compile functions as they are written, without checks; not every system has Triton.
import seqrec.ops.contextual_kernels
import seqrec.ops.loops
import seqrec.ops.scan_kernels

with contextlib.suppress(ImportError):
    import seqrec.ops.conv_triton
    import seqrec.ops.scan_triton  # noqa: F401

install_import_hook("seqrec", "beartype.beartype")

# Only what is imported from here on is checked.
from seqrec.catalog import Catalog  # noqa: E402
from seqrec.data.log import Log  # noqa: E402

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


def log_of(items: Sequence[Sequence[int]], times: Sequence[Sequence[int]] | None = None, n_items: int = 0) -> Log:
    lengths = [len(history) for history in items]
    rows = np.array([item for history in items for item in history], dtype=np.int32)
    clock = times or [range(100, 100 + length) for length in lengths]
    counts = np.bincount(rows, minlength=n_items)
    table = pl.DataFrame({"item_id": [f"item {row}" for row in range(counts.size)], "count": counts})
    return Log(
        items=rows,
        times=np.array([time for history in clock for time in history], dtype=np.int64),
        offsets=np.append(0, np.cumsum(lengths)).astype(np.int64),
        catalog=Catalog(table),
        users=pl.Series("user_id", [f"user {row}" for row in range(len(items))], dtype=pl.String),
        manifest={"fingerprint": "abc", "share_of_tied_events": 0.25},
    )


@pytest.fixture
def drop(monkeypatch) -> Callable[[Tensor, float], Tensor]:
    """What every dropout layer does in training for this test: no chance, and nothing that a norm or a sum undoes."""

    def seen(x: Tensor, share: float) -> Tensor:
        return (x / (1 - share)).tanh()

    monkeypatch.setattr("seqrec.nn.dropout.drop", seen)
    return seen


@pytest.fixture
def service() -> Iterator[TextService]:
    """A service of language models on this machine, over real HTTP."""
    with running() as server:
        yield server


@pytest.fixture(scope="session")
def build_log() -> Callable[..., Log]:
    """Builds a log without a disk, from one list of item rows (and, if wanted, of times) per user."""
    return log_of
