"""Layers one after the other, each with a memory of its own."""

from __future__ import annotations

from typing import TypeVar

from jaxtyping import Float
from torch import Tensor, nn

from seqrec.sequences import Sequences

Memory = TypeVar("Memory")


def through(
    layers: nn.ModuleList, events: Float[Tensor, "T D"], history: Sequences, memory: list[Memory] | None
) -> tuple[Float[Tensor, "T D"], list[Memory]]:
    """What the last layer makes of the events, and what every layer remembers next.

    Args:
        layers: each is called with events, history and its memory; returns as many vectors, and its next memory.
        events: vectors of the new events.
        history: the new events alone.
        memory: what every layer remembers of the same histories; None is no past.
    """
    newest = []
    for place, layer in enumerate(layers):
        events, left = layer(events, history, None if memory is None else memory[place])
        newest.append(left)
    return events, newest
