"""The shell of Mamba4Rec: what lets an event know its past, between norms, dropout and feed-forwards."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from seqrec.nn.dropout import Dropout
from seqrec.nn.feed_forward import FeedForward
from seqrec.nn.layers import MixingLayer, through, through_to
from seqrec.nn.mamba import Mamba, StepInit
from seqrec.sequences import Sequences

_EPS = 1e-12

Memory = TypeVar("Memory")


class Layer(MixingLayer[Memory]):
    """A mixer and a feed-forward, each followed by a norm.

    Args:
        mixer: called with events, history and memory; returns as many vectors of the same width, and the next memory.
        dim: width D of an event and of a state.
        dropout: share of activations dropped, in [0, 1).
        has_residual: whether the mixer's input is added to its output.
    """

    def __init__(self, mixer: nn.Module, dim: int, dropout: float, has_residual: bool) -> None:
        super().__init__()
        self.mixer, self.has_residual = mixer, has_residual
        self.mixer_norm, self.feed_forward_norm = (nn.LayerNorm(dim, eps=_EPS) for _ in range(2))
        self.feed_forward = FeedForward(dim, 4, dropout, F.gelu)
        self.dropout = Dropout(dropout)

    def mix(
        self, h: Float[Tensor, "T D"], history: Sequences, memory: Memory | None
    ) -> tuple[Float[Tensor, "T D"], Float[Tensor, "T D"], Memory]:
        mixed, newest = self.mixer(h, history, memory)
        return h, mixed, newest

    def refine(self, kept: Float[Tensor, "M D"], mixed: Float[Tensor, "M D"]) -> Float[Tensor, "M D"]:
        mixed = self.dropout(mixed)
        h = self.mixer_norm(mixed + kept if self.has_residual else mixed)
        return self.feed_forward_norm(self.feed_forward(h) + h)


class MambaShell(nn.Module, Generic[Memory]):
    """A norm and layers, whose linear maps all begin small; a lone layer adds no residual to its mixer.

    Args:
        mixers: what mixes the events of a history in each layer, at least one; it contains Mamba blocks.
        dim: width D of an event and of a state.
        dropout: share of activations dropped, in [0, 1).
        dt_init: how the step sizes of the Mamba blocks begin; ``zero_bias`` leaves them to the small linear maps.
        init_std: standard deviation of the linear maps at the beginning, above 0; their biases begin at 0.
            What is no linear map (filters, recurrent cells, decays, skips) begins as it was built.
    """

    def __init__(
        self, mixers: Iterable[nn.Module], dim: int, dropout: float, dt_init: StepInit, init_std: float
    ) -> None:
        super().__init__()
        mixers = list(mixers)
        if not mixers:
            raise ValueError("There is no layer; n_layers must be at least 1.")
        self.norm = nn.LayerNorm(dim, eps=_EPS)
        self.layers = nn.ModuleList(Layer(mixer, dim, dropout, has_residual=len(mixers) > 1) for mixer in mixers)
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.normal_(part.weight, std=init_std)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
        if dt_init is StepInit.mamba:
            for mamba in (part for part in self.modules() if isinstance(part, Mamba)):
                mamba.spread_steps()

    def forward(
        self, events: Float[Tensor, "T D"], history: Sequences, memory: list[Memory] | None
    ) -> tuple[Float[Tensor, "T D"], list[Memory]]:
        return through(self.layers, self.norm(events), history, memory)

    def proceed_at(
        self, events: Float[Tensor, "T D"], history: Sequences, at: Int[Tensor, "M"], memory: list[Memory] | None
    ) -> tuple[Float[Tensor, "M D"], list[Memory]]:
        """What the last layer makes of the events at these places."""
        return through_to(self.layers, self.norm(events), history, at, memory)
