"""What a backbone is: event vectors in, states out, one per event."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from seqrec.sequences import Sequences


class Backbone(nn.Module, ABC):
    """Turns event vectors into states. It sees no item id, no target and no loss.

    Args:
        dim: width D of an event and of a state.

    Attributes:
        causal: whether a state depends on nothing that happened after its event. Only a causal backbone may be
            trained on every event.
    """

    causal: ClassVar[bool]

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    @abstractmethod
    def forward(self, events: Float[Tensor, "T D"], history: Sequences) -> Float[Tensor, "T D"]: ...
