"""Histories of raw ids from a Parquet file, part by part, and the Parquet file of their answers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from seqrec.catalog import Catalog
from seqrec.data.errors import InputError, nearest
from seqrec.recommenders.base import TopK

LATEST = 4_102_444_800  # 1 January 2100, in seconds since 1970
_USERS_PER_PART = 8192
_EVENTS_PER_PASS = 4_000_000


class HistoryFile:
    """A file of histories, iterated as tables of ``user_id`` and ``item_id`` (List of String, oldest first).

    Memory stays bounded: a file with one line per user is read in slices; one with a line per event is read several
    times if it is large, each time for a share of the users.

    Args:
        path: Parquet file with the columns ``user_id`` and ``item_id``; ``item_id`` is a list, or there is one line per
            event, ordered by ``timestamp`` where that column exists (ties in file order) and by line where not.
        with_times: whether the tables have a third column ``timestamp`` (List of Int64, seconds since 1970), which the
            file must then have, as whole seconds or as dates.

    Attributes:
        nobody: an empty series of user ids, of the type that the file has.
        n_users: how many users the file has.

    Raises:
        InputError: the file is missing, is no Parquet, or lacks a column; or (when iterated) an event lacks its time.
    """

    def __init__(self, path: Path, with_times: bool = False) -> None:
        if not path.is_file():
            raise InputError(f"{path} does not exist; give a Parquet file with the columns user_id and item_id.")
        self._path = path
        try:
            self._table = pl.scan_parquet(path)
            self._types = self._table.collect_schema()
        except pl.exceptions.PolarsError as error:
            raise InputError(f"{path} is not a Parquet file that can be read ({error}).") from error
        arrays = [name for name, kind in self._types.items() if isinstance(kind, pl.Array)]
        if arrays:
            self._table = self._table.with_columns(pl.col(name).arr.to_list() for name in arrays)
            self._types = self._table.collect_schema()
        self._columns = ["item_id", "timestamp"] if with_times else ["item_id"]
        for column in ("user_id", *self._columns):
            if column not in self._types:
                raise InputError(f"{path} has no column {column}, {nearest(column, self._types.names())}; rename it.")
        item: Any = self._types["item_id"].inner if self._one_line_per_user else self._types["item_id"]  # type: ignore[attr-defined]
        if item.is_nested() or item == pl.Binary:
            raise InputError(f"{path} has ids of the type {item} in the column item_id; write texts or whole numbers.")
        self._is_ordered = not self._one_line_per_user and "timestamp" in self._types
        if with_times or self._is_ordered:
            kind: Any = self._types["timestamp"]
            if self._one_line_per_user:
                kind = kind.inner if isinstance(kind, pl.List) else pl.Null()
            self._dated = isinstance(kind, (pl.Date, pl.Datetime))
            if not (self._dated or kind.is_integer()):
                raise InputError(
                    f"{path} has the type {self._types['timestamp']} in the column timestamp; give whole seconds since "
                    "1970 or dates, in a list where item_id is one."
                )
        self.nobody = pl.Series("user_id", [], dtype=self._types["user_id"])
        users = pl.len() if self._one_line_per_user else pl.col("user_id").n_unique()
        is_event = pl.col("item_id").is_not_null()
        timeless = is_event & pl.col("timestamp").is_null() if self._is_ordered else pl.lit(False)
        counts = self._table.select(lines=pl.len(), users=users, timeless=timeless.any()).collect()
        self._n_lines, self.n_users, is_timeless = counts.row(0)
        if is_timeless:
            raise InputError(f"{path} has an event without a time; give every one its timestamp, or leave it out.")

    def __len__(self) -> int:
        """About how many parts there are, for a progress bar."""
        return -(-self.n_users // _USERS_PER_PART)

    def __iter__(self) -> Iterator[pl.DataFrame]:
        for histories in self._slices() if self._one_line_per_user else self._groups():
            if "timestamp" in histories and histories["timestamp"].list.eval(pl.element().is_null()).list.any().any():
                raise InputError(
                    f"{self._path} has an event without a time; give every one its timestamp, or leave it out."
                )
            yield from histories.iter_slices(_USERS_PER_PART)

    @property
    def _one_line_per_user(self) -> bool:
        return isinstance(self._types["item_id"], pl.List)

    def _seconds(self, times: pl.Expr) -> pl.Expr:
        return times.dt.epoch("s") if self._dated else times.cast(pl.Int64)

    def _slices(self) -> Iterator[pl.DataFrame]:
        kept = pl.col("item_id").list.eval(pl.element().is_not_null().arg_true())
        lists = [pl.col("item_id").cast(pl.List(pl.String)).list.gather(kept)]
        lists += [pl.col(each).list.eval(self._seconds(pl.element())).list.gather(kept) for each in self._columns[1:]]
        for start in range(0, self._n_lines, _USERS_PER_PART):
            part = self._table.slice(start, _USERS_PER_PART).select("user_id", pl.col(self._columns).fill_null([]))
            part = part.collect(engine="streaming")
            uneven = part.filter(pl.col("item_id").list.len() != pl.col(self._columns[-1]).list.len())
            for user, items, times in uneven.iter_rows():
                raise InputError(
                    f"{self._path} has {len(items)} items and {len(times)} times for '{user}'; give one time for each."
                )
            yield part.select("user_id", *lists)

    def _groups(self) -> Iterator[pl.DataFrame]:
        n_passes = -(-self._n_lines // _EVENTS_PER_PASS)
        events = self._table.filter(pl.col("item_id").is_not_null())
        for share in range(n_passes):
            chosen = events.filter(pl.col("user_id").hash(0) % n_passes == share)
            if self._is_ordered:
                chosen = chosen.sort("timestamp", maintain_order=True)
            lists = [pl.col("item_id").cast(pl.String), *(self._seconds(pl.col(each)) for each in self._columns[1:])]
            yield chosen.group_by("user_id", maintain_order=True).agg(lists).collect()


@contextmanager
def answers_file(path: Path, nobody: pl.Series) -> Iterator[Callable[[pl.Series, Catalog, TopK], None]]:
    """A function that appends the answers for some users; the file appears whole when the block ends without an error.

    Args:
        path: the file to write.
        nobody: an empty series of user ids, for their type.

    Columns: ``user_id`` · ``rank`` (0 is best) · ``item_id`` · ``title`` · ``score``.
    """
    types = {"user_id": nobody.dtype, "rank": pl.Int32, "item_id": pl.String, "title": pl.String, "score": pl.Float32}
    schema = pl.DataFrame(schema=types).to_arrow().schema
    fresh = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with pq.ParquetWriter(fresh, schema, compression="zstd") as file:

            def write(users: pl.Series, catalog: Catalog, best: TopK) -> None:
                file.write_table(_answers(users, catalog, best).cast(types).to_arrow().cast(schema))  # type: ignore[arg-type]

            yield write
        fresh.replace(path)
    except OSError as error:
        raise InputError(f"{path} could not be written ({error.strerror or error}); choose another --out.") from error
    finally:
        fresh.unlink(missing_ok=True)


def _answers(users: pl.Series, catalog: Catalog, best: TopK) -> pl.DataFrame:
    k = best.items.shape[1]
    places = pl.int_range(len(users) * k, eager=True)
    rows = pl.Series("row", best.items.flatten().numpy())
    answers = pl.DataFrame(
        {
            "user_id": users.gather(places // k),
            "rank": places % k,
            "row": rows,
            "score": best.scores.flatten().numpy(),
        }
    ).filter(pl.col("row") >= 0)
    return answers.select(
        "user_id",
        "rank",
        catalog.ids.gather(answers["row"]).alias("item_id"),
        catalog.titles.gather(answers["row"]).alias("title"),
        "score",
    )
