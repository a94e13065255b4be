"""Many histories, laid end to end: the one shape that travels from the disk to the kernel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True)
class Sequences:
    """``B`` histories as one flat run of events plus the places where each begins and ends.

    Attributes:
        items: catalog row of every event, oldest first within a history.
        offsets: history ``b`` owns events ``offsets[b]`` up to ``offsets[b + 1]``; the first is 0, the last is T.
        times: when each event happened, in seconds since 1970, or None where nobody needs it.
    """

    items: Int[Tensor, "T"]
    offsets: Int[Tensor, "bounds"]
    times: Int[Tensor, "T"] | None = None

    def __len__(self) -> int:
        return self.offsets.numel() - 1

    @property
    def lengths(self) -> Int[Tensor, "B"]:
        return self.offsets.diff()

    @property
    def newest(self) -> Int[Tensor, "B"]:
        """Where the newest event of each history stands. Every history must have one."""
        return self.offsets[1:] - 1

    @property
    def owners(self) -> Int[Tensor, "T"]:
        """Which history each event belongs to."""
        histories = torch.arange(len(self), device=self.offsets.device)
        return torch.repeat_interleave(histories, self.lengths, output_size=self.items.numel())

    @property
    def places(self) -> Int[Tensor, "T"]:
        """How many events of the same history came before each event: 0 for the oldest."""
        here = torch.arange(self.items.numel(), device=self.offsets.device)
        return here - self.offsets[:-1][self.owners]

    @staticmethod
    def pack(histories: Iterable[Sequence[int]], times: Iterable[Sequence[int]] | None = None) -> Sequences:
        """Lay histories, given as one list of catalog rows each, end to end."""
        rows = [torch.as_tensor(history, dtype=torch.long) for history in histories]
        return Sequences(
            _end_to_end(rows),
            bounds(torch.tensor([row.numel() for row in rows], dtype=torch.long)),
            None if times is None else _end_to_end([torch.as_tensor(t, dtype=torch.long) for t in times]),
        )

    @staticmethod
    def concat(parts: Sequence[Sequences]) -> Sequences:
        """The histories of every part, in order. Times survive where all parts have them."""
        times = [part.times for part in parts]
        return Sequences(
            torch.cat([part.items for part in parts]),
            bounds(torch.cat([part.lengths for part in parts])),
            torch.cat([t for t in times if t is not None]) if all(t is not None for t in times) else None,
        )

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Sequences:
        def move(values: Tensor) -> Tensor:
            return values.to(device, non_blocking=non_blocking)

        return Sequences(move(self.items), move(self.offsets), None if self.times is None else move(self.times))

    def pin_memory(self) -> Sequences:
        times = None if self.times is None else self.times.pin_memory()
        return Sequences(self.items.pin_memory(), self.offsets.pin_memory(), times)


def bounds(lengths: Int[Tensor, "B"]) -> Int[Tensor, "bounds"]:
    """Offsets of histories with these lengths: a zero, then the running sum."""
    offsets = lengths.new_zeros(lengths.numel() + 1)
    torch.cumsum(lengths, 0, out=offsets[1:])
    return offsets


def _end_to_end(runs: list[Tensor]) -> Int[Tensor, "T"]:
    return torch.cat(runs) if runs else torch.empty(0, dtype=torch.long)
