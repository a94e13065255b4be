"""Each supervision predicts what it says, event by event. What all must obey stands in tests/contracts."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seqrec.data.protocol import Part
from seqrec.data.supervision import EveryEvent, EveryEventWithinSegments, EveryPrefix, MaskedEvents, NewestEvent
from seqrec.sequences import Sequences

parts = st.lists(st.integers(0, 9), min_size=1, max_size=6).map(
    lambda lengths: Part(
        np.arange(len(lengths)), np.cumsum(lengths) - np.array(lengths), np.cumsum(lengths, dtype=np.int64)
    )
)
windows = st.one_of(st.none(), st.integers(1, 5))


def predictions(supervision, part: Part, max_length: int | None) -> list[tuple[tuple[int, ...], int]]:
    """(what may be read, what follows) of every prediction, as places in the log."""
    rows = supervision.rows(part, max_length)
    inputs = [range(start, end - 1) for start, end in zip(rows.starts, rows.ends, strict=True)]
    history = Sequences.pack(inputs)
    found = []
    for at in supervision.predict_at(history).tolist():
        start = history.offsets[history.owners[at]]
        found.append((tuple(history.items[start : at + 1].tolist()), int(history.items[at]) + 1))
    return found


def truth(part: Part) -> list[list[tuple[tuple[int, ...], int]]]:
    """For each slice, every non-empty prefix with what follows it."""
    return [
        [(tuple(range(start, target)), target) for target in range(start + 1, end)]
        for start, end in zip(part.starts.tolist(), part.ends.tolist(), strict=True)
    ]


@given(part=parts, max_length=windows)
def test_every_prefix_asks_for_every_event_but_the_first_with_its_own_window(part, max_length):
    wanted = [(read[-(max_length or 99) :], target) for prefixes in truth(part) for read, target in prefixes]
    assert predictions(EveryPrefix(), part, max_length) == wanted


@given(part=parts, max_length=windows)
def test_the_newest_event_is_the_last_of_the_prefixes(part, max_length):
    wanted = [(prefixes[-1][0][-(max_length or 99) :], prefixes[-1][1]) for prefixes in truth(part) if prefixes]
    assert predictions(NewestEvent(), part, max_length) == wanted


@given(part=parts, max_length=windows)
def test_every_event_of_the_newest_window_predicts(part, max_length):
    found = predictions(EveryEvent(), part, max_length)
    wanted = [target for prefixes in truth(part) for _, target in prefixes[-(max_length or 99) :]]
    assert [target for _, target in found] == wanted
    assert all(read[-1] == target - 1 and len(read) <= (max_length or 99) for read, target in found)


@given(part=parts)
def test_all_events_and_all_prefixes_agree_where_the_window_is_unbounded(part):
    assert predictions(EveryEvent(), part, None) == predictions(EveryPrefix(), part, None)


@given(part=parts, max_length=windows, n_recent=st.integers(1, 6))
def test_the_first_recent_event_behind_older_ones_is_all_that_segments_leave_out(part, max_length, n_recent):
    found = predictions(EveryEventWithinSegments(n_recent), part, max_length)
    rows = EveryEvent().rows(part, max_length)
    across = {int(end) - 1 - n_recent for end, n in zip(rows.ends, rows.lengths - 1, strict=True) if n > n_recent}
    assert found == [each for each in predictions(EveryEvent(), part, max_length) if each[1] not in across]


def test_the_end_of_every_older_segment_predicts_nothing():
    history = Sequences.pack([[0] * 17, [0] * 6, [0] * 5])
    left_out = set(range(28)) - set(EveryEventWithinSegments(5, 3).predict_at(history).tolist())
    assert left_out == {3, 7, 11, 17}  # 4, 4 and 4 older events of the first history, one of the second


def test_no_recent_event_is_refused():
    with pytest.raises(ValueError, match="n_recent is 0 and n_segments 1; both must be at least 1"):
        EveryEventWithinSegments(0)


def hidden(supervision, lengths, seed=0):
    """Which places of each history are hidden."""
    history = Sequences.pack([[0] * length for length in lengths])
    at = supervision.predict_at(history, torch.Generator().manual_seed(seed))
    assert at.tolist() == sorted(set(at.tolist()))
    of_each = torch.bincount(history.owners[at], minlength=len(history)).tolist()
    return [places.tolist() for places in history.places[at].split(of_each)]


@given(part=parts, max_length=windows)
def test_masked_events_read_the_input_and_the_target_of_the_newest_event(part, max_length):
    masked, newest = MaskedEvents().rows(part, max_length), NewestEvent().rows(part, max_length)
    assert [field.tolist() for field in vars(masked).values()] == [field.tolist() for field in vars(newest).values()]
    assert (MaskedEvents.target_lag, NewestEvent.target_lag) == (0, 1)


@pytest.mark.parametrize(
    ("share", "n_hidden"),
    [(0.2, [1, 1, 0, 1, 3, 40]), (0.4, [1, 1, 0, 3, 6, 80]), (0.6, [1, 1, 0, 4, 9, 120])],  # 2.8 of 7 are 3
)
def test_a_share_of_each_row_is_hidden_and_never_none(share, n_hidden):
    found = hidden(MaskedEvents(share, newest_alone=0.0), [1, 2, 0, 7, 15, 200])
    assert [len(places) for places in found] == n_hidden


def test_every_event_is_hidden_as_often_as_any_other():
    found = hidden(MaskedEvents(0.4, newest_alone=0.0), [5] * 20_000)
    often = np.bincount(np.concatenate(found), minlength=5) / 20_000
    assert often == pytest.approx(0.4, abs=0.02)


def test_some_rows_hide_their_newest_event_alone():
    lengths = [10, 0, 3] * 4000
    found = hidden(MaskedEvents(0.5, newest_alone=0.25), lengths)
    alone = [places == [length - 1] for places, length in zip(found, lengths, strict=True) if length == 10]
    assert np.mean(alone) == pytest.approx(0.25, abs=0.03)
    assert {len(places) for places, length in zip(found, lengths, strict=True) if length == 10} == {1, 5}
    assert all(not places for places, length in zip(found, lengths, strict=True) if length == 0)


def test_another_seed_hides_other_events():
    assert hidden(MaskedEvents(), [50] * 20, seed=1) != hidden(MaskedEvents(), [50] * 20, seed=2)


@pytest.mark.parametrize("wrong", [{"share": 0.0}, {"share": 1.5}, {"newest_alone": -0.1}, {"newest_alone": 2.0}])
def test_shares_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MaskedEvents(**wrong)
