"""A log for the tests of this room."""

from collections.abc import Callable

import numpy as np
import pytest

from seqrec.data.log import Log


@pytest.fixture(scope="session")
def random_log(build_log: Callable[..., Log]) -> Log:
    """300 users with 1 to 60 events each of 50 items, over about 100 days."""
    generator = np.random.default_rng(0)
    lengths = generator.integers(1, 61, 300)
    items = [generator.integers(0, 50, length).tolist() for length in lengths]
    times = [np.sort(generator.integers(0, 100 * 86_400, length)).tolist() for length in lengths]
    return build_log(items, times)
