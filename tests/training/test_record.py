"""A run's files appear whole, and each step draws its own reproducible numbers."""

import subprocess

from seqrec.training import record
from seqrec.training.record import RunRecord, step_seed, write


def test_every_step_and_device_draws_its_own_reproducible_numbers():
    assert step_seed(1, 2, 3, 0) == step_seed(1, 2, 3, 0)
    places = [(1, 2, 3, 0), (2, 2, 3, 0), (1, 3, 3, 0), (1, 2, 4, 0), (1, 2, 3, 1)]
    assert len({step_seed(*place) for place in places}) == len(places)


def test_writing_leaves_one_whole_file(tmp_path):
    for text in ("first", "second"):
        write(tmp_path / "run" / "result.json", text)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["result.json"]
    assert (tmp_path / "run" / "result.json").read_text() == "second"


def test_counts_go_on_after_a_resume():
    resumed = RunRecord({}, "")
    resumed.load_state_dict({"wall_seconds": 5.0, "train_seconds": 3.0, "events": 70, "curve": [{"epoch": 0}]})
    state = resumed.state_dict()
    assert (state["train_seconds"], state["events"]) == (3.0, 70)
    assert state["curve"] == [{"epoch": 0}]
    assert state["wall_seconds"] > 5.0


def test_a_checkpoint_of_an_earlier_version_has_no_curve_yet():
    resumed = RunRecord({}, "")
    resumed.load_state_dict({"wall_seconds": 5.0, "train_seconds": 3.0, "events": 70})
    assert resumed.curve == []


def test_the_commit_is_that_of_the_import_and_tells_of_changed_files_of_the_package(tmp_path, monkeypatch):
    def git(*words: str) -> str:
        who = ["-c", "user.name=someone", "-c", "user.email=someone@example.org"]
        done = subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    module, kept = tmp_path / "package" / "training" / "record.py", tmp_path / "result.json"
    module.parent.mkdir(parents=True)
    for path in (module, kept):
        path.write_text("1")
    git("init")
    git("add", ".")
    git("commit", "--message=first")
    monkeypatch.setattr(record, "__file__", str(module))

    head, now = git("rev-parse", "HEAD"), record.commit.__wrapped__
    assert now() == head
    assert record.commit() != head
    kept.write_text("2")
    module.with_name("untracked.py").write_text("")
    assert now() == head
    module.write_text("2")
    assert now() == f"{head}-dirty"
