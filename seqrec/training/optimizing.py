"""The optimizer of a run: its rate over the steps, what weight decay pulls to zero, and how it may go about it."""

from __future__ import annotations

from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from seqrec.training.schedule import Schedule

_OF_THE_CONFIG = ("initial_lr", "betas", "weight_decay")


def optimizing(
    task: LightningModule,
    learning_rate: float,
    weight_decay: float,
    schedule: Schedule,
    betas: tuple[float, float] = (0.9, 0.999),
) -> OptimizerLRScheduler:
    """AdamW over all parameters of a task, whose rate follows the schedule step by step."""
    groups = decaying(task, weight_decay)
    optimizer = torch.optim.AdamW(groups, learning_rate, betas, fused=may_fuse(task.trainer))
    steps = task.trainer.estimated_stepping_batches
    scheduler = _OfTheConfig(optimizer, lambda step: schedule.factor(step, steps))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class _OfTheConfig(LambdaLR):
    """Of a run that goes on, too, rate, betas and decay are those of its config, which a checkpoint would replace.

    Lightning brings back the optimizer first.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, factor: Any) -> None:
        super().__init__(optimizer, factor)
        self.asked = [{name: group[name] for name in _OF_THE_CONFIG} for group in optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        return {name: value for name, value in super().state_dict().items() if name != "asked"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.base_lrs = [asked["initial_lr"] for asked in self.asked]
        for group, asked, factor in zip(self.optimizer.param_groups, self.asked, self.lr_lambdas, strict=True):
            group.update(asked, lr=asked["initial_lr"] * factor(self.last_epoch))


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
