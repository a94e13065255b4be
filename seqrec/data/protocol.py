"""How a log is split, and what is ranked against what; a number without its protocol means nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from seqrec.data.log import Log


@dataclass(frozen=True)
class Part:
    """Slices of the log, one per row: events ``starts[r]`` up to ``ends[r]`` of the user ``users[r]``.

    In training every event of a slice may be read and predicted. In validation and test the newest event of a slice is
    its target, and all before it may be read.
    """

    users: Int[np.ndarray, "R"]
    starts: Int[np.ndarray, "R"]
    ends: Int[np.ndarray, "R"]


@dataclass(frozen=True)
class Split:
    """The three parts of a log and the passport that says how they were made."""

    train: Part
    validation: Part
    test: Part
    passport: dict[str, Any]


class Protocol(ABC):
    """Splits a log into training, validation and test.

    Args:
        seen_is_excluded: whether a ranking leaves out what the user already has; a target that the user already has is
            then dropped and counted, because serving could never show it.
        drops_cold_items: whether targets that never occur in training are dropped (and counted) or stay, as misses.
    """

    def __init__(self, seen_is_excluded: bool = True, drops_cold_items: bool = False) -> None:
        self.seen_is_excluded = seen_is_excluded
        self.drops_cold_items = drops_cold_items

    @abstractmethod
    def split(self, log: Log) -> Split: ...
