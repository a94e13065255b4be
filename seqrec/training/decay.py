"""Which parameters weight decay pulls to zero, and how the optimizer may go about it."""

from __future__ import annotations

from typing import Any

from lightning import Trainer
from torch import nn


def decaying(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Groups for an optimizer: decay spares what a part names in ``not_decayed``, where 0 means something.

    Args:
        module: whose parameters are trained.
        weight_decay: of all others, at least 0.
    """
    named = ((part, name) for part in module.modules() for name in getattr(part, "not_decayed", ()))
    spared = {id(getattr(part, name)) for part, name in named}
    groups = ((weight_decay, False), (0.0, True))
    chosen = [
        {"params": [each for each in module.parameters() if (id(each) in spared) is is_spared], "weight_decay": decay}
        for decay, is_spared in groups
    ]
    return [group for group in chosen if group["params"]]


def may_fuse(trainer: Trainer) -> bool:
    """Whether the optimizer may be fused: in mixed precision Lightning refuses to clip the gradients of one that is."""
    return not trainer.gradient_clip_val or "mixed" not in str(trainer.precision)
