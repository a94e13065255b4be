"""What every protocol must obey. A new one adds one line to ``CASES``."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqrec.data.log import Log
from seqrec.data.protocol import GlobalTimeSplit, LeaveOneOut, Part, Protocol, RatioByUser, Split

CASES = [
    pytest.param(LeaveOneOut, {}, id="LeaveOneOut"),
    pytest.param(GlobalTimeSplit, {"test_days": 2.0, "validation_days": 1.0}, id="GlobalTimeSplit, first"),
    pytest.param(
        GlobalTimeSplit, {"test_days": 1.0, "validation_days": 2.0, "only_first": False}, id="GlobalTimeSplit"
    ),
    pytest.param(GlobalTimeSplit, {"test_from": 1_000_000 + 15 * 86_400}, id="GlobalTimeSplit, from a moment"),
    pytest.param(RatioByUser, {}, id="RatioByUser"),
    pytest.param(RatioByUser, {"validation_share": 0.25, "test_share": 0.4}, id="RatioByUser, other shares"),
]
RULES = [
    pytest.param({"seen_is_excluded": seen, "drops_cold_items": cold}, id=f"seen {seen}, cold {cold}")
    for seen in (True, False)
    for cold in (True, False)
]
each_protocol = pytest.mark.parametrize(("build", "arguments"), CASES)
each_rule = pytest.mark.parametrize("rules", RULES)

N_ITEMS = 8
UNIQUE = 7

# Per user (item, hours since the log began) in order of time. The last two users keep the past from being empty, and
# one of them alone has the item UNIQUE, which every protocol trains on.
histories = st.lists(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 20 * 24)), max_size=14).map(
        lambda events: sorted(events, key=lambda event: event[1])
    ),
    max_size=8,
).map(lambda users: [*users, [(0, 0), (1, 480)], [(UNIQUE, 0)]])


def log_of(build_log, users) -> Log:
    items = [[item for item, _ in history] for history in users]
    times = [[1_000_000 + hour * 3600 for _, hour in history] for history in users]
    return build_log(items, times, n_items=N_ITEMS)


def events(part: Part) -> list[int]:
    """Every event of every slice."""
    return [event for start, end in zip(part.starts, part.ends, strict=True) for event in range(start, end)]


def parts(split: Split) -> dict[str, Part]:
    return {name: getattr(split, name) for name in ("train", "validation", "test")}


def as_lists(split: Split) -> dict[str, list[list[int]]]:
    return {
        name: [part.users.tolist(), part.starts.tolist(), part.ends.tolist()] for name, part in parts(split).items()
    }


@each_rule
@each_protocol
@settings(max_examples=8)
@given(users=histories)
def test_training_never_holds_a_target_nor_anything_later(build_log, build, arguments, rules, users):
    log = log_of(build_log, users)
    split = build(**arguments, **rules).split(log)
    trained = events(split.train)
    assert trained
    assert len(set(trained)) == len(trained)
    for user, start, end in zip(split.train.users, split.train.starts, split.train.ends, strict=True):
        assert log.offsets[user] <= start < end <= log.offsets[user + 1]
    for part in (split.validation, split.test):
        for user, start, end in zip(part.users, part.starts, part.ends, strict=True):
            assert log.offsets[user] == start < end - 1 < log.offsets[user + 1]
            own = [event for event in trained if start <= event < log.offsets[user + 1]]
            assert all(event < end - 1 for event in own)


@each_rule
@each_protocol
@settings(max_examples=8)
@given(users=histories)
def test_no_event_is_asked_for_twice_and_the_test_comes_after_validation(build_log, build, arguments, rules, users):
    split = build(**arguments, **rules).split(log_of(build_log, users))
    asked = [*split.validation.ends.tolist(), *split.test.ends.tolist()]
    assert len(set(asked)) == len(asked)
    newest_validation = dict(zip(split.validation.users.tolist(), split.validation.ends.tolist(), strict=True))
    for user, end in zip(split.test.users.tolist(), split.test.ends.tolist(), strict=True):
        assert newest_validation.get(user, 0) < end


@each_rule
@each_protocol
@settings(max_examples=8)
@given(users=histories)
def test_every_target_is_kept_or_counted_by_the_reason_it_was_dropped(build_log, build, arguments, rules, users):
    log = log_of(build_log, users)
    split = build(**arguments, **rules).split(log)
    counts = np.bincount(log.items[events(split.train)], minlength=N_ITEMS)
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
        else:
            assert tally["already_seen_dropped"] == 0


@each_rule
@each_protocol
@settings(max_examples=8)
@given(users=histories)
def test_the_passport_counts_what_is_in_the_parts(build_log, build, arguments, rules, users):
    log = log_of(build_log, users)
    split = build(**arguments, **rules).split(log)
    passport = split.passport
    assert passport["kind"] == build.__name__
    assert passport["rows"] == {name: len(part) for name, part in parts(split).items()}
    assert passport["users"] == {name: len(set(part.users.tolist())) for name, part in parts(split).items()}
    assert passport["train_events"] == len(events(split.train))
    assert passport["items"] == N_ITEMS
    assert passport["dataset"] == log.manifest["fingerprint"]


@each_rule
@each_protocol
@settings(max_examples=8)
@given(users=histories)
def test_whoever_reads_the_passport_can_split_the_same_log_again(build_log, build, arguments, rules, users):
    split = build(**arguments, **rules).split(log_of(build_log, users))
    passport = json.loads(json.dumps(split.passport))
    protocol = build(
        **passport["parameters"],
        seen_is_excluded=passport["seen_is_excluded"],
        drops_cold_items=passport["cold_targets"] == "dropped",
    )
    again = protocol.split(log_of(build_log, users))
    assert as_lists(again) == as_lists(split)
    assert again.passport == split.passport == passport


@each_rule
@each_protocol
@settings(max_examples=8)
@given(users=histories)
def test_another_target_gives_another_hash(build_log, build, arguments, rules, users):
    protocol, log = build(**arguments, **rules), log_of(build_log, users)
    split = protocol.split(log)
    for target in split.test.ends[:4] - 1:
        items = log.items.copy()
        items[target] = UNIQUE
        changed = protocol.split(replace(log, items=items))
        assert target + 1 in changed.test.ends
        assert changed.passport["target_hash"] != split.passport["target_hash"]


@each_rule
@each_protocol
@settings(max_examples=8)
@given(users=histories)
def test_users_without_events_are_in_no_part_and_change_no_other(build_log, build, arguments, rules, users):
    protocol = build(**arguments, **rules)
    split = protocol.split(log_of(build_log, users))
    among_empty = protocol.split(log_of(build_log, [history for user in users for history in ([], user)]))
    for (_, part), (name, other) in zip(parts(split).items(), parts(among_empty).items(), strict=True):
        assert other.users.tolist() == (2 * part.users + 1).tolist(), name
        assert other.starts.tolist() == part.starts.tolist(), name
        assert other.ends.tolist() == part.ends.tolist(), name


@each_rule
@each_protocol
@pytest.mark.parametrize("users", [[], [[], []]], ids=["no user", "no event"])
def test_a_log_without_events_has_empty_parts_or_is_refused(build_log, build, arguments, rules, users):
    def n_rows(protocol: Protocol) -> dict[str, int] | str:
        try:
            return protocol.split(log_of(build_log, users)).passport["rows"]
        except ValueError as refusal:
            return str(refusal)

    found = n_rows(build(**arguments, **rules))
    assert found == {"train": 0, "validation": 0, "test": 0} or str(found).endswith(".")
