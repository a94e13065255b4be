"""No protocol lets training see what evaluation asks for, and each says what it did."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seqrec.data.protocol import DAY, GlobalTimeSplit, LeaveOneOut, Part, RatioByUser

CASES = [
    pytest.param(LeaveOneOut, {}, id="LeaveOneOut"),
    pytest.param(GlobalTimeSplit, {"test_days": 2.0, "validation_days": 1.0}, id="GlobalTimeSplit, first"),
    pytest.param(
        GlobalTimeSplit, {"test_days": 1.0, "validation_days": 2.0, "only_first": False}, id="GlobalTimeSplit"
    ),
    pytest.param(RatioByUser, {}, id="RatioByUser"),
    pytest.param(RatioByUser, {"validation_share": 0.25, "test_share": 0.4}, id="RatioByUser, other shares"),
]
RULES = [
    pytest.param({"seen_is_excluded": seen, "drops_cold_items": cold}, id=f"seen {seen}, cold {cold}")
    for seen in (True, False)
    for cold in (True, False)
]

# One user: (item, hours since the log began) in order of time. One early event keeps the past from being empty.
histories = st.lists(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 20 * 24)), max_size=14).map(
        lambda events: sorted(events, key=lambda event: event[1])
    ),
    max_size=8,
).map(lambda users: [*users, [(0, 0), (1, 480)]])


def events(part: Part) -> list[int]:
    """Every event of every slice."""
    return [event for start, end in zip(part.starts, part.ends, strict=True) for event in range(start, end)]


def build(build_log, users):
    items = [[item for item, _ in history] for history in users]
    times = [[1_000_000 + hour * 3600 for _, hour in history] for history in users]
    return build_log(items, times, n_items=7)


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize(("protocol", "arguments"), CASES)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(users=histories)
def test_training_never_holds_a_target_nor_anything_later(build_log, protocol, arguments, rules, users):
    log = build(build_log, users)
    split = protocol(**arguments, **rules).split(log)
    trained = events(split.train)
    assert len(set(trained)) == len(trained)
    for part in (split.validation, split.test):
        for user, start, end in zip(part.users, part.starts, part.ends, strict=True):
            assert log.offsets[user] == start < end - 1 < log.offsets[user + 1]
            own = [event for event in trained if start <= event < log.offsets[user + 1]]
            assert all(event < end - 1 for event in own)
    newest_validation = dict(zip(split.validation.users.tolist(), split.validation.ends.tolist(), strict=True))
    for user, end in zip(split.test.users.tolist(), split.test.ends.tolist(), strict=True):
        assert newest_validation.get(user, 0) < end


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize(("protocol", "arguments"), CASES)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(users=histories)
def test_every_target_is_kept_or_counted_by_the_reason_it_was_dropped(build_log, protocol, arguments, rules, users):
    log = build(build_log, users)
    split = protocol(**arguments, **rules).split(log)
    counts = np.bincount(log.items[events(split.train)], minlength=7)
    np.testing.assert_array_equal(split.train.item_counts(log), counts)
    for name, part in (("validation", split.validation), ("test", split.test)):
        tally = split.passport["targets"][name]
        dropped = tally["without_history"] + tally["already_seen_dropped"] + tally.get("cold_dropped", 0)
        assert tally["before"] == len(part) + dropped
        targets = log.items[part.ends - 1]
        if rules["drops_cold_items"]:
            assert (counts[targets] > 0).all()
        else:
            assert tally["cold_kept"] == (counts[targets] == 0).sum()
        if rules["seen_is_excluded"]:
            assert not any(
                target in log.items[start : end - 1]
                for target, start, end in zip(targets, part.starts, part.ends, strict=True)
            )


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(users=histories)
def test_a_global_split_trains_on_nothing_from_its_windows(build_log, users):
    log = build(build_log, users)
    split = GlobalTimeSplit(test_days=2.0, validation_days=1.0, only_first=False, drops_cold_items=False).split(log)
    test_from = log.times.max() + 1 - 2 * DAY
    assert (log.times[events(split.train)] < test_from - DAY).all()
    validation, test = (log.times[part.ends - 1] for part in (split.validation, split.test))
    assert ((validation >= test_from - DAY) & (validation < test_from)).all()
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


def test_a_moment_before_the_whole_log_is_refused(build_log):
    with pytest.raises(ValueError, match="choose a later test_from"):
        GlobalTimeSplit(test_from=50).split(build_log([[0, 1, 2]]))


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
