"""Calendar values equal those of Python's own, and gaps are numbered by their length."""

from datetime import UTC, datetime, timedelta

import torch
from hypothesis import given
from hypothesis import strategies as st

from seqrec.positions.time import Calendar, TimeGap, calendar
from seqrec.sequences import Past, Sequences


@given(st.lists(st.integers(-(2**33), 2**34), min_size=1))
def test_hours_weekdays_and_months_are_those_of_the_calendar(times):
    hours, weekdays, months = calendar(torch.tensor(times))
    for time, hour, weekday, month in zip(times, hours.tolist(), weekdays.tolist(), months.tolist(), strict=True):
        expected = datetime.fromtimestamp(time, UTC)
        assert (hour, weekday, month) == (expected.hour, expected.weekday(), expected.month - 1)


def test_a_leap_day_is_a_day_in_february():
    leap_day = int(datetime(2024, 2, 29, 23, 59, 59, tzinfo=UTC).timestamp())
    hour, weekday, month = calendar(torch.tensor([leap_day, leap_day + 1]))
    assert (hour.tolist(), weekday.tolist(), month.tolist()) == ([23, 0], [3, 4], [1, 2])


def test_every_day_of_two_centuries_is_in_its_month():
    """Chance never meets 29 February 2000, the leap day of a year that a hundred divides."""
    days = [datetime(1901, 1, 1, 12, tzinfo=UTC) + timedelta(day) for day in range(73_048)]
    hour, weekday, month = calendar(torch.tensor([int(day.timestamp()) for day in days]))
    assert days[-1].year == 2100
    assert set(hour.tolist()) == {12}
    assert weekday.tolist() == [day.weekday() for day in days]
    assert month.tolist() == [day.month - 1 for day in days]


def test_equal_gaps_are_equal_and_the_first_event_has_a_vector_of_its_own():
    position = TimeGap(4, init_std=1.0)
    history = Sequences.pack([[0, 0, 0, 0], [0, 0]], [[5, 65, 125, 7_200], [0, 60]])
    rows = position(torch.zeros(6, 4), history)
    assert torch.equal(rows[1], rows[2])
    assert torch.equal(rows[1], rows[5])
    assert torch.equal(rows[0], rows[4])
    assert not torch.equal(rows[1], rows[3])
    assert not torch.equal(rows[0], rows[1])


def test_longer_gaps_than_the_table_knows_have_its_last_span():
    position = TimeGap(4, n_spans=9, init_std=1.0)
    rows = position(torch.zeros(5, 4), Sequences.pack([[0] * 5], [[0, 10, 1_000, 100_000, 10**9]]))
    assert torch.equal(rows, position.table.weight[[9, 7, 8, 8, 8]])


def test_a_past_that_ended_at_the_first_second_of_1970_is_a_past():
    position = TimeGap(4, init_std=1.0)
    whole = position(torch.zeros(2, 4), Sequences.pack([[0, 0]], [[0, 60]]))
    items, offsets, zero = torch.zeros(1, dtype=torch.long), torch.tensor([0, 1]), torch.zeros(1, dtype=torch.long)
    for n_past, expected in ((1, whole[1]), (0, whole[0])):
        past = Past(torch.tensor([n_past]), zero)
        gone_on = position(torch.zeros(1, 4), Sequences(items, offsets, torch.tensor([60]), past=past))
        assert torch.equal(gone_on[0], expected)


def test_events_in_the_same_hour_weekday_and_month_are_alike():
    position = Calendar(4, init_std=1.0)
    week = 7 * 86_400
    rows = position(torch.zeros(3, 4), Sequences.pack([[0, 0, 0]], [[0, week + 60, week + 4_000]]))
    assert torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0], rows[2])
