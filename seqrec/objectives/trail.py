"""What a reweighter decided about users, and when, for whoever asks why."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Bool, Float, Int
from torch import Tensor

from seqrec.sequences import Sequences


@dataclass
class Trail:
    """What a reweighter decided about users, and when.

    It takes nine bytes for every user and decision.

    Attributes:
        active_from: the weights count once this many epochs are done.
        epochs: after how many epochs each decision fell.
        weights: of every user after each decision.
        flagged: whom each decision made suspicious.
        suspicion: of every user at each decision, in any unit: more is worse.
        nearest: which of ``known`` each user is most like in the end; -1 where nobody said.
        similarity: how much, as a cosine.
        known: the histories that were known to be fake.
    """

    active_from: int = 0
    epochs: list[int] = field(default_factory=list)
    weights: list[Float[Tensor, "U"]] = field(default_factory=list)
    flagged: list[Bool[Tensor, "U"]] = field(default_factory=list)
    suspicion: list[Float[Tensor, "U"]] = field(default_factory=list)
    nearest: Int[Tensor, "U"] | None = None
    similarity: Float[Tensor, "U"] | None = None
    known: Sequences | None = None

    def decided(
        self, epochs: int, weights: Float[Tensor, "U"], flagged: Bool[Tensor, "U"], suspicion: Float[Tensor, "U"]
    ) -> None:
        """Add a decision."""
        self.epochs.append(epochs)
        self.weights.append(weights.float().cpu())
        self.flagged.append(flagged.cpu())
        self.suspicion.append(suspicion.float().cpu())

    def counting(self, epochs: int) -> int | None:
        """Which decision the last of so many epochs was trained with; None where all weights were still 1."""
        before = [number for number, fell in enumerate(self.epochs) if max(fell, self.active_from) < epochs]
        return before[-1] if before else None

    def state(self) -> dict[str, Any]:
        """The same as plain values and tensors, for a checkpoint."""
        known = None if self.known is None else {"items": self.known.items.cpu(), "offsets": self.known.offsets.cpu()}
        lists = {name: list(vars(self)[name]) for name in ("epochs", "weights", "flagged", "suspicion")}
        return {**vars(self), **lists, "known": known}

    @classmethod
    def restored(cls, state: dict[str, Any]) -> Trail:
        known = state["known"]
        return cls(**{**state, "known": None if known is None else Sequences(known["items"], known["offsets"])})
