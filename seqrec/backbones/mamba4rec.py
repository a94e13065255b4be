"""Mamba4Rec: selective state spaces in the place of attention."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from seqrec.backbones.base import ContinuingBackbone
from seqrec.nn.mamba import Mamba, MambaMemory, StepInit
from seqrec.sequences import Sequences

_EPS = 1e-12


class Layer(nn.Module):
    """A Mamba block and a feed-forward, each followed by a norm; a lone layer adds no residual to its Mamba block."""

    def __init__(self, mamba: Mamba, dim: int, dropout: float, has_residual: bool) -> None:
        super().__init__()
        self.mamba, self.has_residual = mamba, has_residual
        self.mamba_norm, self.feed_forward_norm = (nn.LayerNorm(dim, eps=_EPS) for _ in range(2))
        self.feed_forward = nn.Sequential(
            nn.Linear(dim, 4 * dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * dim, dim), nn.Dropout(dropout)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, h: Float[Tensor, "T D"], history: Sequences, memory: MambaMemory | None
    ) -> tuple[Float[Tensor, "T D"], MambaMemory]:
        mixed, newest = self.mamba(h, history, memory)
        mixed = self.dropout(mixed)
        h = self.mamba_norm(mixed + h if self.has_residual else mixed)
        return self.feed_forward_norm(self.feed_forward(h) + h), newest


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
    ) -> None:
        super().__init__(dim)
        if n_layers < 1:
            raise ValueError(f"n_layers is {n_layers}; it must be at least 1.")
        self.norm = nn.LayerNorm(dim, eps=_EPS)
        self.layers = nn.ModuleList(
            Layer(Mamba(dim, d_state, d_conv, expand), dim, dropout, has_residual=n_layers > 1) for _ in range(n_layers)
        )
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.normal_(part.weight, std=init_std)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
        if dt_init is StepInit.mamba:
            for layer in self.layers:
                layer.mamba.spread_steps()  # type: ignore[union-attr,operator]

    def proceed(
        self, events: Float[Tensor, "T D"], history: Sequences, memory: list[MambaMemory] | None
    ) -> tuple[Float[Tensor, "T D"], list[MambaMemory]]:
        h, newest = self.norm(events), []
        for place, layer in enumerate(self.layers):
            h, left = layer(h, history, None if memory is None else memory[place])
            newest.append(left)
        return h, newest
