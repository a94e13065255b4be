"""SIGMA: Mamba read in two directions, input-dependent gates, and a recurrent cell for short histories."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from seqrec.backbones.base import Backbone, ContinuingBackbone
from seqrec.nn.branch_mixture import BranchMixture, Mixing
from seqrec.nn.convolution import NeighbourConvolution
from seqrec.nn.dropout import Dropout
from seqrec.nn.mamba import Mamba, MambaMemory, StepInit
from seqrec.nn.mamba_shell import MambaShell
from seqrec.nn.recurrent import read_from_oldest_to_newest
from seqrec.sequences import Sequences


class PartialFlip(nn.Module, ABC):
    """Lays the older part of each history in reverse, so that a causal pass meets its newer events first.

    Attributes:
        dim: width D of the events that it can lay; None is any.
    """

    dim: int | None = None

    @abstractmethod
    def flip(self, events: Float[Tensor, "T D"], history: Sequences) -> Float[Tensor, "T D"]:
        """As many vectors as there are events, older ones in reverse."""

    @abstractmethod
    def unflip(self, flipped: Float[Tensor, "T D"], history: Sequences) -> Float[Tensor, "T D"]:
        """What was read in flipped order, laid where it is compared with the events."""


class AlignedFlip(PartialFlip):
    """The paper's idea: all but the newest events are reversed, and what was read is laid back beside its own event.

    Args:
        n_recent: events r at the end of a history that stay in place, at least 0; a history with no more is unchanged.
    """

    def __init__(self, n_recent: int = 5) -> None:
        super().__init__()
        if n_recent < 0:
            raise ValueError(f"n_recent is {n_recent}; it must be at least 0.")
        self.n_recent = n_recent

    def flip(self, events: Float[Tensor, "T D"], history: Sequences) -> Float[Tensor, "T D"]:
        return events[_reversed_within(history, (history.lengths - self.n_recent).clamp(min=0))]

    def unflip(self, flipped: Float[Tensor, "T D"], history: Sequences) -> Float[Tensor, "T D"]:
        return self.flip(flipped, history)


class ReleasedFlip(PartialFlip):
    """What the released code does: the first slots of a padded window are reversed, and nothing is laid back.

    A history of n events is read as the first n slots of that window; with ``n_slots`` = r, slot t < r holds event
    r - 1 - t where there is one. If n < r, the window thus begins with r - n slots of padding and goes on with the
    newest event: of n <= r / 2 events none is reached, and what this direction knows after the last slot is n alone.

    Differs from the released code: padding is one learned vector in the place of what the shell makes of the padding
    item's embedding, without dropout and the same in every layer. It stands nowhere but in these slots.

    Args:
        dim: width D of an event.
        n_slots: slots r that are reversed, at least 1; 45 in the released code, or the window if that is shorter.
    """

    def __init__(self, dim: int, n_slots: int = 45) -> None:
        super().__init__()
        if n_slots < 1:
            raise ValueError(f"n_slots is {n_slots}; it must be at least 1.")
        self.dim, self.n_slots = dim, n_slots
        self.padding = nn.Parameter(torch.randn(dim))

    def flip(self, events: Float[Tensor, "T D"], history: Sequences) -> Float[Tensor, "T D"]:
        at = _reversed_within(history, torch.full_like(history.lengths, self.n_slots))
        is_padding = at >= history.offsets[1:][history.owners]
        rows = torch.cat([events, self.padding.to(events.dtype)[None]])
        return rows[torch.where(is_padding, events.shape[0], at)]

    def unflip(self, flipped: Float[Tensor, "T D"], history: Sequences) -> Float[Tensor, "T D"]:
        return flipped


def _laying(flip: PartialFlip | None, dim: int) -> PartialFlip:
    """The order of the second direction for events of this width; the aligned one where none is told."""
    flip = AlignedFlip() if flip is None else flip
    if flip.dim not in (None, dim):
        raise ValueError(f"flip is made for events of width {flip.dim} and dim is {dim}; give both the same dim.")
    return flip


def _reversed_within(history: Sequences, n_slots: Int[Tensor, "B"]) -> Int[Tensor, "T"]:
    """The event that each slot reads when the first slots of its history are reversed, possibly one after its end."""
    owners, places = history.owners, history.places
    n_mine = n_slots[owners]
    return history.offsets[:-1][owners] + torch.where(places < n_mine, n_mine - 1 - places, places)


class GatedMamba(nn.Module):
    """The block of SIGMA: one Mamba reads the events as they lie and partially flipped; a cell reads their convolution.

    Args:
        mamba: reads both directions.
        mixture: makes one vector of the branches.
        flip: the order of the second direction.
        dim: width D.
    """

    def __init__(self, mamba: Mamba, mixture: BranchMixture, flip: PartialFlip, dim: int) -> None:
        super().__init__()
        self.mamba, self.mixture, self.flip = mamba, mixture, flip
        self.conv = NeighbourConvolution(dim, before=1, after=1)
        self.cell = nn.GRU(dim, dim, bias=False)

    def forward(
        self, events: Float[Tensor, "T D"], history: Sequences, memory: None
    ) -> tuple[Float[Tensor, "T D"], None]:
        flipped = self.flip.flip(events, history)
        forward_mamba, _ = self.mamba(events, history)
        backward_mamba, _ = self.mamba(flipped, history)
        recurrent, _ = read_from_oldest_to_newest(self.cell, self.conv(events, history)[0], history, memory)
        backward_read, backward_mamba = (self.flip.unflip(each, history) for each in (flipped, backward_mamba))
        return self.mixture(events, backward_read, forward_mamba, backward_mamba, recurrent), memory


class OnceGatedMamba(nn.Module):
    """The block behind the runs that the repository of SIGMA shows: one gate, for the direction as events lie.

    ``w₂ f (1 + g) + w₁ b + w₀ u`` with Mamba's readings f and b of the events x as they lie and flipped, a recurrent
    cell's reading u of the events themselves, and ``g = drop(A(p) + S(p))`` of ``p = x + W x + b``, with A and S as in
    ``DenseSelectiveGates``. Nothing maps the sum.

    Args:
        mamba: reads both directions.
        flip: the order of the second direction.
        dim: width D.
        gate_dropout: share of the gate's entries dropped, in [0, 1).
    """

    def __init__(self, mamba: Mamba, flip: PartialFlip, dim: int, gate_dropout: float) -> None:
        super().__init__()
        self.mamba, self.flip = mamba, flip
        self.cell = nn.GRU(dim, dim, bias=False)
        self.map, self.silu_map, self.sigmoid_map = (nn.Linear(dim, dim) for _ in range(3))
        self.weights = nn.Parameter(torch.tensor([0.1, 0.1, 0.8]))  # recurrent, backward, forward
        self.dropout = Dropout(gate_dropout)

    def forward(
        self, events: Float[Tensor, "T D"], history: Sequences, memory: None
    ) -> tuple[Float[Tensor, "T D"], None]:
        forward_mamba, _ = self.mamba(events, history)
        backward_mamba, _ = self.mamba(self.flip.flip(events, history), history)
        recurrent, _ = read_from_oldest_to_newest(self.cell, events, history, memory)
        p = events + self.map(events)
        gate = self.dropout(self.silu_map(F.silu(p)) + self.sigmoid_map(p.sigmoid()))
        for_recurrent, for_backward, for_forward = self.weights
        return (
            for_forward * forward_mamba * (1 + gate)
            + for_backward * self.flip.unflip(backward_mamba, history)
            + for_recurrent * recurrent
        ), memory


@dataclass(frozen=True)
class CausalMemory:
    """What a causal block carries from the past of each history.

    Attributes:
        mamba: what its Mamba carries.
        inputs: the newest two inputs of the convolution, oldest first.
        hidden: the hidden state of the cell.
    """

    mamba: MambaMemory
    inputs: Float[Tensor, "B 2 D"]
    hidden: Float[Tensor, "B 1 D"]


class CausalGatedMamba(nn.Module):
    """The block without flip, whose convolution sees the event and the two before it.

    Both directions are then the same pass through Mamba, made once and gated twice. It has the parameters of the other.

    Args:
        mamba: reads the events.
        mixture: makes one vector of the branches.
        dim: width D.
    """

    def __init__(self, mamba: Mamba, mixture: BranchMixture, dim: int) -> None:
        super().__init__()
        self.mamba, self.mixture = mamba, mixture
        self.conv = NeighbourConvolution(dim, before=2, after=0)
        self.cell = nn.GRU(dim, dim, bias=False)

    def forward(
        self, events: Float[Tensor, "T D"], history: Sequences, memory: CausalMemory | None
    ) -> tuple[Float[Tensor, "T D"], CausalMemory]:
        past = (None, None, None) if memory is None else (memory.mamba, memory.inputs, memory.hidden)
        read, mamba = self.mamba(events, history, past[0])
        convolved, inputs = self.conv(events, history, past[1])
        recurrent, hidden = read_from_oldest_to_newest(self.cell, convolved, history, past[2])
        return self.mixture(events, events, read, read, recurrent), CausalMemory(mamba, inputs, hidden)


class SIGMA(Backbone):
    """Selective gated Mamba, with a second direction: its states know later events, so only the newest one predicts.

    Source: Liu et al., "SIGMA: Selective Gated Mamba for Sequential Recommendation", 2024 (arXiv 2408.11451), after its
    released code, with the shell and the blanket initialisation of Mamba4Rec. ``flip=AlignedFlip`` is the paper's idea
    and the default; ``ReleasedFlip`` is what the code does. Differs from the code: histories are packed, so the
    symmetric convolution sees zero after the newest event, where the code sees the padding item; with ``AlignedFlip``
    the backward gate, too, reads each event itself; what the code computes and does not use (a second convolution, a
    softmax of the mixing weights) is not computed. Differs from the paper as described: its gates hold a convolution.

    Args:
        dim: width D of an event and of a state.
        n_layers: stacked layers, at least 1; a lone one adds no residual.
        dropout: share of activations dropped, in [0, 1).
        gate_dropout: share of the gates' entries dropped, in [0, 1); 0.2 in the code whatever ``dropout`` is.
        flip: the order of the second direction, the same in every layer; None is ``AlignedFlip()``.
        mixing: ``raw`` (released code) or ``softmax`` weights of the three branches.
        d_state: states N per channel of Mamba.
        d_conv: events that Mamba's convolution sees.
        expand: inner width of Mamba as a multiple of D.
        dt_init: how the step sizes begin; ``zero_bias`` is the released code, ``mamba`` what Mamba's authors advise.
        init_std: standard deviation of the linear maps at the beginning, above 0.
    """

    causal = False

    def __init__(
        self,
        dim: int,
        n_layers: int = 1,
        dropout: float = 0.2,
        gate_dropout: float = 0.2,
        flip: PartialFlip | None = None,
        mixing: Mixing = Mixing.raw,
        d_state: int = 32,
        d_conv: int = 4,
        expand: int = 2,
        dt_init: StepInit = StepInit.zero_bias,
        init_std: float = 0.02,
    ) -> None:
        super().__init__(dim)
        order = _laying(flip, dim)
        blocks = (
            GatedMamba(Mamba(dim, d_state, d_conv, expand), BranchMixture(dim, gate_dropout, mixing), order, dim)
            for _ in range(n_layers)
        )
        self.shell: MambaShell[None] = MambaShell(blocks, dim, dropout, dt_init, init_std)

    def forward(self, events: Float[Tensor, "T D"], history: Sequences) -> Float[Tensor, "T D"]:
        return self.shell(events, history, None)[0]

    def states_at(self, events: Float[Tensor, "T D"], history: Sequences, at: Int[Tensor, "M"]) -> Float[Tensor, "M D"]:
        return self.shell.proceed_at(events, history, at, None)[0]


class LoggedSIGMA(Backbone):
    """SIGMA as the runs computed it that its repository shows, which is less than its released file computes.

    Source: Liu et al., "SIGMA: Selective Gated Mamba for Sequential Recommendation", 2024 (arXiv 2408.11451), after the
    operations and parameters that the logs of its repository count: no convolution before the recurrent cell, one gate
    instead of two, and no map of the mixture. They do not say which of its maps the gate reads and which direction it
    gates; as here is a guess. On MovieLens-1M the log counts 344,515 parameters and this has 328,003: as many are
    missing as the convolution and the second gate have, which its operations show to be unused. ``SIGMA`` is the
    released file.

    Args:
        dim: width D of an event and of a state.
        n_layers: stacked layers, at least 1; a lone one adds no residual.
        dropout: share of activations dropped, in [0, 1).
        gate_dropout: share of the gate's entries dropped, in [0, 1); 0.3 in the logs.
        flip: the order of the second direction, the same in every layer; None is ``AlignedFlip()``.
        d_state: states N per channel of Mamba.
        d_conv: events that Mamba's convolution sees.
        expand: inner width of Mamba as a multiple of D.
        dt_init: how the step sizes begin.
        init_std: standard deviation of the linear maps at the beginning, above 0.
    """

    causal = False

    def __init__(
        self,
        dim: int,
        n_layers: int = 1,
        dropout: float = 0.2,
        gate_dropout: float = 0.3,
        flip: PartialFlip | None = None,
        d_state: int = 32,
        d_conv: int = 4,
        expand: int = 2,
        dt_init: StepInit = StepInit.zero_bias,
        init_std: float = 0.02,
    ) -> None:
        super().__init__(dim)
        order = _laying(flip, dim)
        blocks = (
            OnceGatedMamba(Mamba(dim, d_state, d_conv, expand), order, dim, gate_dropout) for _ in range(n_layers)
        )
        self.shell: MambaShell[None] = MambaShell(blocks, dim, dropout, dt_init, init_std)

    def forward(self, events: Float[Tensor, "T D"], history: Sequences) -> Float[Tensor, "T D"]:
        return self.shell(events, history, None)[0]

    def states_at(self, events: Float[Tensor, "T D"], history: Sequences, at: Int[Tensor, "M"]) -> Float[Tensor, "M D"]:
        return self.shell.proceed_at(events, history, at, None)[0]


class CausalSIGMA(ContinuingBackbone[list[CausalMemory]]):
    """SIGMA without its flip and with a causal convolution, so that every event may be trained and streamed.

    Source: Liu et al., "SIGMA: Selective Gated Mamba for Sequential Recommendation", 2024 (arXiv 2408.11451). Differs
    from it: there is no flip, so that both gates weigh the same pass through Mamba, and the convolution sees the event
    and the two before it. Otherwise as ``SIGMA``, with parameters of the same names and shapes.

    Args:
        dim: width D of an event and of a state.
        n_layers: stacked layers, at least 1; a lone one adds no residual.
        dropout: share of activations dropped, in [0, 1).
        gate_dropout: share of the gates' entries dropped, in [0, 1).
        mixing: ``raw`` (released code) or ``softmax`` weights of the three branches.
        d_state: states N per channel of Mamba.
        d_conv: events that Mamba's convolution sees.
        expand: inner width of Mamba as a multiple of D.
        dt_init: how the step sizes begin; ``zero_bias`` is the released code, ``mamba`` what Mamba's authors advise.
        init_std: standard deviation of the linear maps at the beginning, above 0.
    """

    causal = True

    def __init__(
        self,
        dim: int,
        n_layers: int = 1,
        dropout: float = 0.2,
        gate_dropout: float = 0.2,
        mixing: Mixing = Mixing.raw,
        d_state: int = 32,
        d_conv: int = 4,
        expand: int = 2,
        dt_init: StepInit = StepInit.zero_bias,
        init_std: float = 0.02,
    ) -> None:
        super().__init__(dim)
        blocks = (
            CausalGatedMamba(Mamba(dim, d_state, d_conv, expand), BranchMixture(dim, gate_dropout, mixing), dim)
            for _ in range(n_layers)
        )
        self.shell: MambaShell[CausalMemory] = MambaShell(blocks, dim, dropout, dt_init, init_std)

    def proceed(
        self, events: Float[Tensor, "T D"], history: Sequences, memory: list[CausalMemory] | None
    ) -> tuple[Float[Tensor, "T D"], list[CausalMemory]]:
        return self.shell(events, history, memory)

    def proceed_at(
        self, events: Float[Tensor, "T D"], history: Sequences, at: Int[Tensor, "M"], memory: list[CausalMemory] | None
    ) -> tuple[Float[Tensor, "M D"], list[CausalMemory]]:
        return self.shell.proceed_at(events, history, at, memory)
