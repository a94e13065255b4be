"""How the learning rate changes over a run: a warm-up, then constant or along half a cosine."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod


class Schedule(ABC):
    """Says by what the learning rate is multiplied before each step.

    Args:
        warmup_steps: over so many first steps the rate climbs evenly to its full height; 0 starts at full height.
    """

    def __init__(self, warmup_steps: int = 0) -> None:
        if warmup_steps < 0:
            raise ValueError(f"warmup_steps is {warmup_steps}; it must be 0 or more.")
        self.warmup_steps = warmup_steps

    def factor(self, step: int, steps: int | float) -> float:
        """The factor, in [0, 1], of step ``step`` (0-based) out of ``steps`` (infinite where no end is set)."""
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        return self.after_warmup(step - self.warmup_steps, steps - self.warmup_steps)

    @abstractmethod
    def after_warmup(self, step: int, steps: int | float) -> float:
        """The factor of a step counted from the end of the warm-up."""


class Constant(Schedule):
    """The full learning rate to the end."""

    def after_warmup(self, step: int, steps: int | float) -> float:
        return 1.0


class Cosine(Schedule):
    """Half a cosine from the full learning rate down to a floor, which a step behind the last one would have.

    Args:
        warmup_steps: over so many first steps the rate climbs evenly to its full height.
        floor: what the factor falls to, in [0, 1].
    """

    def __init__(self, warmup_steps: int = 0, floor: float = 0.0) -> None:
        super().__init__(warmup_steps)
        if not 0 <= floor <= 1:
            raise ValueError(f"floor is {floor}; it must lie between 0 and 1.")
        self.floor = floor

    def after_warmup(self, step: int, steps: int | float) -> float:
        if math.isinf(steps):
            raise ValueError("A cosine schedule needs the end of the run; set trainer.max_epochs or trainer.max_steps.")
        done = min(step / max(steps, 1), 1.0)
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * done)) / 2
