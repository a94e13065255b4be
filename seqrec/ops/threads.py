"""Work for compiled loops, shared out over as many threads as torch uses."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Int

Part = TypeVar("Part")


def share_out(bounds: Int[np.ndarray, "bounds"], least: int, work: Callable[[int, int], Part]) -> list[Part]:
    """What ``work(first, last)`` makes of ranges that hold about as much each; the loops must release Python's lock.

    Args:
        bounds: where each indivisible piece begins and the last one ends, beginning with 0.
        least: fewer units than this are not worth another thread.
        work: done for the pieces ``first`` up to ``last``.
    """
    total = int(bounds[-1])
    n_shares = max(1, min(torch.get_num_threads(), math.ceil(total / least)))
    cuts = np.searchsorted(bounds, np.linspace(0, total, n_shares + 1)[1:-1])
    edges = [0, *map(int, cuts), len(bounds) - 1]
    if n_shares == 1:
        return [work(*edges)]
    return list(_threads(n_shares).map(work, edges[:-1], edges[1:]))


@functools.cache
def _threads(n: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n, thread_name_prefix="ops")


# A forked process has none of its parent's threads.
os.register_at_fork(after_in_child=_threads.cache_clear)
