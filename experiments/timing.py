"""Measures several ways of doing one thing: times, in turn, so that a slow moment weighs on all, and memory."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping
from itertools import accumulate
from pathlib import Path
from typing import TypeVar

from torch.profiler import ProfilerActivity, profile

Way = TypeVar("Way")


def in_turn(
    ways: Mapping[Way, Callable[[], object]], repeats: int, *, rehearse: bool = False
) -> dict[Way, list[float]]:
    """Seconds of each way in every round, after one round that warms up.

    Works of a millisecond are to rehearse, once before they are timed: what stood before them in the round has left the
    caches full of other things.
    """
    taken: dict[Way, list[float]] = {name: [] for name in ways}
    for _ in range(repeats + 1):
        for name, work in ways.items():
            if rehearse:
                work()
            began = time.perf_counter()
            work()
            taken[name].append(time.perf_counter() - began)
    return {name: each[1:] for name, each in taken.items()}


def peak_bytes(work: Callable[[], object]) -> int:
    """The most that tensors on the CPU hold at once beyond what was held before, by torch's own account."""
    work()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        work()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        watched.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    changes = sorted((each["ts"], each["args"]["Bytes"]) for each in events if each["name"] == "[memory]")
    return max(accumulate((change for _, change in changes), initial=0))
