"""A study is run by real processes, killed without warning, shared between two, tuned, repeated from its record."""

import json
import os
import shutil
import sys
import time
from contextlib import ExitStack
from types import SimpleNamespace

import psutil
import pytest
import torch
import yaml
from desks import FIRST, ROOT, Desk, kill, wait_until
from rich.console import Console

from seqrec import reproduction
from seqrec.cli import main
from seqrec.studies import grid, jobs, worker
from seqrec.studies.grid import left, work
from seqrec.studies.locks import held, is_held
from seqrec.studies.searching import search


@pytest.fixture(scope="module")
def done(desk) -> str:
    """What two programs said that finished the study together, after it was killed while a trial trained and while a
    final run did."""
    before = os.getcwd()
    os.chdir(desk.folder)
    try:
        for job in (desk.job("sasrec", None), desk.job("sasrec", 1)):
            process = desk.start()
            wait_until(lambda job=job: any(job.folder.glob("**/last.ckpt")), process)
            workers = psutil.Process(process.pid).children(recursive=True)
            kill([psutil.Process(process.pid)])
            process.wait()
            assert is_held(job.lock)  # who does the job outlives who ordered it
            kill(workers)
            assert not is_held(job.lock)
        assert not desk.job("sasrec", 1).is_done
        both = [desk.start(), desk.start()]
        said = [process.communicate()[0] for process in both]
        assert [process.returncode for process in both] == [0, 0], said
    finally:
        os.chdir(before)
    return "\n".join(said)


def test_a_study_that_was_killed_is_finished_by_two_programs_that_share_its_folders(done, at_desk):
    assert done.count("tiny: 3 of 3 jobs done, nothing left.") == 2
    assert done.count("shop/sasrec, seed 1: ndcg@10") == 1
    assert "search: trial" not in done
    assert [job.name for job in at_desk.jobs] == [
        "shop/popularity, seed 1",
        "shop/sasrec, search",
        "shop/sasrec, seed 1",
    ]


def test_a_search_that_was_killed_ends_as_if_nothing_had_happened(done, at_desk, own_desk):
    job = own_desk.job("sasrec", None)
    search(job)
    ours, theirs = job.outcome, json.loads((at_desk.folder / job.kept).read_text())
    told = [[(trial["state"], trial["value"], trial["params"]) for trial in each["trials"]] for each in (ours, theirs)]
    assert told[0] == told[1]
    assert ours["chosen"] == theirs["chosen"]


def test_the_chosen_trial_is_recorded_with_all_losers_and_used(done, at_desk):
    outcome, result = at_desk.job("sasrec", None).outcome, at_desk.job("sasrec", 1).outcome
    assert len(outcome["trials"]) == outcome["asked"] == 3
    learning_rates = [trial["params"]["model.learning_rate"] for trial in outcome["trials"]]
    assert learning_rates[0] == FIRST["model.learning_rate"] not in learning_rates[1:]
    values = [trial["value"] for trial in outcome["trials"] if trial["state"] == "complete"]
    chosen = outcome["trials"][outcome["chosen"]]
    assert chosen["value"] == max(values)
    assert result["config"]["model"]["init_args"]["learning_rate"] == chosen["params"]["model.learning_rate"]
    assert result["config"]["trainer"]["max_epochs"] == 12
    assert result["tuning"]["trials"] == at_desk.job("sasrec", None).kept.name
    for told in ("metric", "asked", "space", "chosen"):
        assert result["tuning"][told] == outcome[told]


def test_a_run_leaves_result_ranks_and_learning_curve(done, at_desk):
    job = at_desk.job("sasrec", 1)
    assert {path.name for path in job.kept.parent.iterdir()} == {"result.json", "ranks.parquet"}
    curve = job.outcome["curve"]
    assert [point["epoch"] for point in curve] == list(range(job.outcome["epochs"]))
    assert all({"seconds", "train/loss", "val/ndcg@10", "val/recall@10"} <= set(point) for point in curve)
    assert [point["seconds"] for point in curve] == sorted(point["seconds"] for point in curve)
    best = max(point["val/ndcg@10"] for point in curve)
    assert best == pytest.approx(job.outcome["validation"]["val/ndcg@10"], abs=1e-6)


@pytest.fixture
def one_thread():
    """As the programs of a desk have it: sums of several threads differ in their last digits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_command_of_a_row_gives_the_same_figures(done, at_desk, one_thread, capsys):
    assert main(["leaderboard", str(at_desk.results), "--out=page"]) == 0
    (line,) = [line for line in (at_desk.folder / "page.md").read_text().splitlines() if line.startswith("| sasrec |")]
    (command,) = [cell.strip() for cell in line.split("|") if "seqrec reproduce" in cell]
    assert main(command.split()[1:]) == 0
    (kept,) = (at_desk.folder / "runs" / "reproduced").glob("sasrec-seed1-*/result.json")
    again = json.loads(kept.read_text())
    assert again["metrics"] == at_desk.job("sasrec", 1).outcome["metrics"]
    assert f"{again['metrics']['ndcg@10']:.6g}" in capsys.readouterr().out


def test_a_record_is_never_reproduced_by_a_run_of_another_recipe_or_of_other_code(own_desk, monkeypatch):
    """Two studies have a row of one name; then the code changes."""
    for study, model in (("one", "popularity"), ("two", "markov")):
        fit = ["--config=shop.yaml", f"--config={ROOT}/configs/model/{model}.yaml", "--trainer.accelerator=cpu"]
        assert main(["fit", *fit, f"--run={study}/row-seed1"]) == 0
        assert main(["test", f"--run={study}/row-seed1"]) == 0
        assert main(["reproduce", f"{study}/row-seed1"]) == 0
    reproduced = own_desk.folder / "runs" / "reproduced"
    runs = {json.loads(path.read_text())["model"]: path for path in reproduced.glob("*/result.json")}
    assert set(runs) == {"Popularity", "Markov"}
    for study, model in (("one", "Popularity"), ("two", "Markov")):
        recorded = json.loads((own_desk.folder / study / "row-seed1" / "result.json").read_text())
        assert json.loads(runs[model].read_text())["metrics"] == recorded["metrics"]
    monkeypatch.setattr(reproduction, "code_fingerprint", lambda: "other")
    assert main(["reproduce", "one/row-seed1"]) == 0
    assert len(list(reproduced.glob("*/result.json"))) == 3


def test_a_record_is_reproduced_at_the_checkpoint_that_was_tested(own_desk, capsys):
    fit = ["--config=shop.yaml", "--config=sasrec.yaml", "--trainer.accelerator=cpu", "--trainer.max_epochs=2"]
    assert main(["fit", *fit, "--run=run"]) == 0
    assert main(["test", "--run=run", "--ckpt_path=last"]) == 0
    assert main(["reproduce", "run"]) == 0
    (again,) = (own_desk.folder / "runs" / "reproduced").glob("*/result.json")
    assert json.loads(again.read_text())["checkpoint"] == "checkpoints/last.ckpt"
    shutil.copy("run/checkpoints/last.ckpt", "run/checkpoints/own.ckpt")
    assert main(["test", "--run=run", "--ckpt_path=run/checkpoints/own.ckpt"]) == 0
    assert main(["reproduce", "run"]) == 2
    assert "run was tested at checkpoints/own.ckpt, which training it again does not give" in capsys.readouterr().err


def test_the_page_of_the_study_lacks_what_was_not_run_and_compares_the_rest(done, at_desk, capsys):
    assert main(["leaderboard", str(at_desk.results), "--out=page"]) == 0
    page = (at_desk.folder / "page.md").read_text()
    assert "lacks 7-day popularity, first-order Markov:" in page
    assert "| 7-day popularity | not run |" in page
    assert main(["compare", *(str(at_desk.job(label, 1).kept.parent) for label in ("sasrec", "popularity"))]) == 0
    assert "ndcg@10 of the first minus the second: " in capsys.readouterr().out


def test_nothing_is_repeated_until_config_data_or_code_change(done, at_desk, monkeypatch):
    began = time.time()
    assert "3 of 3 jobs done" in at_desk.run()
    assert all(job.kept.stat().st_mtime < began for job in at_desk.jobs)
    popularity, final = at_desk.job("popularity", 1), at_desk.job("sasrec", 1)
    assert popularity.is_done
    assert final.is_done

    with monkeypatch.context() as another:
        another.setattr(jobs, "code_fingerprint", lambda: "other")
        assert not popularity.is_done

    study = yaml.safe_load(at_desk.study.read_text())
    study["rows"]["sasrec"]["set"]["trainer.max_epochs"] = 13
    other = Desk(at_desk.folder, at_desk.folder / "other.yaml", at_desk.results, at_desk.runs)
    other.study.write_text(yaml.safe_dump(study))
    assert other.job("popularity", 1).is_done
    assert other.job("sasrec", None).is_done is True  # trials have their own number of epochs
    assert not other.job("sasrec", 1).is_done
    assert left(other.jobs).startswith("1 job left, about ")

    manifest = at_desk.folder / "shop" / "manifest.json"
    kept = manifest.read_text()
    manifest.write_text(json.dumps(json.loads(kept) | {"fingerprint": "other data"}))
    assert not popularity.is_done
    manifest.write_text(kept)
    assert popularity.is_done


def test_the_time_left_of_rows_that_train_is_not_told_by_rows_that_count(own_desk):
    study = yaml.safe_load(own_desk.study.read_text())
    study["rows"]["sasrec"]["space"] = None
    study["rows"]["other"] = study["rows"]["sasrec"]
    study["seeds"] = [1, 2]
    own_desk.study.write_text(yaml.safe_dump(study))

    def finish(label: str, seconds: float) -> None:
        job = own_desk.job(label, 1)
        job.kept.parent.mkdir(parents=True)
        job.kept.write_text(json.dumps({"study": {"fingerprint": job.fingerprint, "seconds": seconds}}))

    finish("popularity", 1.0)
    assert left(own_desk.jobs) == "5 jobs left, no estimate yet"
    finish("sasrec", 600.0)
    assert left(own_desk.jobs) == "4 jobs left, about 30 min 1 s"


def test_the_time_left_is_that_of_the_trials_left_and_of_as_many_epochs_as_final_runs_have(own_desk):
    study = yaml.safe_load(own_desk.study.read_text())
    study["rows"]["other"] = study["rows"]["sasrec"]
    own_desk.study.write_text(yaml.safe_dump(study))
    searched, begun, final = own_desk.job("sasrec", None), own_desk.job("other", None), own_desk.job("sasrec", 1)
    trials = [{"number": number, "seconds": seconds, "params": {}} for number, seconds in enumerate((2.0, 10.0, 18.0))]
    outcome = {"study": {"fingerprint": searched.fingerprint, "seconds": 30.0}, "chosen": 1, "trials": trials}
    searched.kept.parent.mkdir(parents=True)
    searched.kept.write_text(json.dumps(outcome))
    assert left([searched, final]) == "1 job left, about 1 min 0 s"  # six times the epochs of the chosen trial
    assert left([searched, begun]) == "1 job left, about 30 s"
    (begun.folder / "trial-1").mkdir(parents=True)
    (begun.folder / "trial-1" / "fit.json").touch()
    assert left([searched, begun]) == "1 job left, about 30 s"  # begun by who knows whom
    (begun.folder / "job.json").write_text(json.dumps(begun.fingerprint))
    assert left([searched, begun]) == "1 job left, about 20 s"


def test_who_tells_the_time_left_after_a_job_counts_itself(own_desk, monkeypatch, capsys):
    """Another program is at the second job meanwhile, and dies."""
    study = yaml.safe_load(own_desk.study.read_text())
    study["seeds"] = [1, 2]
    own_desk.study.write_text(yaml.safe_dump(study))
    both = [own_desk.job("popularity", seed) for seed in study["seeds"]]

    def finish(study, job):
        job.kept.parent.mkdir(parents=True)
        told = {"study": {"fingerprint": job.fingerprint, "seconds": 60.0}, "metrics": {"ndcg@10": 0.1}}
        job.kept.write_text(json.dumps(told))
        return [sys.executable, "-c", "pass"]

    monkeypatch.setattr(worker, "command", finish)
    with ExitStack() as other:
        other.enter_context(held(both[1].lock))
        monkeypatch.setattr(grid, "time", SimpleNamespace(sleep=lambda seconds: other.close()))
        assert work(own_desk.study, both, Console()) == []
    assert "seed 1: ndcg@10 0.1000 in 1 min 0 s; 1 job left, about 30 s with 2 at work" in capsys.readouterr().out


def test_a_job_that_fails_says_where_and_the_others_are_done(own_desk):
    study = yaml.safe_load(own_desk.study.read_text())
    rows = study["rows"]
    rows["sasrec"]["space"] = None
    rows["sasrec"]["set"] = {"model.learning_rat": 1}
    own_desk.study.write_text(yaml.safe_dump(study))
    said = own_desk.run("--rows", "sasrec", status=1)
    assert "shop/sasrec, seed 1: failed with status 2" in said.replace("\n", " ")
    assert "Did you mean 'learning_rate'?" in own_desk.logs()


def test_a_job_that_changed_while_it_ran_is_not_run_for_ever(own_desk, monkeypatch, capsys):
    jobs_left = [own_desk.job("popularity", 1)]
    monkeypatch.setattr(worker, "command", lambda study, job: [sys.executable, "-c", "pass"])
    assert work(own_desk.study, jobs_left, Console()) == jobs_left
    assert "changed while it ran; start again" in " ".join(capsys.readouterr().out.split())


def test_what_a_job_says_at_last_is_told_with_its_brackets(own_desk, monkeypatch, capsys):
    says = "import sys; print('no [configs/one.yaml] in [/tmp/two]'); sys.exit(2)"
    monkeypatch.setattr(worker, "command", lambda study, job: [sys.executable, "-c", says])
    job = own_desk.job("popularity", 1)
    assert work(own_desk.study, [job], Console()) == [job]
    assert "popularity-seed1.log: no [configs/one.yaml] in [/tmp/two]\n" in capsys.readouterr().out


def test_a_study_is_run_from_the_folder_of_its_configs(tmp_path, own_desk):
    assert "shop/popularity, seed 1" in own_desk.run("--list", "--rows", "popularity")
    assert "has no 'popularty'" in own_desk.run("--rows", "popularty", status=2)
    study = yaml.safe_load(own_desk.study.read_text())
    study["rows"]["sasrec"]["seeds"] = [7]
    own_desk.study.write_text(yaml.safe_dump(study))
    assert "1 jobs done" in own_desk.run("--list", "--seeds", "1")  # no search for runs that are not wanted
    assert "shop/sasrec, search" in own_desk.run("--list", "--seeds", "7")
    assert (ROOT / "experiments" / "grid.py").is_file()
