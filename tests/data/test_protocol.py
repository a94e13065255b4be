"""What each protocol is, by hand, and what it refuses. What all must obey stands in tests/contracts."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from seqrec.data.protocol import DAY, GlobalTimeSplit, LeaveOneOut, RatioByUser


def test_a_global_split_trains_on_nothing_from_its_windows(random_log):
    protocol = GlobalTimeSplit(test_days=20.0, validation_days=10.0, only_first=False, drops_cold_items=False)
    split = protocol.split(random_log)
    test_from = random_log.times.max() + 1 - 20 * DAY
    assert (random_log.times[split.train.ends - 1] < test_from - 10 * DAY).all()
    assert len(split.validation)
    assert len(split.test)
    validation, test = (random_log.times[part.ends - 1] for part in (split.validation, split.test))
    assert ((validation >= test_from - 10 * DAY) & (validation < test_from)).all()
    assert (test >= test_from).all()


def test_leave_one_out_by_hand(build_log):
    split = LeaveOneOut().split(build_log([[0, 1, 2, 3], [1, 2], [2, 1, 0], []]))
    assert (split.train.users.tolist(), split.train.starts.tolist(), split.train.ends.tolist()) == (
        [0, 1, 2],
        [0, 4, 6],
        [2, 6, 7],
    )
    assert (split.validation.users.tolist(), split.validation.ends.tolist()) == ([0, 2], [3, 8])
    assert (split.test.users.tolist(), split.test.ends.tolist()) == ([0, 2], [4, 9])
    pairs = np.array([[0, 3], [2, 0]], dtype="<i8")
    assert split.passport == {
        "kind": "LeaveOneOut",
        "parameters": {},
        "seen_is_excluded": True,
        "candidates": "all items",
        "tie_rule": "stable: file order",
        "tied_share": 0.25,
        "cold_targets": "kept",
        "targets": {
            "validation": {"before": 2, "without_history": 0, "already_seen_dropped": 0, "cold_kept": 0},
            "test": {"before": 2, "without_history": 0, "already_seen_dropped": 0, "cold_kept": 1},
        },
        "users": {"train": 3, "validation": 2, "test": 2},
        "rows": {"train": 3, "validation": 2, "test": 2},
        "fake_users": 0,
        "items": 4,
        "train_events": 5,
        "dataset": "abc",
        "target_hash": hashlib.sha256(pairs.tobytes()).hexdigest(),
    }


def test_ratio_by_user_by_hand(build_log):
    split = RatioByUser(0.2, 0.1).split(build_log([list(range(20)), [0, 1, 2], [0, 1]]))
    assert split.train.lengths.tolist() == [14, 0 + 1, 2]
    assert (split.validation.ends - 1).tolist() == [14, 15, 16, 17, 21]
    assert (split.test.ends - 1).tolist() == [18, 19, 22]


def test_a_global_split_by_hand_takes_the_first_event_of_each_window(build_log):
    times = [[0, 5, 10, 11, 20, 21], [6, 7, 12], [25, 26]]
    log = build_log([[0, 1, 2, 3, 4, 5], [0, 1, 2], [3, 4]], times)
    protocol = GlobalTimeSplit(test_from=20, validation_days=10 / DAY, drops_cold_items=False)
    split = protocol.split(log)
    assert split.train.ends.tolist() == [2, 8]
    assert (split.validation.ends - 1).tolist() == [2, 8]
    assert (split.test.ends - 1).tolist() == [4]
    assert split.passport["targets"]["test"]["without_history"] == 1


def test_the_last_day_of_a_log_holds_its_newest_second_and_as_many_as_a_day_has(build_log):
    newest = 10 * DAY
    times = [[0, newest - DAY, newest], [0, newest - DAY + 1], [0, newest - 2 * DAY, newest - 2 * DAY + 1]]
    log = build_log([[0, 1, 2], [0, 1], [0, 1, 2]], times)
    split = GlobalTimeSplit(test_days=1.0, validation_days=1.0, only_first=False, drops_cold_items=False).split(log)
    assert split.train.ends.tolist() == [1, 4, 7]
    assert (split.validation.ends - 1).tolist() == [1, 7]
    assert (split.test.ends - 1).tolist() == [2, 4]


def test_a_moment_before_the_whole_log_is_refused(build_log):
    with pytest.raises(ValueError, match="choose a later test_from"):
        GlobalTimeSplit(test_from=50).split(build_log([[0, 1, 2]]))


class Own(LeaveOneOut):
    """A protocol of one's own, whose cut is changed."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    def cut(self, log):
        return self.change(super().cut(log), log)


def with_places(cut):
    """The places of the targets, as nobody's annotations would let through."""
    object.__setattr__(cut, "test", np.flatnonzero(cut.test))
    return cut


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda cut, log: replace(cut, train_ends=log.offsets[1:]), "2 targets of validation in training"),
        (lambda cut, log: replace(cut, train_ends=cut.train_ends + 1), "not one place in the log for each of 3 users"),
        (
            lambda cut, log: replace(cut, train_ends=cut.train_ends - log.offsets[:-1]),
            r"not one place .* add log\.offsets",
        ),
        (lambda cut, log: replace(cut, train_ends=cut.train_ends[:-1]), r"train_ends of shape \(2,\)"),
        (lambda cut, log: with_places(cut), "gave test of type int64 and shape .* true or false"),
    ],
)
def test_a_cut_of_ones_own_that_is_not_sound_is_refused(build_log, change, complaint):
    log = build_log([[1, 2, 3, 4], [5], [2, 1, 5]])
    with pytest.raises(ValueError, match=f"Own.cut .*{complaint}"):
        Own(change).split(log)


def test_a_protocol_of_ones_own_never_passes_for_another(build_log):
    log = build_log([[1, 2, 3, 4], [5], [2, 1, 5]])
    split = Own(lambda cut, log: cut).split(log)
    assert split.passport["kind"] == f"{__name__}.Own"
    assert LeaveOneOut().split(log).passport["kind"] == "LeaveOneOut"
    assert split.passport["target_hash"] == LeaveOneOut().split(log).passport["target_hash"]


def test_positions_are_no_clock(build_log):
    log = build_log([[0, 1, 2]])
    with pytest.raises(ValueError, match="not clock times"):
        GlobalTimeSplit(test_from=50).split(replace(log, manifest={**log.manifest, "unit_of_times": "position"}))


@pytest.mark.parametrize(
    ("protocol", "arguments"),
    [
        (GlobalTimeSplit, {"test_days": 0.0}),
        (RatioByUser, {"test_share": 0.0}),
        (RatioByUser, {"validation_share": 0.9}),
    ],
)
def test_windows_and_shares_that_leave_nothing_are_refused(protocol, arguments):
    with pytest.raises(ValueError, match="above 0"):
        protocol(**arguments)
