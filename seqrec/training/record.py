"""What a run leaves behind: its config, its checkpoints, the rank of every target and one ``result.json``."""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer, __version__
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.utilities.types import STEP_OUTPUT

from seqrec.batch import Batch
from seqrec.semantics.vectors import origin_of
from seqrec.training.own_code import own_code

RESULTS, CHECKPOINTS = ("fit.json", "result.json", "ranks.parquet"), ("checkpoints/best.ckpt", "checkpoints/last.ckpt")
PREVIOUS = ".previous"
CURVE = ("train/loss", "val/recall@10", "val/ndcg@10")


class RunRecord(Callback):
    """Writes down what was run and what came out of it, in the folder of the run (``trainer.default_root_dir``).

    ``config.yaml`` is written when fitting begins, ``fit.json`` when it ends and ``result.json`` when the test ends;
    each appears whole or not at all, and what an earlier model left there goes into ``.previous`` when fitting begins.
    Time, events and the learning curve go on through a resumed run. The curve holds what was logged after each
    validation, and the seconds of training and validation until then.

    Args:
        config: the complete config of the run, as plain values.
        config_text: the same as YAML.
    """

    def __init__(self, config: dict[str, Any], config_text: str) -> None:
        self.config = config
        self.config_text = config_text
        self.wall_seconds = 0.0
        self.train_seconds = 0.0
        self.events = 0
        self.curve: list[dict[str, float]] = []
        self.texts: list[dict[str, Any]] = []
        self._began = self._epoch_began = self._validation_began = 0.0

    def state_dict(self) -> dict[str, Any]:
        wall_seconds = self.wall_seconds + time.perf_counter() - self._began
        return {
            "wall_seconds": wall_seconds,
            "train_seconds": self.train_seconds,
            "events": self.events,
            "curve": self.curve,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.wall_seconds = state_dict["wall_seconds"]
        self.train_seconds = state_dict["train_seconds"]
        self.events = state_dict["events"]
        self.curve = state_dict.get("curve", [])  # checkpoints of earlier versions lack it

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._began = time.perf_counter()
        self.texts = _texts_in(self.config)
        if trainer.is_global_zero:
            if _within(trainer) is None:
                _lay_aside(_folder(trainer))
            for name in RESULTS:
                (_folder(trainer) / name).unlink(missing_ok=True)
            write(_folder(trainer) / "config.yaml", self.config_text)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._epoch_began = time.perf_counter()  # the first epoch after a resume is not announced
        stopping = trainer.early_stopping_callback
        if isinstance(stopping, EarlyStopping) and trainer.ckpt_path is not None:
            # A checkpoint would bring its own patience, and what it ended would go on.
            stopping.patience = self.config.get("early_stopping", {}).get("patience", stopping.patience)
            trainer.should_stop = trainer.should_stop or stopping.wait_count >= stopping.patience

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._epoch_began = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: Batch, batch_idx: int
    ) -> None:
        self.events += batch.history.items.numel() * trainer.world_size

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validation_began = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        now = time.perf_counter()
        self._epoch_began += now - self._validation_began  # training is timed without its validation
        logged = {name: round(float(value), 6) for name, value in trainer.callback_metrics.items() if name in CURVE}
        seconds = round(self.wall_seconds + now - self._began, 3)
        self.curve.append({"epoch": trainer.current_epoch, "seconds": seconds, **logged})

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.train_seconds += time.perf_counter() - self._epoch_began

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        fitted = {
            "wall_seconds": round(self.wall_seconds + time.perf_counter() - self._began, 3),
            "events_per_second": round(self.events / max(self.train_seconds, 1e-9), 1),
            "epochs": trainer.current_epoch,
            "commit": commit(),
            "own_code": own_code(self.config),
            "machine": machine(pl_module.device, trainer.world_size),
            "texts": self.texts,
            "validation": _best_validation(trainer),
            "peak_memory_bytes": peak_memory(pl_module.device),
            "curve": self.curve,
        }
        for name in RESULTS:  # somebody may have tested it meanwhile
            (_folder(trainer) / name).unlink(missing_ok=True)
        write(_folder(trainer) / "fit.json", json.dumps(fitted, indent=2) + "\n")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._began = time.perf_counter()
        if not (_folder(trainer) / "fit.json").is_file():
            warnings.warn(
                f"The fit in {_folder(trainer)} has not ended, so this tests what it has reached until now, and nobody "
                "wrote down what it took; go on with `seqrec fit --ckpt_path last`, or wait for it, and test again.",
                stacklevel=2,
            )
        then, now = _fitted(trainer).get("own_code", {}), own_code(self.config)
        changed = [name for name, digest in then.items() if now.get(name) != digest]
        if changed:
            warnings.warn(
                f"The code of {', '.join(changed)} is not what it was when {_folder(trainer)} was trained, so weights "
                "may mean something else now; train again, or restore it.",
                stacklevel=2,
            )

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        folder = _folder(trainer)
        fitted = _fitted(trainer)
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        task: Any = pl_module
        before = (task.starts_from or {}).get("learned_before")
        result = {
            "run": folder.name,
            "model": _model_name(task),
            "data": Path(str(self.config.get("data", {}).get("prepared", ""))).name,
            "checkpoint": _tested(trainer),
            "metrics": task.metrics,
            "validation": fitted.get("validation"),
            "passport": data.passport | ({"learned_before": before} if before else {}),
            "reads_asked_at": task.recommender.reads_asked_at,
            "texts": fitted.get("texts", _texts_in(self.config)),
            "starts_from": task.starts_from,
            "machine": fitted.get("machine"),
            "seed": self.config.get("seed_everything"),
            "commit": fitted.get("commit") or commit(),  # of the code that trained it
            "own_code": fitted.get("own_code", own_code(self.config)),
            "versions": {"python": sys.version.split()[0], "torch": torch.__version__, "lightning": __version__},
            "parameters": sum(weight.numel() for weight in pl_module.parameters()),
            "wall_seconds": fitted.get("wall_seconds"),
            "test_seconds": round(time.perf_counter() - self._began, 3),
            "epochs": fitted.get("epochs"),
            "events_per_second": fitted.get("events_per_second"),
            "peak_memory_bytes": max(fitted.get("peak_memory_bytes", 0), peak_memory(pl_module.device)),
            "curve": fitted.get("curve"),
            "config": self.config,
        }
        write(folder / "result.json", json.dumps(result, indent=2, default=_plain) + "\n")


class StepSeed(Callback):
    """Seeds torch afresh before every step, so that a resumed run draws what it would have drawn.

    Not once per epoch: Lightning announces no epoch start to the first epoch after a resume.

    Args:
        seed: the seed of the run; epoch, step and rank of the device are mixed into it.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        torch.manual_seed(step_seed(self.seed, trainer.current_epoch, batch_idx, trainer.global_rank))


def step_seed(seed: int, epoch: int, step: int, rank: int) -> int:
    """A seed of its own for every step and device of a run."""
    mixed = np.random.SeedSequence((seed, epoch, step, rank)).generate_state(1, np.uint64)
    return int(mixed[0] >> np.uint64(1))


def write(path: Path, text: str) -> None:
    """Write a text file that appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(text)
    unfinished.replace(path)


@cache
def commit() -> str | None:
    """The git revision of the code in use, or None where it does not run from a checkout or git is absent.

    "-dirty" follows it where tracked files of the package had other content. Results that a study writes beside the
    package do not count.
    """
    try:
        head = _git("rev-parse", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".")
    except (OSError, subprocess.TimeoutExpired):
        return None
    return f"{head}-dirty" if head and changed else head or None


def _git(*words: str) -> str:
    """What git says in the folder of the package; it takes no lock that another git would stumble over."""
    package, command = Path(__file__).resolve().parents[1], ["git", "--no-optional-locks", *words]
    found = subprocess.run(command, cwd=package, capture_output=True, text=True, timeout=10, check=False)
    return found.stdout.strip()


commit()  # on import: the checkout may have gone on when training ends


def machine(device: torch.device, n_devices: int = 1) -> str:
    """What trained, as far as times depend on it: the GPU, or the kind of processor with its cores and the threads;
    before it the number of devices, or of processes, where it is not 1."""
    several = f"{n_devices} × " if n_devices > 1 else ""
    if device.type == "cuda":
        return several + torch.cuda.get_device_name(device)
    kind = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return f"{several}{kind}, {os.cpu_count()} cores, threads used: {torch.get_num_threads()}"


def peak_memory(device: torch.device) -> int:
    """The most memory in bytes held so far: of the device where it is a GPU, of this process otherwise."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _texts_in(config: Any) -> list[dict[str, Any]]:
    """Every file or folder of text vectors that a config names, none twice, with what it says of how it was made."""
    return [{"vectors": path, **origin_of(Path(path))} for path in dict.fromkeys(_named(config, "vectors"))]


def _named(config: Any, key: str) -> Iterator[str]:
    parts = config.values() if isinstance(config, Mapping) else config if isinstance(config, list) else ()
    if isinstance(config, Mapping) and isinstance(config.get(key), str):
        yield config[key]
    for part in parts:
        yield from _named(part, key)


def _lay_aside(run: Path) -> None:
    """Move what an earlier fit left in this folder into ``.previous`` there, if it left weights or a result."""
    left = [run / name for name in ("config.yaml", *RESULTS, *CHECKPOINTS) if (run / name).is_file()]
    if not any(path.suffix == ".ckpt" or path.name == "result.json" for path in left):
        return
    shutil.rmtree(run / PREVIOUS, ignore_errors=True)
    for path in left:
        kept = run / PREVIOUS / path.relative_to(run)
        kept.parent.mkdir(parents=True, exist_ok=True)
        path.replace(kept)
    print(f"The run that {run} held lies in {run / PREVIOUS} now, until the next fit there.")


def _folder(trainer: Trainer) -> Path:
    return Path(trainer.default_root_dir)


def _fitted(trainer: Trainer) -> dict[str, Any]:
    """What was written down when fitting ended, if it did."""
    path = _folder(trainer) / "fit.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def _tested(trainer: Trainer) -> str | None:
    """The file of the weights that were tested, relative to the run where it lies inside."""
    return None if trainer.ckpt_path is None else _within(trainer) or str(trainer.ckpt_path)


def _within(trainer: Trainer) -> str | None:
    """Where inside the run the checkpoint lies that was asked for, or None where it lies elsewhere."""
    if trainer.ckpt_path is None:
        return None
    path, folder = Path(trainer.ckpt_path).resolve(), _folder(trainer).resolve()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else None


def _best_validation(trainer: Trainer) -> dict[str, float] | None:
    """The figure by which the best checkpoint was chosen, and its epoch, counted from 0."""
    best: Any = trainer.checkpoint_callback
    if best is None:
        return None
    if not best.best_model_path:  # nothing was chosen: who counts does so in one epoch
        only = trainer.callback_metrics.get(best.monitor or "")
        return None if only is None else {best.monitor: round(float(only), 6), "epoch": 0}
    kept = torch.load(best.best_model_path, map_location="cpu", weights_only=True, mmap=True)
    return {best.monitor: round(float(best.best_model_score), 6), "epoch": kept["epoch"]}


def _model_name(task: Any) -> str:
    """The backbone's name where the recommender has one, the recommender's own otherwise."""
    parts = dict(task.recommender.named_children())
    return type(parts.get("backbone", task.recommender)).__name__


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return dict(value)
    return str(value)
