"""Small logs for the tests of this room, built without a disk."""

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
import pytest

from seqrec.catalog import Catalog
from seqrec.data.log import Log


def _build_log(items: Sequence[Sequence[int]], times: Sequence[Sequence[int]] | None = None, n_items: int = 0) -> Log:
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


@pytest.fixture(scope="session")
def build_log() -> Callable[..., Log]:
    """Builds a log from one list of item rows (and, if wanted, of times) per user."""
    return _build_log


@pytest.fixture(scope="session")
def random_log() -> Log:
    """300 users with 1 to 60 events each of 50 items, over about 100 days."""
    generator = np.random.default_rng(0)
    lengths = generator.integers(1, 61, 300)
    items = [generator.integers(0, 50, length).tolist() for length in lengths]
    times = [np.sort(generator.integers(0, 100 * 86_400, length)).tolist() for length in lengths]
    return _build_log(items, times)
