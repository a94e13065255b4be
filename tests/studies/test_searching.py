"""What a search proposes, and what makes it a search of its own."""

import json
from collections.abc import Callable
from dataclasses import replace
from unittest.mock import Mock

import optuna
import pytest
import torch
import yaml
from lightning import LightningModule, Trainer

from seqrec.data.errors import InputError
from seqrec.studies import jobs, searching
from seqrec.studies.jobs import Job
from seqrec.studies.searching import GiveUp


def fitted(worth: float) -> dict:
    """What training leaves whose best epoch is worth this."""
    return {"epochs": 1, "wall_seconds": 1.0, "validation": {"val/ndcg@10": worth, "epoch": 0}}


def search_of(desk, trials: int, name: str = "tiny") -> Job:
    """The search of a row of the desk, with so many trials."""
    study = yaml.safe_load(desk.study.read_text())
    study["name"], study["search"]["trials"] = name, trials
    desk.study.write_text(yaml.safe_dump(study))
    return desk.job("sasrec", None)


def proposed(desk, monkeypatch, name: str, worth: Callable[[float], float]) -> list[float]:
    """The learning rates of eight trials, if each is worth what we say and nothing is trained."""

    def train(folder, arguments, watchers):
        (rate,) = [word.partition("=")[2] for word in arguments if word.startswith("--model.learning_rate=")]
        return fitted(worth(float(rate)))

    monkeypatch.setattr(searching, "train", train)
    job = search_of(desk, 8, name)
    searching.search(job)
    return [trial["params"]["model.learning_rate"] for trial in job.outcome["trials"]]


def test_a_small_search_goes_by_what_its_trials_were_worth(own_desk, monkeypatch):
    low = proposed(own_desk, monkeypatch, "low", lambda rate: 1 - rate)
    high = proposed(own_desk, monkeypatch, "high", lambda rate: rate)
    assert len(low) == len(high) == 8
    assert low[:2] == high[:2]  # nothing is known yet
    assert sum(low[2:]) < sum(high[2:])


def test_a_search_is_repeated_when_the_code_of_searches_changes_and_a_final_run_is_not(own_desk, tmp_path, monkeypatch):
    """The package is a copy in which one module is changed."""
    package = tmp_path / "package"
    (package / "studies").mkdir(parents=True)
    for module in ("__init__", "studies/searching", "studies/worker", "training"):
        (package / f"{module}.py").write_text("")
    monkeypatch.setattr(jobs.seqrec, "__file__", str(package / "__init__.py"))
    monkeypatch.setattr(jobs, "code_fingerprint", jobs.code_fingerprint.__wrapped__)  # without its cache

    def codes() -> list[str]:
        return [own_desk.job("popularity", 1).fingerprint["code"], own_desk.job("sasrec", None).fingerprint["code"]]

    final, search = codes()
    (package / "studies" / "worker.py").write_text("changed")
    assert codes() == [final, search]
    (package / "studies" / "searching.py").write_text("changed")
    assert codes()[0] == final
    assert codes()[1] != search
    (package / "training.py").write_text("changed")
    assert codes()[0] != final


def test_a_search_that_other_code_began_does_not_count_as_done_by_this_code(own_desk, monkeypatch):
    monkeypatch.setattr(searching, "train", lambda folder, arguments, watchers: fitted(0.5))
    job = own_desk.job("sasrec", None)
    lenient = replace(job, places=replace(own_desk.places, any_code=True))
    job.folder.mkdir(parents=True)
    (job.folder / "job.json").write_text(json.dumps(job.fingerprint | {"code": "older"}))
    searching.search(lenient)
    assert lenient.is_done
    assert not job.is_done


@pytest.mark.parametrize(
    "failure",
    [
        torch.OutOfMemoryError("Tried to allocate 20.00 GiB."),
        torch.AcceleratorError("an illegal memory access was encountered", 700),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4000000000000000 bytes."),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_a_failure_of_the_machine_ends_the_search_and_uses_up_no_trial(own_desk, monkeypatch, failure):
    def fail(folder, arguments, watchers):
        raise failure

    job = own_desk.job("sasrec", None)
    monkeypatch.setattr(searching, "train", fail)
    with pytest.raises(InputError, match=r"The machine failed a trial of shop/sasrec, search .*start again\."):
        searching.search(job)
    monkeypatch.setattr(searching, "train", lambda folder, arguments, watchers: fitted(0.5))
    searching.search(job)
    assert [trial["state"] for trial in job.outcome["trials"]] == ["complete"] * 3


def test_settings_that_cannot_be_trained_use_up_a_trial(own_desk, monkeypatch):
    failures = [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("5 heads")]

    def train(folder, arguments, watchers):
        if failures:
            raise failures.pop()
        return fitted(0.5)

    monkeypatch.setattr(searching, "train", train)
    job = own_desk.job("sasrec", None)
    searching.search(job)
    assert [trial["state"] for trial in job.outcome["trials"]] == ["refused", "refused", "complete"]
    assert job.outcome["completed"] == 1


def epochs_of(watcher: GiveUp, worth: float, folder) -> int:
    """How many of ten epochs are trained, each worth the same."""
    trainer = Mock(Trainer, max_epochs=10, callback_metrics={"val/ndcg@10": worth}, default_root_dir=str(folder))
    trainer.should_stop = False
    for epoch in range(trainer.max_epochs):
        trainer.current_epoch = epoch
        watcher.on_validation_end(trainer, Mock(LightningModule))
        if trainer.should_stop:
            return epoch + 1
    return trainer.max_epochs


@pytest.mark.parametrize(("trials", "completed"), [(8, 5), (12, 6)])
def test_at_least_five_trials_and_half_of_them_are_trained_to_their_end(own_desk, monkeypatch, trials, completed):
    """Each is worth less than the one before."""
    worths = [1 / number for number in range(1, trials + 1)]

    def train(folder, arguments, watchers):
        folder.mkdir()
        worth = worths.pop(0)
        epochs_of(watchers[0], worth, folder)
        return fitted(worth)

    monkeypatch.setattr(searching, "train", train)
    job = search_of(own_desk, trials)
    searching.search(job)
    states = [trial["state"] for trial in job.outcome["trials"]]
    assert states == ["complete"] * completed + ["given up"] * (trials - completed)
    assert job.outcome["completed"] == completed


@pytest.mark.parametrize(("warmup_epochs", "trained"), [(None, 6), (2, 3)])
def test_a_trial_is_given_up_after_half_of_its_epochs_or_when_the_study_says(tmp_path, warmup_epochs, trained):
    hopeless = Mock(optuna.Trial)
    hopeless.should_prune.return_value = True
    assert epochs_of(GiveUp(hopeless, "val/ndcg@10", warmup_epochs), 0.1, tmp_path) == trained


@pytest.mark.parametrize("was_given_up", [True, False])
def test_a_trial_that_was_given_up_and_then_killed_trains_no_further(tmp_path, was_given_up):
    if was_given_up:
        (tmp_path / searching.GIVEN_UP).touch()
    trainer = Mock(spec=Trainer, default_root_dir=str(tmp_path), should_stop=False)
    GiveUp(Mock(spec=optuna.Trial), "val/ndcg@10", None).on_train_start(trainer, Mock(spec=LightningModule))
    assert trainer.should_stop is was_given_up
