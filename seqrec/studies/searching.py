"""Tunes one row with Optuna: TPE proposes, hopeless trials are given up, and all of them are written down."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import torch
from lightning import Callback, LightningModule, Trainer
from optuna.pruners import MedianPruner
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from seqrec.data.errors import InputError
from seqrec.data.folders import write_whole
from seqrec.studies.jobs import Job, as_options
from seqrec.studies.running import begin, train

REFUSED = "refused"  # why a trial could not be trained
GIVEN_UP = "given-up"  # the file that says so
# What errors say that the machine is to blame for, whatever was tried on it.
OF_MACHINE = (
    "out of memory",
    "allocate memory",
    "CUDA error",
    "cuDNN error",
    "DataLoader worker",
    "PytorchStreamWriter",
)


class GiveUp(Callback):
    """Ends a trial that is worse than the median of the earlier ones at the same epoch.

    Args:
        trial: as Optuna knows it.
        metric: what it is judged by.
        warmup_epochs: epochs before that; None is half of those that it may train.
    """

    def __init__(self, trial: optuna.Trial, metric: str, warmup_epochs: int | None) -> None:
        self.trial = trial
        self.metric = metric
        self.warmup_epochs = warmup_epochs
        self.reported: dict[int, float] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"reported": self.reported}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Tell the trial what it reported before it was stopped, under another number."""
        for epoch, value in state_dict["reported"].items():
            self._report(epoch, value)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if (Path(trainer.default_root_dir) / GIVEN_UP).exists():  # it was stopped before it could say that it ended
            trainer.should_stop = True

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._report(trainer.current_epoch, float(trainer.callback_metrics[self.metric]))
        warmup = (trainer.max_epochs or 0) / 2 if self.warmup_epochs is None else self.warmup_epochs
        if trainer.current_epoch >= warmup and self.trial.should_prune():
            trainer.should_stop = True
            (Path(trainer.default_root_dir) / GIVEN_UP).touch()

    def _report(self, epoch: int, value: float) -> None:
        self.reported[epoch] = value
        self.trial.report(value, epoch)


def search(job: Job) -> None:
    """Try as many settings as the study grants, and keep what came of each.

    A search that was stopped goes on: the trial it was at continues from its checkpoint, and the settings of the next
    depend on the seed and the trials before it alone, so that the end is the same as if nothing had happened.

    Raises:
        InputError: no trial could be trained, or the machine failed.
    """
    fingerprint, wanted = begin(job), job.search
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name="search",
        direction="maximize",
        storage=JournalStorage(JournalFileBackend(str(job.folder / "trials.journal"))),
        pruner=MedianPruner(n_startup_trials=max(5, (wanted.trials + 1) // 2)),  # so many are trained to their end
        load_if_exists=True,
    )
    space = job.row.space or {}
    if not study.get_trials():
        study.enqueue_trial({key: value for key, value in wanted.first.items() if key in space})
    for stopped in study.get_trials(states=[TrialState.RUNNING]):  # nobody else can be at it: we hold the lock
        study.tell(stopped.number, state=TrialState.FAIL)
        study.enqueue_trial({**stopped.system_attrs.get("fixed_params", {}), **stopped.params})
    while (done := len(_finished(study))) < wanted.trials:
        # Optuna would draw its first ten trials at random, which may be all that a study has.
        study.sampler = TPESampler(n_startup_trials=min(10, max(2, wanted.trials // 4)), seed=wanted.seed + done)
        _try(job, study, study.ask())
    finished = _finished(study)
    complete = [trial for trial in finished if trial.state == TrialState.COMPLETE]
    if not complete:
        why = finished[-1].user_attrs.get(REFUSED, "all were given up")
        raise InputError(f"None of {len(finished)} trials of {job.name} could be trained; the last one: {why}")
    trials = [_told(number, trial) for number, trial in enumerate(finished)]
    best = max(complete, key=lambda trial: trial.value or 0.0)
    outcome = {
        "study": {
            "name": job.study.name,
            "row": job.label,
            "fingerprint": fingerprint,
            "seconds": round(sum(trial["seconds"] or 0.0 for trial in trials), 3),
        },
        "metric": wanted.metric,
        "asked": wanted.trials,
        "completed": len(complete),
        "space": job.row.space,
        "chosen": finished.index(best),
        "trials": trials,
    }
    write_whole(job.kept, json.dumps(outcome, indent=2) + "\n")


def _try(job: Job, study: optuna.Study, trial: optuna.Trial) -> None:
    wanted = job.search
    settings = {key: suggested(trial, key, choice) for key, choice in (job.row.space or {}).items()}
    # Named by its settings, so that a trial that was stopped is found again under another number.
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    folder = job.folder / f"trial-{key}"
    told = [f"--early_stopping.monitor={wanted.metric}", f"--seed_everything={wanted.seed}"]
    watcher = GiveUp(trial, wanted.metric, wanted.warmup_epochs)
    try:
        fitted = train(folder, [*job.arguments, *as_options(settings), *told], [watcher])
    except (ValueError, FloatingPointError, RuntimeError) as refusal:
        if _is_of_machine(refusal):
            raise InputError(
                f"The machine failed a trial of {job.name} ({_one_line(refusal)}), which needs memory, disk and a "
                "device that works; free them, or take what is too large out of the row's space, and start again."
            ) from refusal
        trial.set_user_attr(REFUSED, _one_line(refusal))
        study.tell(trial, state=TrialState.FAIL)
        return
    for name in ("epochs", "wall_seconds", "validation"):
        trial.set_user_attr(name, fitted[name])
    if (folder / GIVEN_UP).exists():
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, fitted["validation"][wanted.metric])
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def _is_of_machine(error: Exception) -> bool:
    """Whether memory, a device or a disk failed: that says nothing of the settings."""
    if isinstance(error, torch.OutOfMemoryError | torch.AcceleratorError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in OF_MACHINE)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:400]


def suggested(trial: optuna.trial.BaseTrial, key: str, choice: Mapping[str, Any]) -> Any:
    """What a trial has for a key, among what a study says of it."""
    if "choices" in choice:
        return trial.suggest_categorical(key, choice["choices"])
    low, high = choice["low"], choice["high"]
    more = {name: choice[name] for name in ("log", "step") if name in choice}
    if isinstance(low, int) and isinstance(high, int):
        return trial.suggest_int(key, low, high, **more)
    return trial.suggest_float(key, low, high, **more)


def _finished(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Trials that used up their turn; one that was merely stopped has not."""
    over = (TrialState.COMPLETE, TrialState.PRUNED)
    return [trial for trial in study.get_trials() if trial.state in over or REFUSED in trial.user_attrs]


def _told(number: int, trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    states = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "given up"}
    validation = trial.user_attrs.get("validation") or {}
    return {
        "number": number,
        "state": states.get(trial.state, "refused"),
        "value": next((value for name, value in validation.items() if name != "epoch"), None),
        "epochs": trial.user_attrs.get("epochs"),
        "seconds": trial.user_attrs.get("wall_seconds"),
        "params": trial.params,
        **({"why": trial.user_attrs[REFUSED]} if REFUSED in trial.user_attrs else {}),
    }
