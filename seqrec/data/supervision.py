"""Which events of a training slice predict, what they predict, and how much of the past they read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from seqrec.data.protocol import Part
from seqrec.sequences import Sequences


class Supervision(ABC):
    """Turns training slices into rows that are read, and says which events of a row predict.

    A row is a slice of at least two events. Its inputs are all but the newest ``target_lag`` of them.

    Attributes:
        predicts_every_event: whether one pass predicts after every event; only a causal backbone may be trained so.
        target_lag: how many events behind a predicting event its target stands: 1 is the event that followed, 0 is the
            predicting event itself, which is then hidden from the model.
        segments: how many recent events and older segments the backbone must tell apart, or None where any will do.
    """

    predicts_every_event: ClassVar[bool]
    target_lag: ClassVar[int] = 1
    segments: tuple[int, int] | None = None

    @abstractmethod
    def rows(self, part: Part, max_length: int | None) -> Part:
        """The rows to read, each the newest ``max_length`` input events (None: all) and one target."""

    @abstractmethod
    def predict_at(self, history: Sequences, generator: torch.Generator | None = None) -> Int[Tensor, "M"]:
        """Which events of the packed inputs predict; all randomness comes from ``generator`` (None: torch's own)."""


class EveryEvent(Supervision):
    """Every event of the window predicts the next one, in one pass."""

    predicts_every_event = True

    def rows(self, part: Part, max_length: int | None) -> Part:
        return _windows(part, max_length)

    def predict_at(self, history: Sequences, generator: torch.Generator | None = None) -> Int[Tensor, "M"]:
        return torch.arange(history.items.numel(), device=history.items.device)


class EveryEventWithinSegments(EveryEvent):
    """As ``EveryEvent``, but the first event of every segment behind the oldest one is predicted by nobody.

    For ``Compressed`` of as many recent events and segments: what a segment of its older part ends with, in whose place
    the last token speaks, then predicts nothing.

    Source: the loss of Zhang et al., "Efficient Sequential Recommendation for Long Term User Interest Via
    Personalization", 2026 (arXiv 2601.03479), after its released code, whose last token predicts nothing. Differs from
    it: there the event before the tokens has the first token for a target, which is no item; here it has none.

    Args:
        n_recent: how many of the newest input events of a window are recent, at least 1.
        n_segments: parts that the older events are cut into, at least 1.
    """

    def __init__(self, n_recent: int = 50, n_segments: int = 1) -> None:
        if n_recent < 1 or n_segments < 1:
            raise ValueError(
                f"n_recent is {n_recent} and n_segments {n_segments}; both must be at least 1, as in the backbone."
            )
        self.n_recent, self.n_segments = self.segments = n_recent, n_segments

    def predict_at(self, history: Sequences, generator: torch.Generator | None = None) -> Int[Tensor, "M"]:
        n_older = (history.lengths - self.n_recent).clamp(min=0)
        segments = torch.arange(1, self.n_segments + 1, device=n_older.device)
        last = n_older[:, None] * segments // self.n_segments - 1
        return (history.places[:, None] != last[history.owners]).all(1).nonzero().squeeze(1)


class EveryPrefix(Supervision):
    """Each prefix of a slice is its own row with its own window, and only its newest event predicts."""

    predicts_every_event = False

    def rows(self, part: Part, max_length: int | None) -> Part:
        n_prefixes = np.maximum(part.lengths - 1, 0)
        first = np.cumsum(n_prefixes) - n_prefixes
        ends = np.arange(n_prefixes.sum()) + np.repeat(part.starts + 2 - first, n_prefixes)
        prefixes = Part(np.repeat(part.users, n_prefixes), np.repeat(part.starts, n_prefixes), ends)
        return _windows(prefixes, max_length)

    def predict_at(self, history: Sequences, generator: torch.Generator | None = None) -> Int[Tensor, "M"]:
        return history.newest


class NewestEvent(Supervision):
    """One prediction per slice: its newest event is the target. Evaluation reads its parts this way, too."""

    predicts_every_event = False

    def rows(self, part: Part, max_length: int | None) -> Part:
        return _windows(part, max_length)

    def predict_at(self, history: Sequences, generator: torch.Generator | None = None) -> Int[Tensor, "M"]:
        return history.newest


class MaskedEvents(Supervision):
    """A random share of each row is hidden, and every hidden event predicts itself from the others: the cloze task.

    Which ones is drawn anew in every epoch. A row is as long as the input and the target of the other supervisions
    together, so the mask that asks for the next item at evaluation stands no further back than in training.

    Source: Sun et al., "BERT4Rec", CIKM 2019 (arXiv 1904.06690), after its released code, which hides exactly
    ``round(share * events)`` events, at least one, and adds to every ten such copies of a row one that hides its newest
    event alone. Differs from it: copies are drawn while training runs, so a row comes once per epoch and hides only its
    newest event one time in eleven; long histories are not cut into overlapping windows, their newest one is read.

    Args:
        share: share of a row's events that is hidden, in (0, 1].
        newest_alone: probability that a row hides its newest event and no other, in [0, 1]; the next item is asked for
            in this way at evaluation.
    """

    predicts_every_event = False
    target_lag = 0

    def __init__(self, share: float = 0.2, newest_alone: float = 1 / 11) -> None:
        if not 0 < share <= 1:
            raise ValueError(f"share is {share}; hide more than none and at most all of a row's events, e.g. 0.2.")
        if not 0 <= newest_alone <= 1:
            raise ValueError(f"newest_alone is {newest_alone}; a probability lies between 0 and 1, e.g. 0.1.")
        self.share = share
        self.newest_alone = newest_alone

    def rows(self, part: Part, max_length: int | None) -> Part:
        return _windows(part, max_length)

    def predict_at(self, history: Sequences, generator: torch.Generator | None = None) -> Int[Tensor, "M"]:
        coins = torch.rand(history.items.numel() + len(history), generator=generator)
        of_events, of_rows = coins.to(history.offsets.device).split([history.items.numel(), len(history)])
        newest_alone = of_rows < self.newest_alone
        n_hidden = (self.share * history.lengths.double()).round().clamp(min=1).masked_fill(newest_alone, 1)
        of_events[history.newest[newest_alone & (history.lengths > 0)]] = -1  # the first of its row
        owners, order = history.owners, torch.argsort(of_events)
        order = order[torch.argsort(owners[order], stable=True)]
        return order[history.places < n_hidden[owners]].sort().values


def _windows(part: Part, max_length: int | None) -> Part:
    kept = part.lengths >= 2
    users, starts, ends = part.users[kept], part.starts[kept], part.ends[kept]
    return Part(users, starts if max_length is None else np.maximum(starts, ends - max_length - 1), ends)
