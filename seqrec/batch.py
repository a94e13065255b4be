"""What one step receives: histories, where they predict, and what followed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from seqrec.sequences import Sequences


@dataclass(frozen=True)
class Batch:
    """``B`` histories of ``T`` events that make ``M`` predictions.

    Attributes:
        users: row of the user behind each history, for per-user reports and reweighters.
        history: what the model may read.
        predict_at: which events predict, as places in ``history.items``; the prediction reads that event's state.
        targets: catalog row of the item that followed each predicting event, or that stands at it where it is hidden.
        asked_at: when each prediction is asked for (the time of its target), in seconds since 1970.
        seen: one row per *prediction*: the items that its ranking leaves out; None leaves out nothing.
        views: other versions of the histories, by the name of the view that made them.
        hidden: places in ``history.items`` that the model may not read; None hides nothing.
        negatives: catalog rows of items that did not follow, some for each prediction; None where nobody drew any.
    """

    users: Int[Tensor, "B"]
    history: Sequences
    predict_at: Int[Tensor, "M"]
    targets: Int[Tensor, "M"]
    asked_at: Int[Tensor, "M"] | None = None
    seen: Sequences | None = None
    views: dict[str, Sequences] = field(default_factory=dict)
    hidden: Int[Tensor, "hidden"] | None = None
    negatives: Int[Tensor, "M n"] | None = None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        return self._each(lambda part: part.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        return self._each(lambda part: part.pin_memory())

    def _each(self, change: Callable[[Any], Any]) -> Batch:
        parts: dict[str, Any] = {part.name: getattr(self, part.name) for part in fields(self)}
        views = {name: change(view) for name, view in parts.pop("views").items()}
        changed: dict[str, Any] = {name: None if part is None else change(part) for name, part in parts.items()}
        return Batch(**changed, views=views)
