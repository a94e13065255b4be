"""Many histories, laid end to end: the one shape that travels from the disk to the kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Past:
    """What came before the events at hand, which a backbone remembers and nobody reads again.

    Attributes:
        counts: how many events of each history.
        times: when the newest of them happened, in seconds since 1970; 0 where there is none.
    """

    counts: Int[Tensor, "B"]
    times: Int[Tensor, "B"] | None = None


@dataclass(frozen=True)
class Sequences:
    """``B`` histories as one flat run of events plus the places where each begins and ends.

    Attributes:
        items: catalog row of every event, oldest first within a history.
        offsets: history ``b`` owns events ``offsets[b]`` up to ``offsets[b + 1]``; the first is 0, the last is T.
        times: when each event happened, in seconds since 1970, or None where nobody needs it.
        asked_at: when what follows each event is asked for, in seconds since 1970; None where nobody said.
        past: what came before these events; None is nothing.
        vectors: what is known of each history as a whole from elsewhere, say a vector of a text about it.
    """

    items: Int[Tensor, "T"]
    offsets: Int[Tensor, "bounds"]
    times: Int[Tensor, "T"] | None = None
    asked_at: Int[Tensor, "T"] | None = None
    past: Past | None = None
    vectors: Float[Tensor, "B S"] | None = None

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
        if torch.compiler.is_exporting():  # a program reads one history
            return torch.zeros_like(self.items)
        histories = torch.arange(len(self), device=self.offsets.device)
        return torch.repeat_interleave(histories, self.lengths, output_size=self.items.numel())

    @property
    def places(self) -> Int[Tensor, "T"]:
        """How many of these events came before each event of the same history: 0 for the oldest."""
        here = torch.arange(self.items.numel(), device=self.offsets.device)
        return here - self.offsets[:-1][self.owners]

    @property
    def all_places(self) -> Int[Tensor, "T"]:
        """The same, counting those of the past, too."""
        return self.places if self.past is None else self.places + self.past.counts[self.owners]

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
        """The histories of every part, in order. Times and vectors survive where all have them, a past does not."""

        def together(values: list[Tensor | None]) -> Tensor | None:
            known = [each for each in values if each is not None]
            return torch.cat(known) if len(known) == len(values) else None

        return Sequences(
            torch.cat([part.items for part in parts]),
            bounds(torch.cat([part.lengths for part in parts])),
            together([part.times for part in parts]),
            together([part.asked_at for part in parts]),
            vectors=together([part.vectors for part in parts]),
        )

    def chosen(self, rows: Int[Tensor, "n"]) -> Sequences:
        """These histories, in this order. Times survive, a past does not."""
        offsets = bounds(self.lengths[rows])
        total = int(offsets[-1])
        shift = torch.repeat_interleave(self.offsets[:-1][rows] - offsets[:-1], offsets.diff(), output_size=total)
        at = torch.arange(total, device=offsets.device) + shift
        times, asked_at = (None if values is None else values[at] for values in (self.times, self.asked_at))
        return Sequences(self.items[at], offsets, times, asked_at)

    def asking(self, at: Int[Tensor, "M"], asked_at: Int[Tensor, "M"]) -> Sequences:
        """The same histories, where what follows the events at these places is asked for at these moments.

        What follows another event was asked for when it happened. The histories must carry times.
        """
        assert self.times is not None, "who knows when something is asked for knows when things happened"
        following = torch.arange(1, self.items.numel() + 1, device=self.times.device)
        followed = self.times[following.clamp(max=self.items.numel() - 1)]
        return replace(self, asked_at=followed.index_copy(0, at, asked_at.to(followed.dtype)))

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Sequences:
        return self._each(lambda values: values.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Sequences:
        return self._each(lambda values: values.pin_memory())

    def _each(self, change: Callable[[Tensor], Tensor]) -> Sequences:
        def changed(values: Tensor | None) -> Tensor | None:
            return None if values is None else change(values)

        past = None if self.past is None else Past(change(self.past.counts), changed(self.past.times))
        return Sequences(
            change(self.items),
            change(self.offsets),
            changed(self.times),
            changed(self.asked_at),
            past,
            changed(self.vectors),
        )


def bounds(lengths: Int[Tensor, "B"]) -> Int[Tensor, "bounds"]:
    """Offsets of histories with these lengths: a zero, then the running sum."""
    offsets = lengths.new_zeros(lengths.numel() + 1)
    torch.cumsum(lengths, 0, out=offsets[1:])
    return offsets


def _end_to_end(runs: list[Tensor]) -> Int[Tensor, "T"]:
    return torch.cat(runs) if runs else torch.empty(0, dtype=torch.long)
