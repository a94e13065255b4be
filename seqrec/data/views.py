"""Other versions of a history, made for training: substituted items, histories of similar users and the like."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int

from seqrec.catalog import Catalog
from seqrec.data.log import Log
from seqrec.data.protocol import Part
from seqrec.sequences import Sequences


@dataclass(frozen=True)
class TrainingData:
    """What a view may draw from.

    Attributes:
        log: the prepared log.
        catalog: its items, with their training counts.
        part: the training slices; nothing behind them may reach a view.
        max_length: most events of a history that a model reads; None reads all.
    """

    log: Log
    catalog: Catalog
    part: Part
    max_length: int | None


class View(ABC):
    """Makes other versions of each history of a batch.

    Attributes:
        name: the key of the view in ``Batch.views``.
    """

    name: str

    @abstractmethod
    def __call__(
        self,
        histories: Sequences,
        users: Int[np.ndarray, "B"],
        ends: Int[np.ndarray, "B"],
        generator: torch.Generator,
    ) -> Sequences:
        """As many versions of one history as of every other, those of the first history first.

        Args:
            histories: what the model reads of this batch.
            users: row of the user behind each history.
            ends: where in the log each history ends, the place after its newest event.
            generator: where all randomness comes from.
        """
