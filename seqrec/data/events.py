"""Reads a source into plain arrays: ids become small numbers, clocks become seconds, and bad rows are refused."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from jaxtyping import Bool, Int

from seqrec.data.columns import raw_id
from seqrec.data.errors import InputError
from seqrec.data.sources import Source

# The smallest clock reading taken for each finer unit: as seconds it would lie beyond the year 5138.
_UNITS = {
    "position": (0, 1),
    "second": (0, 1),
    "millisecond": (10**11, 10**3),
    "microsecond": (10**14, 10**6),
    "nanosecond": (10**17, 10**9),
}
_LOG = ("user_id", "item_id", "timestamp")
# A log that ends before March 1973 counts events, not seconds.
_FIRST_CLOCK = 10**8


@dataclass(frozen=True)
class Events:
    """Interactions as numbers.

    Attributes:
        users: place of the event's user in ``user_ids``.
        items: place of the event's item in ``item_ids``.
        times: clock readings in the unit of the source, or in parts of it where its clock is finer.
        user_ids: raw ids (String), ascending, so that numbers do not depend on the order of rows or of threads.
        item_ids: raw ids (String), ascending.
        parts: how many of ``times`` make one unit of the source.
    """

    users: Int[np.ndarray, "E"]
    items: Int[np.ndarray, "E"]
    times: Int[np.ndarray, "E"]
    user_ids: pl.Series
    item_ids: pl.Series
    parts: int = 1

    def __len__(self) -> int:
        return len(self.times)

    @property
    def readings(self) -> Int[np.ndarray, "E"]:
        """Clock readings in the unit of the source, rounded down."""
        return self.times if self.parts == 1 else self.times // self.parts

    def at(self, chosen: Int[np.ndarray, "n"] | Bool[np.ndarray, "E"]) -> Events:
        """The chosen events, by place or by mask."""
        return replace(self, users=self.users[chosen], items=self.items[chosen], times=self.times[chosen])

    def compact(self) -> Events:
        """The same events without the ids that none of them uses."""
        users, user_ids = _renumber(self.users, self.user_ids)
        items, item_ids = _renumber(self.items, self.item_ids)
        return replace(self, users=users, items=items, user_ids=user_ids, item_ids=item_ids)


def read_events(source: Source, min_rating: float | None = None) -> Events:
    """All interactions of a source in file order.

    Strings become dictionary codes while they are read, so no more than a few blocks of them are ever in memory.

    Args:
        source: what is read.
        min_rating: events rated lower, or not rated, are left out; None keeps all.

    Raises:
        InputError: a column is missing, an id or a time is empty, a numeric id is negative, or no row is left.
    """
    rows = source.read_finely()
    try:
        schema = rows.collect_schema()
        columns = schema.names()
        for column in _LOG:
            _need_column(column, columns, source)
        rows = rows.with_columns(raw_id(name, schema[name].is_float()) for name in ("user_id", "item_id"))
        if schema["timestamp"] == pl.Date:
            rows = rows.with_columns(pl.col("timestamp").cast(pl.Datetime("us")))
        coded = rows.with_columns(pl.col("user_id", "item_id").cast(pl.Categorical), pl.col("timestamp").cast(pl.Int64))
        if min_rating is not None:
            _need_column("rating", columns, source)
            # To polars NaN is larger than any number.
            is_rated = pl.col("rating").cast(pl.Float64).is_not_nan()
            coded = coded.filter(is_rated & (pl.col("rating") >= min_rating))
        cut_off = [name for name in columns if name == "fraction"]
        table = coded.select(*_LOG, *cut_off).collect(engine="streaming")
    except pl.exceptions.PolarsError as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise InputError(
            f"{source.name} could not be read: {reason}. Repair the file or its column mapping."
        ) from error
    if table.is_empty():
        reason = "there are none" if min_rating is None else f"none is rated {min_rating} or higher"
        raise InputError(f"{source.name} has no interactions: {reason}. Check the file, or lower --min_rating.")
    for column in _LOG:
        _refuse_empty(table[column], source)
    times, parts = table["timestamp"].to_numpy(), 1
    if cut_off:
        times, parts = _in_parts(times, table["fraction"].to_numpy())
    users, user_ids = _encode(table["user_id"], source)
    items, item_ids = _encode(table["item_id"], source)
    return Events(users, items, times, user_ids, item_ids, parts)


def unit_of(times: Int[np.ndarray, "E"], source: Source) -> str:
    """The unit of clock readings since 1970: second, or from 10¹¹ on millisecond, 10¹⁴ microsecond, 10¹⁷ nanosecond.

    Where all lie below 10⁸ no clock was kept, and they are the ``position`` of each event in some order.

    Args:
        times: clock readings in any order.
        source: where they come from, for the message.

    Raises:
        InputError: the readings are of several units, or days written as one number (20240131).
    """
    sizes = times if times.min() >= 0 else np.abs(times)
    if sizes.max() < _FIRST_CLOCK:
        if _are_days(times):
            raise InputError(
                f"{source.name} has days written as one number in column timestamp, such as {times[0]}; write them as "
                "dates (2024-01-31) or as seconds since 1970."
            )
        return "position"
    unit, other = _unit_of(int(sizes.max())), _unit_of(int(sizes.min()))
    if unit != other:
        least = _UNITS[unit][0]
        count = int((sizes < least).sum())
        first = _first_row(source, pl.col("timestamp").abs() < least)
        raise InputError(
            f"{source.name} mixes units in column timestamp: {times[sizes.argmax()]} reads as {unit}s, "
            f"{times[sizes.argmin()]} as {other}s, and {count} of {len(times)} events are not in {unit}s, "
            f"the first in row {first}. Write all times in one unit."
        )
    return unit


def _are_days(times: Int[np.ndarray, "E"]) -> bool:
    """Whether every number reads as year, month and day."""
    years, months, days = times // 10_000, times // 100 % 100, times % 100
    return bool(((years >= 1900) & (years < 2100) & (months > 0) & (months < 13) & (days > 0) & (days < 32)).all())


def to_seconds(times: Int[np.ndarray, "E"], unit: str) -> Int[np.ndarray, "E"]:
    """Readings of a clock as whole seconds, rounded down."""
    per_second = _UNITS[unit][1]
    return times if per_second == 1 else times // per_second


def refuse_future(times: Int[np.ndarray, "E"], unit: str, latest: int, source: Source) -> None:
    """Raises ``InputError`` if a reading is later than the second ``latest``."""
    end = (latest + 1) * _UNITS[unit][1]
    if times.max() >= end:
        day = np.datetime64(int(to_seconds(times.max(keepdims=True), unit)[0]), "s").astype("datetime64[D]")
        first = _first_row(source, pl.col("timestamp") >= end)
        raise InputError(
            f"{source.name} has {int((times >= end).sum())} of {len(times)} times in the future, the first in row "
            f"{first}, the latest on {day}. Drop those rows, or check the unit of the column and this machine's clock."
        )


def _in_parts(times: Int[np.ndarray, "E"], billionths: Int[np.ndarray, "E"]) -> tuple[Int[np.ndarray, "E"], int]:
    """Readings with what was cut off them, in the fewest parts of a unit that tell them apart, and how many parts."""
    parts = next((parts for parts in (1, 10**3, 10**6) if not (billionths % (10**9 // parts)).any()), 10**9)
    while max(-int(times.min()), int(times.max()) + 1) * parts >= 2**63:
        parts //= 10**3  # the finest that 64 bits can hold
    return (times, 1) if parts <= 1 else (times * parts + billionths // (10**9 // parts), parts)


def _first_row(source: Source, wrong: pl.Expr) -> int:
    """The first row that is wrong, counted from 1 without a header; reads the source again."""
    found = source.read().with_row_index("row", offset=1).filter(wrong).select("row").head(1).collect()
    return found["row"][0]


def _unit_of(reading: int) -> str:
    return next(unit for unit, (least, _) in reversed(_UNITS.items()) if reading >= least)


def _need_column(column: str, columns: list[str], source: Source) -> None:
    if column not in columns:
        option = {"user_id": "user", "item_id": "item", "timestamp": "time"}.get(column, column)
        raise InputError(
            f"{source.name} has no column '{column}'; its interactions have {', '.join(columns)}. "
            f"Say which column holds it, for your own file with --{option}_column."
        )


def _refuse_empty(column: pl.Series, source: Source) -> None:
    if empty := column.null_count():
        first = _first_row(source, pl.col(column.name).is_null())
        what = "empty or unreadable times" if column.name == "timestamp" else "empty ids"
        raise InputError(
            f"{source.name} has {empty} {what} in column {column.name}, the first in row {first}. "
            "Fill in those cells or drop those rows."
        )


def _encode(column: pl.Series, source: Source) -> tuple[Int[np.ndarray, "E"], pl.Series]:
    """Places of a column of dictionary codes in its ids, sorted."""
    found = column.unique()
    table = pl.DataFrame({"id": found.cast(pl.String), "code": found.to_physical()}).sort("id")
    _refuse_odd_ids(table["id"], column.name, source)
    codes = table["code"].to_numpy()
    place = np.zeros(int(codes.max()) + 1, dtype=np.int32)
    place[codes] = np.arange(len(codes), dtype=np.int32)
    return place[column.to_physical().to_numpy()], table["id"].alias(column.name)


def _refuse_odd_ids(ids: pl.Series, name: str, source: Source) -> None:
    if (ids == "").any():
        raise InputError(
            f"{source.name} has ids that are empty texts in column {name}, the first in row "
            f"{_first_row(source, pl.col(name) == '')}. Fill in those cells or drop those rows."
        )
    negative = ids.filter(ids.str.starts_with("-"))
    if len(negative) and ids.str.contains(r"^-?\d+$").all():
        raise InputError(
            f"{source.name} holds numbers in column {name} and {len(negative)} of its ids are negative, such as "
            f"{negative[0]}, the first in row {_first_row(source, pl.col(name).str.starts_with('-'))}. "
            "Drop those rows, or give the ids a letter in front if they are real."
        )


def _renumber(codes: Int[np.ndarray, "E"], ids: pl.Series) -> tuple[Int[np.ndarray, "E"], pl.Series]:
    used = np.zeros(len(ids), dtype=bool)
    used[codes] = True
    if used.all():
        return codes, ids
    return (np.cumsum(used, dtype=np.int32) - 1).astype(np.int32)[codes], ids.filter(pl.Series(used))
