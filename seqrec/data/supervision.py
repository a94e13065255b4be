"""Which events of a training slice predict, and how much of the past they read."""

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

    A row is a slice of at least two events: all but its newest are read, and each predicting event has as its target
    the event that followed it.

    Attributes:
        predicts_every_event: whether one pass predicts after every event; only a causal backbone may be trained so.
    """

    predicts_every_event: ClassVar[bool]

    @abstractmethod
    def rows(self, part: Part, max_length: int | None) -> Part:
        """The rows to read, each the newest ``max_length`` input events (None: all) and one target."""

    @abstractmethod
    def predict_at(self, history: Sequences) -> Int[Tensor, "M"]:
        """Which events of the packed inputs predict."""


class EveryEvent(Supervision):
    """Every event of the window predicts the next one, in one pass."""

    predicts_every_event = True

    def rows(self, part: Part, max_length: int | None) -> Part:
        return _windows(part, max_length)

    def predict_at(self, history: Sequences) -> Int[Tensor, "M"]:
        return torch.arange(history.items.numel(), device=history.items.device)


class EveryPrefix(Supervision):
    """Each prefix of a slice is its own row with its own window, and only its newest event predicts."""

    predicts_every_event = False

    def rows(self, part: Part, max_length: int | None) -> Part:
        n_prefixes = np.maximum(part.lengths - 1, 0)
        first = np.cumsum(n_prefixes) - n_prefixes
        ends = np.arange(n_prefixes.sum()) + np.repeat(part.starts + 2 - first, n_prefixes)
        prefixes = Part(np.repeat(part.users, n_prefixes), np.repeat(part.starts, n_prefixes), ends)
        return _windows(prefixes, max_length)

    def predict_at(self, history: Sequences) -> Int[Tensor, "M"]:
        return history.newest


class NewestEvent(Supervision):
    """One prediction per slice: its newest event is the target. Evaluation reads its parts this way, too."""

    predicts_every_event = False

    def rows(self, part: Part, max_length: int | None) -> Part:
        return _windows(part, max_length)

    def predict_at(self, history: Sequences) -> Int[Tensor, "M"]:
        return history.newest


def _windows(part: Part, max_length: int | None) -> Part:
    kept = part.lengths >= 2
    users, starts, ends = part.users[kept], part.starts[kept], part.ends[kept]
    return Part(users, starts if max_length is None else np.maximum(starts, ends - max_length - 1), ends)
