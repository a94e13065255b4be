"""Times several ways of doing one thing in turn, so that a slow moment of the machine weighs on all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping


def in_turn(ways: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each way in every round, after one round that warms up."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats + 1):
        for name, work in ways.items():
            began = time.perf_counter()
            work()
            taken[name].append(time.perf_counter() - began)
    return {name: each[1:] for name, each in taken.items()}
