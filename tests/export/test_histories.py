"""Files of histories are read with the times that a model is told: seconds since 1970, one for each event."""

from datetime import UTC, date, datetime

import polars as pl
import pytest

from seqrec.data.errors import InputError
from seqrec.export.histories import HistoryFile

DAY = 86_400


def read(path, with_times=True, **columns):
    pl.DataFrame(columns).write_parquet(path)
    return pl.concat(HistoryFile(path, with_times)).to_dicts()


@pytest.mark.parametrize(
    ("early", "late"),
    [
        (DAY, 2 * DAY),
        (date(1970, 1, 2), date(1970, 1, 3)),
        (datetime(1970, 1, 2), datetime(1970, 1, 3)),
        (datetime(1970, 1, 2, tzinfo=UTC), datetime(1970, 1, 3, tzinfo=UTC)),
    ],
    ids=["seconds", "dates", "datetimes", "with a zone"],
)
def test_times_of_every_type_are_told_in_seconds(tmp_path, early, late):
    expected = [{"user_id": "u", "item_id": ["a", "b"], "timestamp": [DAY, 2 * DAY]}]
    path = tmp_path / "histories.parquet"
    assert read(path, user_id=["u", "u"], item_id=["b", "a"], timestamp=[late, early]) == expected
    assert read(path, user_id=["u"], item_id=[["a", "b"]], timestamp=[[early, late]]) == expected


@pytest.mark.parametrize("times", [["1970-01-02"], [1.5], [None]], ids=["text", "fractions", "nothing"])
def test_times_of_another_type_are_refused(tmp_path, times):
    for items, stamps in ((["a"], times), ([["a"]], [times])):
        with pytest.raises(InputError, match=r"in the column timestamp; give whole seconds since 1970 or dates"):
            read(tmp_path / "histories.parquet", user_id=["u"], item_id=items, timestamp=stamps)
    with pytest.raises(InputError, match="in a list where item_id is one"):
        read(tmp_path / "histories.parquet", user_id=["u"], item_id=[["a"]], timestamp=[DAY])


def test_an_event_without_a_time_is_refused(tmp_path):
    for users, items, times in ((["u", "u"], ["a", "b"], [DAY, None]), (["u"], [["a", "b"]], [[DAY, None]])):
        with pytest.raises(InputError, match="has an event without a time"):
            read(tmp_path / "histories.parquet", user_id=users, item_id=items, timestamp=times)
    for times in ([DAY], [1, 2, 3], None):
        with pytest.raises(InputError, match=r"has 2 items and \d times for 'u'; give one time for each"):
            read(
                tmp_path / "histories.parquet", user_id=["v", "u"], item_id=[["a"], ["a", "b"]], timestamp=[[1], times]
            )


def test_a_missing_item_goes_with_its_time(tmp_path):
    path = tmp_path / "histories.parquet"
    lists = {"user_id": ["u", "v", "w"], "item_id": [["a", None, "b"], [None], None]}
    assert read(path, **lists, timestamp=[[1, 2, 3], [None], None]) == [
        {"user_id": "u", "item_id": ["a", "b"], "timestamp": [1, 3]},
        {"user_id": "v", "item_id": [], "timestamp": []},
        {"user_id": "w", "item_id": [], "timestamp": []},
    ]
    assert [line["item_id"] for line in read(path, with_times=False, **lists)] == [["a", "b"], [], []]
