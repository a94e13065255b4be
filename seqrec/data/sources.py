"""Where logs come from: the original files of the public data sets, and anybody's own tables."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from seqrec.data import columns, raw
from seqrec.data.columns import Lines
from seqrec.data.errors import InputError, nearest

_CHECK_IN_COLUMNS = {
    5: ["user", "time", "latitude", "longitude", "place"],
    8: ["user", "place", "category id", "category", "latitude", "longitude", "minutes from UTC", "time"],
}


class Source(ABC):
    """A raw data set."""

    @property
    def name(self) -> str:
        """What messages call it: the path that is read, or the kind of source where none is."""
        return str(getattr(self, "path", type(self).__name__))

    @abstractmethod
    def read(self) -> pl.LazyFrame:
        """Every interaction in file order.

        Returns:
            user_id (String), item_id (String), timestamp (Int64; seconds since 1970 where the unit is known, else as
            in the file) and, where the file has one, rating (Float32).

        Raises:
            InputError: the files are missing, broken or lack a column.
        """

    @abstractmethod
    def items(self) -> pl.LazyFrame | None:
        """What is known of the items: item_id (String) and any of title, text (String), categories (List(String)).

        ``None`` where the data set says nothing of them. Listed items need not occur in the log, nor the reverse.
        """


class Table(Source):
    """Your own table: CSV, TSV, Parquet or JSON lines; text may be gzipped, and folders may hold several Parquet files.

    Args:
        path: the file, or a folder with a file ``interactions.parquet`` (or .csv, .tsv, .jsonl, also .gz) or with one
            table only.
        user: column of user ids; ids are read as strings, so '007' stays '007'.
        item: column of item ids.
        time: column of times: numbers (any unit), ISO dates, or dates of Parquet.
        rating: column of ratings, if any.
        items: table of the items; in a folder ``items.parquet`` (or .csv, …) is found by itself.
        item_id: its column of item ids.
        title: its column of titles.
        text: its column of descriptions or reviews.
        categories: its column of categories: a list, or a string divided by ``category_separator``.
        separator: what divides columns of text; by default a tab for .tsv and .tab, else a comma.
        category_separator: what divides categories within a string.
    """

    def __init__(
        self,
        path: str | Path,
        user: str = "user_id",
        item: str = "item_id",
        time: str = "timestamp",
        rating: str | None = None,
        items: str | Path | None = None,
        item_id: str = "item_id",
        title: str | None = None,
        text: str | None = None,
        categories: str | None = None,
        separator: str | None = None,
        category_separator: str = "|",
    ) -> None:
        if separator is not None and not (len(separator) == 1 and separator.isascii()):
            raise InputError(f"{path} cannot be divided at '{separator}'; give one ASCII character as separator.")
        self.path = Path(path)
        self.mapping = {"user_id": user, "item_id": item, "timestamp": time}
        if rating is not None:
            self.mapping["rating"] = rating
        self.items_path = Path(items) if items is not None else None
        self.item_mapping = {"item_id": item_id}
        for name, column in (("title", title), ("text", text), ("categories", categories)):
            if column is not None:
                self.item_mapping[name] = column
        self.separator = separator
        self.category_separator = category_separator

    def read(self) -> pl.LazyFrame:
        path = _within(self.path, "interactions")
        if path is None:
            raise InputError(f"{self.path} has no interactions.parquet, .csv, .tsv or .jsonl; name the file itself.")
        table, lines = scan(path, list(self.mapping.values()), self.separator)
        return columns.log_columns(table, path, self.mapping, lines)

    def items(self) -> pl.LazyFrame | None:
        path = self.items_path or (_within(self.path, "items") if self.path.is_dir() else None)
        if path is None:
            return None
        table, _ = scan(path, list(self.item_mapping.values()), self.separator)
        schema = table.collect_schema()
        columns.require_columns(self.item_mapping.values(), schema.names(), path)
        chosen = {name: pl.col(column) for name, column in self.item_mapping.items()}
        if "categories" in chosen and schema[self.item_mapping["categories"]] == pl.String:
            chosen["categories"] = split_list(chosen["categories"], self.category_separator)
        types = {name: pl.List(pl.String) if name == "categories" else pl.String for name in chosen}
        return table.select(**{name: column.cast(types[name]) for name, column in chosen.items()})


class CheckIns(Source):
    """Visits of places: Gowalla's ``Gowalla_totalCheckins.txt`` or Foursquare's ``dataset_TSMC2014_*.txt``.

    Source: Cho, Myers, Leskovec, KDD 2011 (Gowalla); Yang, Zhang, Zheng, Yu, IEEE TSMC 2015 (Foursquare).

    Args:
        path: the file (also gzipped), or a folder or zip that holds it.
        city: which of Foursquare's files to take when there are several: NYC or TKY.
    """

    def __init__(self, path: str | Path, city: str = "NYC") -> None:
        self.path = Path(path)
        self.patterns = [f"dataset_TSMC2014_{city}.txt*", "*otal*heckins.txt*", "*.txt*"]

    def read(self) -> pl.LazyFrame:
        mapping = {"user_id": "user", "item_id": "place", "timestamp": "time"}
        table, lines = self._scan()
        return columns.log_columns(table, self.path, mapping, lines)

    def items(self) -> pl.LazyFrame | None:
        table, _ = self._scan()
        if "category" not in table.collect_schema():
            return None
        named = table.select(item_id="place", title="category", categories=pl.concat_list("category"))
        return named.unique("item_id", keep="first", maintain_order=True)

    def _scan(self) -> tuple[pl.LazyFrame, Lines]:
        path = raw.text_file(self.path, self.patterns, encoding="latin-1")
        with path.open(encoding="utf-8") as file:
            width = file.readline().count("\t") + 1
        if width not in _CHECK_IN_COLUMNS:
            raise InputError(
                f"{self.path} has {width} columns where Gowalla's check-ins have 5 and Foursquare's 8; "
                "give the original file, or read it as a Table."
            )
        return scan_bare(path, "\t", _CHECK_IN_COLUMNS[width])


class RetailRocket(Source):
    """The shop events of RetailRocket (``events.csv``), times turned from milliseconds to seconds.

    Source: RetailRocket recommender system dataset, Kaggle, 2016.

    Args:
        path: the file (also gzipped), or a folder or zip that holds it.
        events: kinds of event to keep, of view, addtocart and transaction.
    """

    def __init__(self, path: str | Path, events: Sequence[str] = ("view", "addtocart", "transaction")) -> None:
        known = ("view", "addtocart", "transaction")
        for event in events:
            if event not in known:
                raise InputError(f"RetailRocket has no event '{event}' ({nearest(event, known)}); correct `events`.")
        self.path = Path(path)
        self.events = list(events)

    def read(self) -> pl.LazyFrame:
        text = raw.text_file(self.path, ["events.csv*"])
        table, lines = scan_text(text, self.path, ["visitorid", "itemid", "timestamp", "event"])
        mapping = {"user_id": "visitorid", "item_id": "itemid", "timestamp": "timestamp"}
        columns.log_columns(table, self.path, mapping, lines)
        kept = table.filter(pl.col("event").is_in(self.events))
        return columns.log_columns(kept, self.path, mapping, None, ticks_per_second=1000)

    def items(self) -> pl.LazyFrame | None:
        return None


def scan(path: Path, wanted: list[str], separator: str | None = None) -> tuple[pl.LazyFrame, Lines | None]:
    """Lazily open a table by its ending; text is read as strings, so that no id loses its zeros.

    Args:
        path: file ending in .parquet, .csv, .tsv, .tab, .txt, .json, .jsonl or .ndjson, text also with .gz.
        wanted: fields to take from JSON lines.
        separator: what divides columns of text.

    Returns:
        The table and where its rows stand (``None`` for Parquet, whose cells have types).
    """
    if path.suffix == ".parquet" or path.is_dir():
        try:
            table = pl.scan_parquet(path)
            table.collect_schema()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise InputError(f"{path} is not a readable Parquet file; write or download it again.") from error
        return table, None
    return scan_text(raw.text_file(path, [path.name]), path, wanted, separator)


def scan_text(text: Path, path: Path, wanted: list[str], separator: str | None = None) -> tuple[pl.LazyFrame, Lines]:
    """Lazily open a ``text`` that ``raw.text_file`` made of ``path``, which the messages name; see ``scan``."""
    if text.suffix in (".json", ".jsonl", ".ndjson"):
        columns.require_columns(wanted, raw.fields(text, path), path)
        return pl.scan_ndjson(text, schema=dict.fromkeys(wanted, pl.String)), Lines(text, 1)
    if separator is None:
        separator = "\t" if text.suffix in (".tsv", ".tab") else ","
    present = raw.header(text, separator, path)
    if len(present) == 1 and len(wanted) > 1:
        other = next((mark for mark in ";\t|," if mark in present[0]), None)
        if other is not None:
            shown = "$'\\t'" if other == "\t" else f"'{other}'"
            raise InputError(
                f"{path} has one column, '{present[0]}', when divided at {separator!r}; "
                f"give --separator {shown}, or in a card the separator of its source."
            )
    columns.require_columns(wanted, present, path)
    return pl.scan_csv(text, separator=separator, infer_schema=False), Lines(text, 2, separator)


def scan_bare(path: Path, separator: str, names: list[str]) -> tuple[pl.LazyFrame, Lines]:
    """Lazily open delimited text without header or quotes; its columns get these names."""
    schema = dict.fromkeys(names, pl.String)
    table = pl.scan_csv(path, separator=separator, has_header=False, quote_char=None, schema=schema)
    return table, Lines(path, 1, separator, is_quoted=False)


def split_list(text: pl.Expr, separator: str) -> pl.Expr:
    """The trimmed parts of a string; none for an empty one."""
    parts = text.fill_null("").str.split(separator).list.eval(pl.element().str.strip_chars())
    return parts.list.eval(pl.element().filter(pl.element() != ""))


def _within(path: Path, stem: str) -> Path | None:
    """The table called ``stem`` in a folder; a file stands for itself."""
    if not path.is_dir():
        return path
    endings = (".parquet", ".csv", ".tsv", ".jsonl", ".csv.gz", ".tsv.gz", ".jsonl.gz")
    tables = [table for table in path.iterdir() if table.name.endswith(endings)]
    named = {table.name: table for table in tables}
    found = next((named[f"{stem}{end}"] for end in endings if f"{stem}{end}" in named), None)
    return tables[0] if found is None and stem == "interactions" and len(tables) == 1 else found
