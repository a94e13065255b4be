"""A run's files appear whole, and each epoch draws its own reproducible numbers."""

from seqrec.training.record import RunRecord, epoch_seed, write


def test_what_an_epoch_draws_depends_on_seed_epoch_and_rank_alone():
    assert epoch_seed(1, 2, 0) == epoch_seed(1, 2, 0)
    assert len({epoch_seed(*place) for place in [(1, 2, 0), (2, 2, 0), (1, 3, 0), (1, 2, 1)]}) == 4


def test_writing_leaves_one_whole_file(tmp_path):
    for text in ("first", "second"):
        write(tmp_path / "run" / "result.json", text)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["result.json"]
    assert (tmp_path / "run" / "result.json").read_text() == "second"


def test_counts_go_on_after_a_resume():
    resumed = RunRecord({}, "")
    resumed.load_state_dict({"wall_seconds": 5.0, "train_seconds": 3.0, "events": 70})
    state = resumed.state_dict()
    assert (state["train_seconds"], state["events"]) == (3.0, 70)
    assert state["wall_seconds"] > 5.0
