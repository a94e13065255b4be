"""A run's files appear whole, and each step draws its own reproducible numbers."""

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
