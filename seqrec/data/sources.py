"""Where logs come from: the original files of the public data sets, and anybody's own tables."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from seqrec.data import columns, raw
from seqrec.data.columns import Lines
from seqrec.data.errors import InputError, nearest

_JSON = (".json", ".jsonl", ".ndjson")
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

    def read_finely(self) -> pl.LazyFrame:
        """As ``read``; where the clock may be finer, fraction (Int32) holds the billionths cut off each timestamp."""
        return self.read().lazy()

    @abstractmethod
    def items(self) -> pl.LazyFrame | None:
        """What is known of the items: item_id and any of title, text, brand, price (String), categories (List(String)).

        ``None`` where the data set says nothing of them. Listed items need not occur in the log, nor the reverse.
        """


class FileSource(Source):
    """A source whose files may hold a clock that is finer than seconds."""

    @abstractmethod
    def read_finely(self) -> pl.LazyFrame: ...

    def read(self) -> pl.LazyFrame:
        return self.read_finely().drop("fraction", strict=False)


class Table(FileSource):
    """Your own table: CSV, TSV, Parquet or JSON lines; text may be gzipped, and folders may hold several Parquet files.

    Args:
        path: the file, or a folder with a file ``interactions.parquet`` (or .csv, .tsv, .jsonl, also .gz), with one
            table only, or with the Parquet parts of one.
        user: column of user ids; ids are read as strings, so '007' stays '007'.
        item: column of item ids.
        time: column of times: numbers (any unit), ISO dates, or dates of Parquet.
        rating: column of ratings, if any.
        items: table of the items; in a folder ``items.parquet`` (or .csv, …) is found by itself.
        item_id: its column of item ids; by default item_id or, where it has none, the one that is called as in the log.
        title: its column of titles.
        text: its column of descriptions or reviews.
        brand: its column of brands or makers.
        price: its column of prices, with their currency as far as it is known.
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
        item_id: str | None = None,
        title: str | None = None,
        text: str | None = None,
        brand: str | None = None,
        price: str | None = None,
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
        described = {"item_id": item_id, "title": title, "text": text, "categories": categories}
        described |= {"brand": brand, "price": price}
        self.item_mapping = {name: column for name, column in described.items() if column is not None}
        self.separator = separator
        self.category_separator = category_separator

    def read_finely(self) -> pl.LazyFrame:
        path = self.table
        if path is None:
            raise InputError(f"{self.path} has no interactions.parquet, .csv, .tsv or .jsonl; name the file itself.")
        table, lines = scan(path, list(self.mapping.values()), self.separator)
        return columns.log_columns(table, path, self.mapping, lines)

    @property
    def table(self) -> Path | None:
        """The file with the interactions, or the folder with its parts; None where a folder has neither."""
        return _within(self.path, "interactions")

    @property
    def items_file(self) -> Path | None:
        """The table of the items, named or found in the folder."""
        return self.items_path or (_within(self.path, "items") if self.path.is_dir() else None)

    def items(self) -> pl.LazyFrame | None:
        path = self.items_file
        if path is None:
            return None
        present = _names(path, ["item_id", *self.item_mapping.values()], self.separator)
        mapping = {"item_id": self.item_mapping.get("item_id") or self._id_among(present, path)} | self.item_mapping
        columns.require_columns(mapping.values(), present, path, "--title_column")
        table, _ = scan(path, list(mapping.values()), self.separator)
        schema = table.collect_schema()
        chosen = {name: pl.col(column) for name, column in mapping.items()}
        if "categories" in chosen and not schema[mapping["categories"]].is_nested():
            divided = split_list(chosen["categories"].cast(pl.String), self.category_separator)
            chosen["categories"] = pl.coalesce(_json_list(chosen["categories"]), divided) if _is_json(path) else divided
        types = {name: pl.List(pl.String) if name == "categories" else pl.String for name in chosen}
        chosen["item_id"] = columns.raw_id(mapping["item_id"], schema[mapping["item_id"]].is_float())
        return table.select(**{name: column.cast(types[name]) for name, column in chosen.items()})

    def _id_among(self, present: list[str], path: Path) -> str:
        """The column of item ids in the table of the items, where none was named."""
        for name in ("item_id", self.mapping["item_id"]):
            if name in present:
                return name
        free = [name for name in present if name not in self.item_mapping.values()]
        raise InputError(
            f"{path} has no column 'item_id' ({nearest('item_id', free or present)}), and a table of items needs their "
            "ids; rename the column that holds them to item_id."
        )


class CheckIns(FileSource):
    """Visits of places: Gowalla's ``Gowalla_totalCheckins.txt`` or Foursquare's ``dataset_TSMC2014_*.txt``.

    Source: Cho, Myers, Leskovec, KDD 2011 (Gowalla); Yang, Zhang, Zheng, Yu, IEEE TSMC 2015 (Foursquare).

    Args:
        path: the file (also gzipped), or a folder or zip that holds it.
        city: which of Foursquare's files to take when there are several: NYC or TKY.
    """

    def __init__(self, path: str | Path, city: str = "NYC") -> None:
        self.path = Path(path)
        self.patterns = [f"dataset_TSMC2014_{city}.txt*", "*otal*heckins.txt*", "*.txt*"]

    def read_finely(self) -> pl.LazyFrame:
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


class RetailRocket(FileSource):
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

    def read_finely(self) -> pl.LazyFrame:
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
    return scan_text(_text(path), path, wanted, separator)


def _text(path: Path) -> Path:
    if path.suffix == ".zip":
        raise InputError(f"{path} is a zip, and which table in it is meant is not known; unpack it and name the table.")
    return raw.text_file(path, [path.name])


def scan_text(text: Path, path: Path, wanted: list[str], separator: str | None = None) -> tuple[pl.LazyFrame, Lines]:
    """Lazily open a ``text`` that ``raw.text_file`` made of ``path``, which the messages name; see ``scan``."""
    if text.suffix in _JSON:
        columns.require_columns(wanted, raw.fields(text, path), path)
        return pl.scan_ndjson(text, schema=dict.fromkeys(wanted, pl.String)), Lines(text, 1)
    separator = separator or _separator(text)
    columns.require_columns(wanted, _header(text, path, wanted, separator), path)
    return pl.scan_csv(text, separator=separator, infer_schema=False), Lines(text, 2, separator)


def scan_bare(path: Path, separator: str, names: list[str]) -> tuple[pl.LazyFrame, Lines]:
    """Lazily open delimited text without header or quotes; its columns get these names."""
    schema = dict.fromkeys(names, pl.String)
    table = pl.scan_csv(path, separator=separator, has_header=False, quote_char=None, schema=schema)
    return table, Lines(path, 1, separator, is_quoted=False)


def _is_json(path: Path) -> bool:
    return path.name.removesuffix(".gz").endswith(_JSON)


def _json_list(text: pl.Expr) -> pl.Expr:
    """The trimmed parts of a cell that was a list in JSON, which is read as text; null for any other."""

    def parts(cell: str) -> list[str] | None:
        try:
            value = json.loads(cell) if cell.startswith("[") else None
        except json.JSONDecodeError:
            return None
        return [str(part).strip() for part in value if part is not None] if isinstance(value, list) else None

    return text.map_elements(parts, return_dtype=pl.List(pl.String), skip_nulls=True)


def split_list(text: pl.Expr, separator: str) -> pl.Expr:
    """The trimmed parts of a string; none for an empty one."""
    parts = text.fill_null("").str.split(separator).list.eval(pl.element().str.strip_chars())
    return parts.list.eval(pl.element().filter(pl.element() != ""))


def _names(path: Path, wanted: list[str], separator: str | None) -> list[str]:
    """The columns of a table that ``scan`` opens."""
    if path.suffix == ".parquet" or path.is_dir():
        return scan(path, [])[0].collect_schema().names()
    text = _text(path)
    if text.suffix in _JSON:
        return raw.fields(text, path)
    return _header(text, path, wanted, separator or _separator(text))


def _header(text: Path, path: Path, wanted: list[str], separator: str) -> list[str]:
    """The columns of delimited text, unless it has but one where more are wanted."""
    present = raw.header(text, separator, path)
    if len(present) == 1 and len(wanted) > 1:
        other = next((mark for mark in ";\t|," if mark in present[0]), None)
        if other is not None:
            shown = "$'\\t'" if other == "\t" else f"'{other}'"
            raise InputError(
                f"{path} has one column, '{present[0]}', when divided at {separator!r}; "
                f"give --separator {shown}, or in a card the separator of its source."
            )
    return present


def _separator(text: Path) -> str:
    return "\t" if text.suffix in (".tsv", ".tab") else ","


def _within(path: Path, stem: str) -> Path | None:
    """The table called ``stem`` in a folder; a file stands for itself."""
    if not path.is_dir():
        return path
    endings = (".parquet", ".csv", ".tsv", ".jsonl", ".csv.gz", ".tsv.gz", ".jsonl.gz")
    tables = [table for table in path.iterdir() if table.name.endswith(endings)]
    named = {table.name: table for table in tables}
    found = next((named[f"{stem}{end}"] for end in endings if f"{stem}{end}" in named), None)
    if found is not None or stem != "interactions":
        return found
    if len(tables) > 1 and all(table.suffix == ".parquet" and table.stem != "items" for table in tables):
        return path  # the parts of one table
    return tables[0] if len(tables) == 1 else None
