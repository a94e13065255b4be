"""How checkpoints reach their files, whole or not at all, and how they are found again where a run was moved."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside the one that it takes the place of.

    Lightning writes into the system's temporary folder; where that is another file system, the move from there is a
    copy, and a program that is killed meanwhile leaves half a file in place of the only checkpoint.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        folder, name = os.path.split(path)
        unfinished = os.path.join(folder, f".{name}")
        super().save_checkpoint(checkpoint, unfinished, storage_options)
        get_filesystem(path).mv(unfinished, str(path))


class MovedCheckpoint(ModelCheckpoint):
    """Keeps the best or the newest epoch, also of a run that goes on in another folder than it began in.

    Lightning forgets the best epoch where the folder has another path, and the next one takes its place, however bad.
    """

    _was_elsewhere = False

    @property
    def state_key(self) -> str:  # as Lightning's own, so that checkpoints of earlier versions go on
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._was_elsewhere = state_dict.get("dirpath", self.dirpath) != self.dirpath
        if self._was_elsewhere:
            paths = ("best_model_path", "kth_best_model_path", "last_model_path")
            told = {name: self._here(state_dict.get(name, "")) for name in paths}
            kept = {self._here(path): score for path, score in state_dict.get("best_k_models", {}).items()}
            state_dict = {**state_dict, **told, "best_k_models": kept, "dirpath": self.dirpath}
        super().load_state_dict(state_dict)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._bring(trainer)
        super().on_train_epoch_end(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._bring(trainer)  # there may have been no epoch left to train
        super().on_train_end(trainer, pl_module)

    def _bring(self, trainer: Trainer) -> None:
        """Put what was kept beside the checkpoint that training went on from into the folder of the run."""
        if not self._was_elsewhere or not self.best_model_path or trainer.ckpt_path is None:
            return
        self._was_elsewhere, here = False, Path(self.best_model_path)
        there = Path(str(trainer.ckpt_path)).with_name(here.name)
        if trainer.is_global_zero and not here.is_file() and there.is_file():
            here.parent.mkdir(parents=True, exist_ok=True)
            unfinished = here.with_name(f".{here.name}")
            shutil.copy(there, unfinished)
            unfinished.replace(here)
        trainer.strategy.barrier()
        if not here.is_file():  # it was not brought along, so the next epoch is the best that there is
            self.best_model_path, self.kth_best_model_path = "", ""
            self.best_model_score, self.best_k_models = None, {}

    def _here(self, path: str) -> str:
        return str(Path(str(self.dirpath)) / Path(path).name) if path else path
