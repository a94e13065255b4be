"""How checkpoints reach their files: whole or not at all, wherever temporary files are kept."""

from __future__ import annotations

import os
from typing import Any

from lightning.fabric.utilities.cloud_io import get_filesystem
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
