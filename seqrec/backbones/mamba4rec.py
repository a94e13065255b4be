"""Mamba4Rec: selective state spaces in the place of attention."""

from __future__ import annotations

from enum import Enum

from jaxtyping import Float, Int
from torch import Tensor

from seqrec.backbones.base import ContinuingBackbone
from seqrec.nn.mamba import Mamba, MambaMemory, StepInit
from seqrec.nn.mamba2 import Mamba2
from seqrec.nn.mamba_shell import MambaShell
from seqrec.sequences import Sequences


class Block(Enum):
    """Which generation of the Mamba block."""

    mamba = Mamba
    mamba2 = Mamba2


class Mamba4Rec(ContinuingBackbone[list[MambaMemory]]):
    """Mamba blocks in the shell of a Transformer, without positions.

    Source: Liu et al., "Mamba4Rec", 2024 (arXiv 2403.03900), after its released code: with one layer nothing is added
    to the Mamba block's output, and the blanket initialisation of all linear maps begins every Δ at about 0.693. The
    dropout of the embedded events, before the first norm, is the recommender's. Differs from the code: histories are
    packed, so no padding is read, embedded or ranked.

    Args:
        dim: width D of an event and of a state.
        n_layers: stacked layers, at least 1.
        dropout: share of activations dropped, in [0, 1).
        d_state: states N per channel.
        d_conv: events that the convolution sees.
        expand: inner width of the Mamba block as a multiple of D.
        dt_init: how the step sizes begin; ``zero_bias`` is the released code, ``mamba`` what Mamba's authors advise.
        init_std: standard deviation of the linear maps at the beginning, above 0.
        block: ``mamba`` as in the paper, or ``mamba2``, whose step sizes begin spread whatever ``dt_init`` says.
    """

    causal = True

    def __init__(
        self,
        dim: int,
        n_layers: int = 1,
        dropout: float = 0.2,
        d_state: int = 32,
        d_conv: int = 4,
        expand: int = 2,
        dt_init: StepInit = StepInit.zero_bias,
        init_std: float = 0.02,
        block: Block = Block.mamba,
    ) -> None:
        super().__init__(dim)
        mixers = (block.value(dim, d_state, d_conv, expand) for _ in range(n_layers))
        self.shell: MambaShell[MambaMemory] = MambaShell(mixers, dim, dropout, dt_init, init_std)

    def proceed(
        self, events: Float[Tensor, "T D"], history: Sequences, memory: list[MambaMemory] | None
    ) -> tuple[Float[Tensor, "T D"], list[MambaMemory]]:
        return self.shell(events, history, memory)

    def proceed_at(
        self, events: Float[Tensor, "T D"], history: Sequences, at: Int[Tensor, "M"], memory: list[MambaMemory] | None
    ) -> tuple[Float[Tensor, "M D"], list[MambaMemory]]:
        return self.shell.proceed_at(events, history, at, memory)
