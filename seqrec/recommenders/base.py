"""What a recommender is: the thing that is trained, evaluated, exported and served."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from seqrec.batch import Batch
from seqrec.catalog import Catalog
from seqrec.sequences import Sequences


def inner_products(products: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Inner products are the scores."""
    return products


def no_parts(rows: Int[Tensor, "*n"]) -> tuple[Tensor, ...]:
    """Items are not made of vectors."""
    return ()


@dataclass(frozen=True)
class Encoded:
    """A batch as the model understands it: all that objectives, auxiliaries and reweighters may read.

    Attributes:
        batch: what was encoded.
        states: one per prediction.
        queries: one per prediction.
        keys: item rows to keys; the whole catalog when called with None.
        counts: how often each item of the catalog occurs in training.
        views: the newest state of each history of each view, by name.
        scores: inner products of queries and keys to scores, each by itself.
        parts: item rows to the vectors that an item's vector is made of, say one of its own and one of its text.
        weights: what the loss of each prediction is going to be multiplied by, which is the task's to do; None until a
            reweighter has said. It is here for objectives that save work by knowing.
    """

    batch: Batch
    states: Float[Tensor, "M D"]
    queries: Float[Tensor, "M K"]
    keys: Callable[[Tensor | None], Tensor]
    counts: Int[Tensor, "N"]
    views: dict[str, Tensor] = field(default_factory=dict)
    scores: Callable[[Tensor], Tensor] = inner_products
    parts: Callable[[Tensor], tuple[Tensor, ...]] = no_parts
    weights: Float[Tensor, "M"] | None = None


@dataclass(frozen=True)
class TopK:
    """The best items of each history, best first.

    Attributes:
        items: catalog rows; -1 where fewer than k items were left.
        scores: their scores; minus infinity where there is no item.
    """

    items: Int[Tensor, "B k"]
    scores: Float[Tensor, "B k"]


class Recommender(nn.Module, ABC):
    """Says which item comes next.

    Args:
        catalog: the items to choose from, with their training counts.

    Attributes:
        catalog: the items.
        counts: their training counts, on the device of the model.
        causal: whether no state sees a later event, so that every event may be trained at once.
        learns_hidden_events: whether it is trained to name hidden events of a history, not those that followed.
        reads_clock: whether a part of it needs times that a clock gave.
        reads_asked_at: whether a part of it needs to know when a prediction is asked for, which most models do not.
        leaves_room: how many newest events of a window it does not remember but reads with what it does.
        max_length: how many events a history may have at most, or None where any number will do.
    """

    counts: Tensor
    causal: bool = True
    learns_hidden_events: bool = False
    reads_clock: bool = False
    reads_asked_at: bool = False
    leaves_room: int = 0
    max_length: int | None = None

    def __init__(self, catalog: Catalog) -> None:
        super().__init__()
        self.catalog = catalog
        self.register_buffer("counts", torch.tensor(catalog.counts, dtype=torch.long), persistent=False)

    @abstractmethod
    def encode(self, batch: Batch) -> Encoded:
        """Read the histories of a batch, with gradients."""

    def informed(self, batch: Batch) -> Batch:
        """The batch, whose histories say when a prediction is asked for where, and only where, a part reads it.

        Raises:
            ValueError: a part reads it, and the batch does not say.
        """
        return batch

    @abstractmethod
    def ranks(self, batch: Batch) -> Int[Tensor, "M"]:
        """How many *other* unseen items score at least as high as each target: 0 is best, ties count against the model.

        Raises:
            FloatingPointError: a score is not finite.
        """

    @abstractmethod
    def recommend(self, history: Sequences, k: int, seen: Sequences | None = None) -> TopK:
        """The k best items after the newest event of each history, leaving out what ``seen`` lists for it.

        Raises:
            FloatingPointError: a score is not finite.
            ValueError: k is below 1, or a history has no event and the recommender cannot do without.
        """
