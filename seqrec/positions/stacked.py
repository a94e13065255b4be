"""Several position encodings inside the same attention."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float, Int
from torch import Tensor, nn

from seqrec.ops.adjusted_attention import Pairs
from seqrec.positions.base import AttentionPosition, InputPosition
from seqrec.sequences import Sequences


class Stacked(AttentionPosition):
    """Several at once, such as the position bias and the time bias of HSTU, in whatever order they are named.

    Args:
        channels: width C of a head.
        positions: builds each of them from the width of a head.

    Raises:
        ValueError: one turns queries that another reads, so that the other would read places from them; or two read
            them, and the logits, of which each would change what the other reads.
    """

    def __init__(self, channels: int, positions: list[Callable[[int], AttentionPosition]]) -> None:
        super().__init__()
        parts = [build(channels) for build in positions]
        self.parts = nn.ModuleList(parts)
        self.changes_logits = any(part.changes_logits for part in parts)
        self.reads_clock = any(part.reads_clock for part in parts)
        self.reads_asked_at = any(part.reads_asked_at for part in parts)
        self.reads_queries = any(part.reads_queries for part in parts)
        self.continues = all(part.continues for part in parts)
        turning = [type(part).__name__ for part in parts if not part.changes_logits]
        if turning and self.reads_queries:
            reading = next(type(part).__name__ for part in parts if part.reads_queries)
            raise ValueError(
                f"{turning[0]} turns the queries that {reading} reads, which would then depend on absolute places; "
                "leave out one of them."
            )

        readers = [type(part).__name__ for part in parts if part.reads_queries]
        if len(readers) > 1:
            raise ValueError(f"{readers[0]} changes the logits that {readers[1]} reads; leave out one of them.")
        self.in_turn = sorted(range(len(parts)), key=lambda place: not parts[place].reads_queries)

    def turn(self, x: Float[Tensor, "T H C"], places: Int[Tensor, "T"]) -> Float[Tensor, "T H C"]:
        for part in self.parts:
            x = part.turn(x, places)  # type: ignore[operator]
        return x

    def adjust(self, logits: Float[Tensor, "b H i j"], pairs: Pairs) -> Float[Tensor, "b H i j"]:
        for place in self.in_turn:
            logits = self.parts[place].adjust(logits, pairs)  # type: ignore[operator]
        return logits


class StackedInput(InputPosition):
    """Several in the input at once, such as the place of an event and the calendar: each adds what it knows.

    Args:
        positions: these.
    """

    def __init__(self, positions: list[InputPosition]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(positions)
        self.reads_clock = any(part.reads_clock for part in positions)
        self.reads_asked_at = any(part.reads_asked_at for part in positions)
        self.continues = all(part.continues for part in positions)
        widths = {part.dim for part in positions if part.dim is not None}
        if len(widths) > 1:
            raise ValueError(f"The positions add vectors of widths {sorted(widths)}; give all the same dim.")
        self.dim = widths.pop() if widths else None
        self.max_length = min((part.max_length for part in positions if part.max_length is not None), default=None)

    def forward(self, events: Float[Tensor, "T D"], history: Sequences) -> Float[Tensor, "T D"]:
        for part in self.parts:
            events = part(events, history)
        return events
