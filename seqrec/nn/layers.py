"""Layers one after the other, each with a memory of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from jaxtyping import Float, Int
from torch import Tensor, nn

from seqrec.sequences import Sequences

Memory = TypeVar("Memory")


def stacked(n_layers: int, build: Callable[[], nn.Module]) -> nn.ModuleList:
    """As many layers; at least one."""
    if n_layers < 1:
        raise ValueError(f"n_layers is {n_layers}; it must be at least 1.")
    return nn.ModuleList(build() for _ in range(n_layers))


class MixingLayer(nn.Module, ABC, Generic[Memory]):
    """A layer in two halves: events learn of one another, then each is refined by itself."""

    @abstractmethod
    def mix(
        self, h: Float[Tensor, "T D"], history: Sequences, memory: Memory | None
    ) -> tuple[Float[Tensor, "T D"], Float[Tensor, "T I"], Memory]:
        """What goes past the mixing, what was mixed, as wide as ``refine`` reads it, and what to remember next."""

    @abstractmethod
    def refine(self, kept: Float[Tensor, "M D"], mixed: Float[Tensor, "M I"]) -> Float[Tensor, "M D"]:
        """What the layer makes of each event; the same whatever stands beside it."""

    def mix_at(
        self, h: Float[Tensor, "T D"], history: Sequences, at: Int[Tensor, "M"], memory: Memory | None
    ) -> tuple[Float[Tensor, "M D"], Float[Tensor, "M I"], Memory]:
        """``mix`` with what goes past the mixing, and what was mixed, at these places alone."""
        kept, mixed, newest = self.mix(h, history, memory)
        return kept[at], mixed[at], newest

    def forward(
        self, h: Float[Tensor, "T D"], history: Sequences, memory: Memory | None
    ) -> tuple[Float[Tensor, "T D"], Memory]:
        kept, mixed, newest = self.mix(h, history, memory)
        return self.refine(kept, mixed), newest

    def forward_at(
        self, h: Float[Tensor, "T D"], history: Sequences, at: Int[Tensor, "M"], memory: Memory | None
    ) -> tuple[Float[Tensor, "M D"], Memory]:
        """What the layer makes of the events at these places, and what to remember next of all."""
        kept, mixed, newest = self.mix_at(h, history, at, memory)
        return self.refine(kept, mixed), newest


def through(
    layers: Iterable[nn.Module], events: Float[Tensor, "T D"], history: Sequences, memory: list[Memory] | None
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


def through_to(
    layers: Iterable[nn.Module],
    events: Float[Tensor, "T D"],
    history: Sequences,
    at: Int[Tensor, "M"],
    memory: list[Memory] | None,
) -> tuple[Float[Tensor, "M D"], list[Memory]]:
    """``through`` several ``MixingLayer``, the last of which refines the events at these places alone."""
    *before, last = layers
    assert isinstance(last, MixingLayer), "only such a layer can be left half done"
    events, newest = through(before, events, history, memory)
    states, left = last.forward_at(events, history, at, None if memory is None else memory[-1])
    return states, [*newest, left]
