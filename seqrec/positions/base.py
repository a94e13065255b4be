"""The two places where a model may learn where an event stands: in the input and inside attention."""

from __future__ import annotations

from abc import ABC, abstractmethod

from jaxtyping import Float, Int
from torch import Tensor, nn

from seqrec.ops.adjusted_attention import Pairs
from seqrec.sequences import Sequences


class Continues:
    """Something whose meaning for an event may or may not change when the history goes on.

    Attributes:
        continues: whether what it says of an event stays the same when the history goes on.
    """

    continues: bool = True

    def demand_that_it_continues(self) -> None:
        """Raise a ``TypeError`` unless it does."""
        if not self.continues:
            raise TypeError(
                f"{type(self).__name__} means something else once the history goes on; read whole histories, or train "
                "with a position that counts from the oldest event."
            )


class InputPosition(Continues, nn.Module, ABC):
    """Adds to each event what its place in the history, or its time, means.

    Attributes:
        reads_clock: whether it needs times that a clock gave; a log whose times are positions is then refused.
        reads_asked_at: whether it needs to know when a prediction is asked for.
        dim: width D of the events that it knows, or None where any will do.
        max_length: how many events a history may have at most, or None where any number will do.
    """

    reads_clock: bool = False
    reads_asked_at: bool = False
    dim: int | None = None
    max_length: int | None = None

    @abstractmethod
    def forward(self, events: Float[Tensor, "T D"], history: Sequences) -> Float[Tensor, "T D"]:
        """The event vectors with what their places or times mean added."""


class AttentionPosition(Continues, nn.Module, ABC):
    """Tells attention where, or when, queries and keys stand: it turns them, or changes their logits.

    It is built once per layer, from the width C of a head.

    Attributes:
        changes_logits: whether logits must be made, so that attention cannot run as one kernel.
        reads_clock: whether it needs times that a clock gave; a log whose times are positions is then refused.
        reads_asked_at: whether it needs to know when a prediction is asked for.
        reads_queries: whether what it says of a pair depends on the query itself, which must then not be turned.
    """

    changes_logits: bool
    reads_clock: bool = False
    reads_asked_at: bool = False
    reads_queries: bool = False

    @abstractmethod
    def turn(self, x: Float[Tensor, "T H C"], places: Int[Tensor, "T"]) -> Float[Tensor, "T H C"]:
        """Queries, or keys, at these places. What attention remembers of a key has been turned."""

    @abstractmethod
    def adjust(self, logits: Float[Tensor, "b H i j"], pairs: Pairs) -> Float[Tensor, "b H i j"]:
        """Logits that know of places or times. What is said where nothing is visible is thrown away."""


class TurningPosition(AttentionPosition):
    """Turns queries and keys, so that their inner product knows how far apart they are."""

    changes_logits = False

    def adjust(self, logits: Float[Tensor, "b H i j"], pairs: Pairs) -> Float[Tensor, "b H i j"]:
        return logits


class LogitPosition(AttentionPosition):
    """Adds something to the logit of each query and key."""

    changes_logits = True

    def turn(self, x: Float[Tensor, "T H C"], places: Int[Tensor, "T"]) -> Float[Tensor, "T H C"]:
        return x

    def demand_as_many_heads(self, n_tables: int, n_heads: int) -> None:
        """Raise a ``ValueError`` unless there is one table for all heads or one for each."""
        if n_tables not in (1, n_heads):
            raise ValueError(
                f"{type(self).__name__} has tables for n_heads {n_tables} and the backbone has {n_heads}; give both "
                "the same number, or the position 1 table that all heads share."
            )
