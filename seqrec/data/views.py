"""Second versions of a history, made for training: substituted items, similar users and the like."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Int
from torch import Tensor

from seqrec.sequences import Sequences


class View(ABC):
    """Makes another version of each history of a batch.

    Attributes:
        name: the key of the view in ``Batch.views``.
    """

    name: str

    @abstractmethod
    def __call__(self, histories: Sequences, users: Int[Tensor, "B"], generator: torch.Generator) -> Sequences:
        """One history for each of ``histories``, in the same order; all randomness comes from ``generator``."""
