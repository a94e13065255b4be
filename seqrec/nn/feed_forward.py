"""Small networks: those that follow attention, and linear maps in a row."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from seqrec.nn.dropout import Dropout


class FeedForward(nn.Module):
    """Two linear maps with a non-linearity between them, both with bias.

    Args:
        dim: width D.
        multiple: inner width as a multiple of D.
        dropout: share dropped after the second map.
        activation: the non-linearity.
        drops_inside: whether as much is dropped after the non-linearity, too.
    """

    def __init__(
        self,
        dim: int,
        multiple: int = 1,
        dropout: float = 0.0,
        activation: Callable[[Tensor], Tensor] = F.relu,
        drops_inside: bool = True,
    ) -> None:
        super().__init__()
        self.widen, self.narrow = nn.Linear(dim, multiple * dim), nn.Linear(multiple * dim, dim)
        self.dropout = Dropout(dropout)
        self.inner_dropout = Dropout(dropout if drops_inside else 0.0)
        self.activation = activation

    def forward(self, x: Float[Tensor, "T D"]) -> Float[Tensor, "T D"]:
        return self.dropout(self.narrow(self.inner_dropout(self.activation(self.widen(x)))))


class SwiGLU(nn.Module):
    """``W2 · drop(silu(W1 x) ⊙ W3 x)`` without biases.

    Args:
        dim: width D.
        multiple: inner width as a multiple of D.
        dropout: share dropped of the gated inner vector.
    """

    def __init__(self, dim: int, multiple: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        inner = multiple * dim
        self.gate, self.widen = (nn.Linear(dim, inner, bias=False) for _ in range(2))
        self.narrow = nn.Linear(inner, dim, bias=False)
        self.dropout = Dropout(dropout)

    def forward(self, x: Float[Tensor, "T D"]) -> Float[Tensor, "T D"]:
        return self.narrow(self.dropout(F.silu(self.gate(x)) * self.widen(x)))


def perceptron(*widths: int, dropout: float = 0.0) -> nn.Sequential:
    """Linear maps from each width to the next, with ReLU and dropout between them; the last one stands bare."""
    layers: list[nn.Module] = []
    for wide, narrow in pairwise(widths):
        layers += [nn.Linear(wide, narrow), nn.ReLU(), Dropout(dropout)]
    return nn.Sequential(*layers[:-2])
