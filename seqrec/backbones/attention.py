"""What backbones of causal attention share: layers one after the other, each of which remembers keys and values."""

from __future__ import annotations

from abc import abstractmethod

from jaxtyping import Float, Int
from torch import Tensor, nn

from seqrec.backbones.base import ContinuingBackbone
from seqrec.nn.attention import AttentionMemory, condensed, restored, stored
from seqrec.nn.layers import through, through_to
from seqrec.sequences import Sequences


class AttentionBackbone(ContinuingBackbone[list[AttentionMemory]]):
    """Layers of causal attention; the memory is that of every layer."""

    causal = True

    @property
    @abstractmethod
    def layers(self) -> nn.ModuleList:
        """Each an ``nn.attention.AttentionLayer``."""

    def finish(self, states: Float[Tensor, "M D"]) -> Float[Tensor, "M D"]:
        """What is made of each state behind the last layer."""
        return states

    def proceed(
        self, events: Float[Tensor, "T D"], history: Sequences, memory: list[AttentionMemory] | None
    ) -> tuple[Float[Tensor, "T D"], list[AttentionMemory]]:
        states, newest = through(self.layers, events, history, memory)
        return self.finish(states), newest

    def proceed_at(
        self,
        events: Float[Tensor, "T D"],
        history: Sequences,
        at: Int[Tensor, "M"],
        memory: list[AttentionMemory] | None,
    ) -> tuple[Float[Tensor, "M D"], list[AttentionMemory]]:
        states, newest = through_to(self.layers, events, history, at, memory)
        return self.finish(states), newest

    def condense(
        self, before: list[AttentionMemory] | None, after: list[AttentionMemory], n: int
    ) -> list[AttentionMemory]:
        return condensed(before, after, n)

    def stored(self, memory: list[AttentionMemory]) -> dict[str, Tensor]:
        return stored(memory)

    def restored(self, tensors: dict[str, Tensor]) -> list[AttentionMemory]:
        return restored(tensors)
