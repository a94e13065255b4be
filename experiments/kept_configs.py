"""Whether what is kept of a run was made with the config that would be run now."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import yaml

from seqrec.data.errors import InputError
from seqrec.lightning_cli import complete_config, differing

# What says where a run lies and how much it tells, and not what comes out.
BESIDE = ("run", "config", "ckpt_path", "verbose")


def demand_same(kept: Path, option: str, arguments: Sequence[str]) -> None:
    """Raise unless a file was made with what `seqrec fit` is told now; a key that only one of both has is of
    another version of the code and does not count.

    Args:
        kept: a result that holds its config, or the config of a run.
        option: what chooses another place for it.
        arguments: see above.

    Raises:
        InputError: with the keys that differ.
    """
    old = json.loads(kept.read_text())["config"] if kept.suffix == ".json" else yaml.safe_load(kept.read_text())
    new = {name: value for name, value in complete_config(arguments).items() if name not in BESIDE}
    found = list(differing(old, new))
    if found:
        raise InputError(
            f"{kept} was made with another config, which differs in {', '.join(found[:3])}; choose another {option}, "
            "or remove what is there."
        )
