"""Several position encodings inside the same attention."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float, Int
from torch import Tensor, nn

from seqrec.ops.adjusted_attention import Pairs
from seqrec.positions.base import AttentionPosition


class Stacked(AttentionPosition):
    """One after the other, such as the position bias and the time bias of HSTU.

    Args:
        channels: width C of a head.
        positions: builds each of them from the width of a head.

    Raises:
        ValueError: one turns queries that another reads, so that the other would read places from them.
    """

    def __init__(self, channels: int, positions: list[Callable[[int], AttentionPosition]]) -> None:
        super().__init__()
        parts = [build(channels) for build in positions]
        self.parts = nn.ModuleList(parts)
        self.changes_logits = any(part.changes_logits for part in parts)
        self.reads_clock = any(part.reads_clock for part in parts)
        self.reads_asked_at = any(part.reads_asked_at for part in parts)
        self.reads_queries = any(part.reads_queries for part in parts)
        turning = [type(part).__name__ for part in parts if not part.changes_logits]
        if turning and self.reads_queries:
            reading = next(type(part).__name__ for part in parts if part.reads_queries)
            raise ValueError(
                f"{turning[0]} turns the queries that {reading} reads, which would then depend on absolute places; "
                "leave out one of them."
            )

    def turn(self, x: Float[Tensor, "T H C"], places: Int[Tensor, "T"]) -> Float[Tensor, "T H C"]:
        for part in self.parts:
            x = part.turn(x, places)  # type: ignore[operator]
        return x

    def adjust(self, logits: Float[Tensor, "b H i j"], pairs: Pairs) -> Float[Tensor, "b H i j"]:
        for part in self.parts:
            logits = part.adjust(logits, pairs)  # type: ignore[operator]
        return logits
