"""Trains and tests one config in a folder, going on where an earlier attempt stopped."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqrec.data.errors import InputError
from seqrec.data.folders import write_whole
from seqrec.studies.jobs import Job

if TYPE_CHECKING:
    from lightning import Callback


def on_one_device() -> None:
    """With several GPUs Lightning would start a program that does many jobs anew for each of them: a job has one."""
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")


def train(folder: Path, arguments: Sequence[str], watchers: Sequence[Callback] = ()) -> dict[str, Any]:
    """Train unless that is done, from the newest checkpoint where there is one; what ``fit.json`` says.

    Raises:
        InputError: training was stopped by hand.
    """
    from seqrec.lightning_cli import SeqrecCLI

    on_one_device()
    if not (folder / "fit.json").is_file():
        goes_on = ["--ckpt_path=last"] if (folder / "checkpoints" / "last.ckpt").is_file() else []
        quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
        SeqrecCLI("fit", [*arguments, *quiet, f"--run={folder}", *goes_on], watchers)
    if not (folder / "fit.json").is_file():
        raise InputError(f"Training in {folder} was stopped; start it again to go on.")
    return json.loads((folder / "fit.json").read_text())


def measure(folder: Path, checkpoint: str = "best") -> dict[str, Any]:
    """Test the best epoch of a run, or its last; what ``result.json`` says."""
    from seqrec.lightning_cli import SeqrecCLI

    SeqrecCLI("test", [f"--run={folder}", "--verbose=false", f"--ckpt_path={checkpoint}"])
    return json.loads((folder / "result.json").read_text())


def begin(job: Job) -> dict[str, Any]:
    """Make room for a job: what was begun with another config, other data or other code goes.

    Returns:
        The fingerprint with which it was begun, maybe by other code where any will do.
    """
    if (begun := job.begun) is not None:
        return begun
    fingerprint = job.fingerprint
    if job.folder.exists():
        shutil.rmtree(job.folder)  # all of it, or what is left would pass for this job's
    write_whole(job.folder / "job.json", json.dumps(fingerprint, indent=2) + "\n")
    return fingerprint


def run(job: Job) -> None:
    """Do a final run, and keep its result and the ranks of its users."""
    fingerprint = begin(job)
    train(job.folder, [*job.arguments, f"--seed_everything={job.seed}"])
    began = time.perf_counter()
    result = measure(job.folder)
    seconds = round((result.get("wall_seconds") or 0.0) + time.perf_counter() - began, 3)
    result["study"] = {"name": job.study.name, "row": job.label, "fingerprint": fingerprint, "seconds": seconds}
    if job.before is not None:
        search = job.before.outcome
        told = {name: search[name] for name in ("metric", "asked", "space", "chosen")}
        result["tuning"] = {**told, "set": job.settings, "trials": job.before.kept.name}
    job.kept.parent.mkdir(parents=True, exist_ok=True)
    unfinished = job.kept.with_name(".ranks.tmp")
    shutil.copy(job.folder / "ranks.parquet", unfinished)
    unfinished.replace(job.kept.with_name("ranks.parquet"))
    write_whole(job.kept, json.dumps(result, indent=2) + "\n")
