"""Columns of any raw table turned into those of a log, with every cell that cannot be used named by its line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from seqrec.data import raw
from seqrec.data.errors import InputError, nearest

_DATE_FORMATS = (
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%d %H:%M:%S%.f%#z",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%d %H:%M%#z",
    "%Y%m%d %H%M%S",
    "%Y%m%d %H%M%S%#z",
    "%Y-%m-%d",
)
_LONG_DATE_FORMAT = "%a %b %d %H:%M:%S %z %Y"
_BILLION = 10**9
_REMEDIES = {
    "user_id": "give every row a user id",
    "item_id": "give every row an item id",
    "timestamp": "write every time as whole seconds, or every time as an ISO date",
    "rating": "write the rating as a number, or leave it empty",
}


@dataclass(frozen=True)
class Lines:
    """The text that a table was read from, so that a message can name the line.

    Attributes:
        text: the unpacked file.
        first: line of the first row.
        separator: what divides its columns; ``None`` where no row can have too many.
        is_quoted: whether quotation marks are taken off its cells.
    """

    text: Path
    first: int
    separator: str | None = None
    is_quoted: bool = True


def log_columns(
    table: pl.LazyFrame, path: Path, mapping: Mapping[str, str], lines: Lines | None, ticks_per_second: int = 1
) -> pl.LazyFrame:
    """Name and type the columns of a log, rows in file order.

    Args:
        table: the raw table.
        path: where it came from, for the messages.
        mapping: raw column of each of user_id, item_id, timestamp and, if there are any, rating.
        lines: where the rows stand; ``None`` skips the look at every cell (typed files).
        ticks_per_second: 1,000 where the file is known to count milliseconds.

    Returns:
        the mapped columns and, unless times are whole numbers by their type, fraction (Int32): the billionths that are
        cut off each timestamp.

    Raises:
        InputError: a column is missing, or a cell cannot be used.
    """
    schema = table.collect_schema()
    require_columns(mapping.values(), schema.names(), path)
    for column in mapping.values():
        if schema[column].is_nested():
            raise InputError(
                f"{path} has more than one value per cell in column '{column}' ({schema[column]}); "
                "write one row per interaction, with a text or a number in every cell."
            )
    columns: dict[str, pl.Expr] = {}
    for name in ("user_id", "item_id"):
        columns[name] = raw_id(mapping[name], schema[mapping[name]].is_float())
    needed = {name: column.fill_null("") != "" for name, column in columns.items()}
    columns["timestamp"], fraction = _clock(table, mapping["timestamp"], path, lines)
    if ticks_per_second > 1:
        rest = columns["timestamp"] % ticks_per_second * _BILLION
        fraction = (rest if fraction is None else rest + fraction) // ticks_per_second
        columns["timestamp"] //= ticks_per_second
    needed["timestamp"] = columns["timestamp"].is_not_null()
    if "rating" in mapping:
        rating = pl.col(mapping["rating"])
        is_text = schema[mapping["rating"]] == pl.String
        columns["rating"] = (rating.replace("", None) if is_text else rating).cast(pl.Float32, strict=False)
        needed["rating"] = columns["rating"].is_not_null() | (rating.cast(pl.String).fill_null("") == "")
    if lines is not None:
        _refuse_unusable_cells(table, path, mapping, needed, lines)
    if fraction is not None:
        columns["fraction"] = fraction.cast(pl.Int32)
    return table.select(**columns)


def require_columns(wanted: Iterable[str], present: list[str], path: Path, option: str = "--item_column") -> None:
    """Raise ``InputError`` for the first wanted column that the table does not have; ``option`` names such a column."""
    wanted = list(wanted)
    for name in wanted:
        if name not in present:
            free = [column for column in present if column not in wanted]
            raise InputError(
                f"{path} has no column '{name}' ({nearest(name, free or present)}); name the right one with an option "
                f"such as {option}, or in the card."
            )


def _clock(table: pl.LazyFrame, column: str, path: Path, lines: Lines | None) -> tuple[pl.Expr, pl.Expr | None]:
    """Readings of the clock (dates in seconds), rounded down, and the billionths cut off them, if there can be any."""
    kind, time = table.collect_schema()[column], pl.col(column)
    if kind == pl.String:
        time = time.str.strip_chars()
    if kind.is_temporal():
        date = time if kind == pl.Datetime else time.cast(pl.Datetime("us"))
        return date.cast(pl.Datetime("us")).dt.epoch("s"), date.dt.nanosecond()
    whole, real = time.cast(pl.Int64, strict=False), time.cast(pl.Float64, strict=False)
    if kind.is_integer():
        return whole, None
    below = ((real - real.floor()) * _BILLION).cast(pl.Int32, strict=False).fill_null(0)
    if kind != pl.String:
        return real.floor().cast(pl.Int64, strict=False), below
    with _refusing_broken_rows(path, lines):
        sample = table.filter(time.fill_null("") != "").head(1).select(real).collect()
    if sample[column].null_count() == 0:
        below = pl.when(whole.is_null()).then(below).otherwise(0)
        return pl.coalesce(whole, real.floor().cast(pl.Int64, strict=False)), below
    text = time.str.replace(r"(\d)T(\d)", "$1 $2")
    seconds = pl.coalesce(
        *(_epoch(text, form) for form in _DATE_FORMATS),
        _epoch(time, _LONG_DATE_FORMAT),
    )
    return seconds, time.str.extract(r"\.(\d{1,9})").str.pad_end(9, "0").cast(pl.Int32).fill_null(0)


def _epoch(text: pl.Expr, form: str) -> pl.Expr:
    return text.str.to_datetime(form, time_unit="us", strict=False).dt.epoch("s")


@contextmanager
def _refusing_broken_rows(path: Path, lines: Lines | None) -> Iterator[None]:
    """Turn what the reader says of a malformed row into an ``InputError`` with its line."""
    try:
        yield
    except pl.exceptions.PolarsError as error:
        reason = str(error).strip().split("\n")[0]
        found = raw.fault(lines.text, lines.separator, lines.is_quoted) if lines and lines.separator else None
        raise InputError(f"{path} has {found or f'a malformed row ({reason}); repair that row'}.") from error


def _refuse_unusable_cells(
    table: pl.LazyFrame, path: Path, mapping: Mapping[str, str], usable: Mapping[str, pl.Expr], lines: Lines
) -> None:
    cells = {f"raw {name}": pl.col(mapping[name]).cast(pl.String) for name in usable}
    checked = table.select(**usable, **cells).with_row_index("row")
    with _refusing_broken_rows(path, lines):
        bad = checked.filter(~pl.all_horizontal(*usable)).head(1).collect(engine="streaming")
        if bad.is_empty() and table.head(1).collect().is_empty():
            raise InputError(f"{path} holds no rows; give a file with at least one interaction.")
    for row in bad.iter_rows(named=True):
        name = next(name for name in usable if not row[name])
        cell = row[f"raw {name}"]
        found = f"no {name}" if cell in (None, "") else f"'{cell}', which is no {name},"
        raise InputError(
            f"{path} has {found} in column '{mapping[name]}' at line {row['row'] + lines.first}; {_REMEDIES[name]}."
        )


def raw_id(column: str, is_float: bool) -> pl.Expr:
    """Ids of a column as text. Whole numbers that became floats, as a gap among them makes them, are whole again."""
    ids = pl.col(column)
    if not is_float:
        return ids.cast(pl.String)
    whole = ids.cast(pl.Int64, strict=False)
    named = pl.when(whole == ids).then(whole.cast(pl.String)).otherwise(ids.fill_nan(None).cast(pl.String))
    return named.alias(column)
