"""The beginnings of histories are those that training reads, and nothing of validation or test is among them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqrec.data.errors import InputError
from seqrec.data.log import Log
from seqrec.data.prefixes import Granularity, Pool, beginnings, ids_of
from seqrec.data.protocol import GlobalTimeSplit, LeaveOneOut, RatioByUser
from seqrec.data.supervision import EveryPrefix

histories = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=8, unique=True), min_size=1, max_size=5)
PROTOCOLS = [LeaveOneOut(), RatioByUser(), GlobalTimeSplit(test_from=106, validation_days=2 / 86_400)]


def read(part) -> list[tuple[int, int, int]]:
    return list(zip(part.users.tolist(), part.starts.tolist(), part.ends.tolist(), strict=True))


@given(histories, st.sampled_from(PROTOCOLS))
def test_they_are_the_inputs_of_the_training_rows(build_log, items, protocol):
    log = build_log(items, n_items=10)
    split = protocol.split(log)
    part, rows = beginnings(log, split), EveryPrefix().rows(split.train, None)
    assert read(part) == list(zip(rows.users.tolist(), rows.starts.tolist(), (rows.ends - 1).tolist(), strict=True))
    trains = np.concatenate([np.arange(a, b) for _, a, b in read(split.train)] or [np.arange(0)])
    for each in (part, beginnings(log, split, granularity=Granularity.user)):
        assert set(np.concatenate([np.arange(a, b) for _, a, b in read(each)] or [np.arange(0)])) <= set(trains)
    assert (part.starts == log.offsets[part.users]).all()
    ids = ids_of(log, part)
    assert ids.rows() == [(f"user {user}", end - start) for user, start, end in read(part)]


@given(histories)
def test_one_for_each_user_is_the_whole_training_part(build_log, items):
    log = build_log(items, n_items=10)
    split = LeaveOneOut().split(log)
    assert read(beginnings(log, split, granularity=Granularity.user)) == read(split.train)


@given(histories)
def test_the_official_pool_has_all_but_the_newest_event_of_everyone(build_log, items):
    log = build_log(items, n_items=10)
    part = beginnings(log, LeaveOneOut().split(log), Pool.official)
    expected = [(user, length) for user, history in enumerate(items) for length in range(1, len(history))]
    assert [(user, end - start) for user, start, end in read(part)] == expected


def test_one_for_each_user_of_the_official_pool_is_refused(build_log):
    log = build_log([[1, 2, 3, 4]])
    with pytest.raises(InputError, match="official pool is one of prefixes"):
        beginnings(log, LeaveOneOut().split(log), Pool.official, Granularity.user)


def test_the_official_pool_under_another_protocol_would_hold_targets_of_the_test(build_log):
    log = build_log([[1, 2, 3, 4, 5, 6]] * 3)
    with pytest.raises(InputError, match="official pool is that of LeaveOneOut; under RatioByUser"):
        beginnings(log, RatioByUser().split(log), Pool.official)


@pytest.mark.real
def test_amazon_beauty_has_as_many_as_the_paper_counts(real_data, tmp_path):
    from seqrec.cli import main

    raw = real_data / "amazon-beauty"
    assert main(["prepare", "amazon-beauty", f"--raw={raw}", f"--out={tmp_path / 'beauty'}"]) == 0
    log = Log.open(tmp_path / "beauty")
    split = LeaveOneOut().split(log)
    assert len(beginnings(log, split)) == 131_413
    assert len(beginnings(log, split, Pool.official)) == 176_139
    assert len(beginnings(log, split, granularity=Granularity.user)) == 22_363
