"""Ratings and reviews as their publishers wrote them: MovieLens, Amazon and Yelp."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import polars as pl

from seqrec.data import columns, raw
from seqrec.data.columns import Lines
from seqrec.data.errors import InputError
from seqrec.data.sources import FileSource, scan_bare, scan_text, split_list

_ITEM_SCHEMA = {"item_id": pl.String, "title": pl.String, "text": pl.String, "categories": pl.List(pl.String)}
_ITEM_SCHEMA |= {"brand": pl.String, "price": pl.String}
_RATING = ["user_id", "item_id", "rating", "timestamp"]
_GENRES_OF_100K = (
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama"),
    *("Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)


class MovieLens(FileSource):
    """A MovieLens release in its original files: 100K, 1M, or any with CSV (latest, 20M, 25M, 32M).

    Source: Harper, Konstan, "The MovieLens Datasets: History and Context", ACM TiiS 2015.

    Args:
        path: the release's zip, its unpacked folder, or the ratings file alone (then there are no items).
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def read_finely(self) -> pl.LazyFrame:
        name = raw.find(self.path, ["ratings.csv", "ratings.csv.gz", "ratings.dat", "u.data"])
        ending = Path((name or "").removesuffix(".gz")).suffix
        if name is None or ending not in (".csv", ".dat", ".data"):
            raise InputError(
                f"{self.path} has no ratings.csv, ratings.dat or u.data; give the zip or folder of a release."
            )
        path = raw.text_file(self.path, [Path(name).name])
        if ending == ".csv":
            mapping = {"user_id": "userId", "item_id": "movieId", "timestamp": "timestamp", "rating": "rating"}
            table, lines = scan_text(path, self.path, list(mapping.values()))
            return columns.log_columns(table, self.path, mapping, lines)
        table, lines = scan_bare(path, "\t", _RATING) if ending == ".data" else _scan_double_colons(path, _RATING)
        return columns.log_columns(table, self.path, {name: name for name in _RATING}, lines)

    def items(self) -> pl.LazyFrame | None:
        name = raw.find(self.path, ["movies.csv", "movies.dat", "u.item"])
        ending = Path(name or "").name
        if ending == "movies.csv":
            table, _ = scan_text(raw.text_file(self.path, [ending]), self.path, ["movieId", "title", "genres"])
            genres = split_list(pl.col("genres").replace("(no genres listed)", ""), "|")
            return table.select(item_id="movieId", title="title", categories=genres)
        if ending == "movies.dat":
            text = raw.text_file(self.path, [ending], encoding="latin-1")
            table, _ = _scan_double_colons(text, ["item_id", "title", "genres"])
            return table.select("item_id", "title", categories=split_list(pl.col("genres"), "|"))
        if ending == "u.item":
            text = raw.text_file(self.path, [ending], encoding="latin-1")
            table, _ = scan_bare(text, "|", ["item_id", "title", "date", "video date", "address", *_GENRES_OF_100K])
            flags = [pl.when(pl.col(genre) == "1").then(pl.lit(genre)) for genre in _GENRES_OF_100K]
            return table.select("item_id", "title", categories=pl.concat_list(flags).list.drop_nulls())
        return None


class AmazonReviews(FileSource):
    """Reviews of one category of the Amazon data of 2014, 2018 (JSON lines) or 2023 (CSV or JSON lines).

    Source: He, McAuley, WWW 2016 (2014); Ni, Li, McAuley, EMNLP 2019 (2018); Hou et al., 2024 (2023). An item of 2023
    is a ``parent_asin``; the milliseconds of 2023 are turned into seconds.

    Args:
        path: the reviews, also gzipped; a folder or zip with one such file will do.
        meta: the category's ``meta_*`` file; in a folder it is found by itself.
    """

    def __init__(self, path: str | Path, meta: str | Path | None = None) -> None:
        self.path = Path(path)
        self.meta = Path(meta) if meta is not None else self.path if self.path.is_dir() else None

    def read_finely(self) -> pl.LazyFrame:
        patterns = [f"[!m]*.{end}*" for end in ("json", "jsonl", "csv")]
        raw.find_only(self.path, patterns)
        text = raw.text_file(self.path, patterns)
        present = raw.header(text, ",", self.path) if text.suffix == ".csv" else raw.fields(text, self.path)
        if "reviewerID" in present:
            mapping = {"user_id": "reviewerID", "item_id": "asin", "timestamp": "unixReviewTime", "rating": "overall"}
        else:
            mapping = {"user_id": "user_id", "item_id": "parent_asin", "timestamp": "timestamp", "rating": "rating"}
        table, lines = scan_text(text, self.path, list(mapping.values()))
        ticks = 1 if "reviewerID" in present else 1000
        return columns.log_columns(table, self.path, mapping, lines, ticks_per_second=ticks)

    def items(self) -> pl.LazyFrame | None:
        if self.meta is None or raw.find_only(self.meta, ["meta_*"]) is None:
            return None
        text = raw.text_file(self.meta, ["meta_*"])
        rows = pl.scan_ndjson(raw.rewritten(text, self.meta, _amazon_item), schema=_ITEM_SCHEMA)
        return rows.filter(pl.col("item_id") != "").unique("item_id", keep="first", maintain_order=True)


class Yelp(FileSource):
    """Reviews of the Yelp Open Dataset, in JSON lines.

    Source: https://business.yelp.com/data/resources/open-dataset/

    Args:
        path: folder or zip with ``yelp_academic_dataset_review.json`` and, for the items, ``…_business.json``; or the
            reviews alone.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def read_finely(self) -> pl.LazyFrame:
        path = raw.text_file(self.path, ["*review.json*"])
        mapping = {"user_id": "user_id", "item_id": "business_id", "timestamp": "date", "rating": "stars"}
        table, lines = scan_text(path, self.path, list(mapping.values()))
        return columns.log_columns(table, self.path, mapping, lines)

    def items(self) -> pl.LazyFrame | None:
        patterns = ["*business.json*"]
        if not (self.path.is_dir() or self.path.suffix == ".zip") or raw.find(self.path, patterns) is None:
            return None
        path = raw.text_file(self.path, patterns)
        table, _ = scan_text(path, self.path, ["business_id", "name", "categories"])
        return table.select(item_id="business_id", title="name", categories=split_list(pl.col("categories"), ","))


def _scan_double_colons(path: Path, names: list[str]) -> tuple[pl.LazyFrame, Lines]:
    """A table whose columns are divided by '::', which no reader of delimited text knows."""
    whole = scan_bare(path, "\x01", ["line"])[0].select(pl.col("line").str.strip_chars_end("\r"))
    parts = pl.col("line").str.splitn("::", len(names)).struct.rename_fields(names)
    return whole.select(parts.alias("parts")).unnest("parts"), Lines(path, 1)


def _amazon_item(meta: dict[str, Any]) -> dict[str, Any]:
    """An item of any release: 2014 nests its categories, 2018 calls them category, 2023 has features beside a text and
    calls the brand the store. A price of digits alone is in dollars."""
    price = meta.get("price")
    text = [*_flat(meta.get("features") or meta.get("feature")), *_flat(meta.get("description"))]
    return {
        "item_id": str(meta.get("parent_asin") or meta.get("asin") or ""),
        "title": html.unescape(str(meta.get("title") or "")) or None,
        "text": " ".join(text) or None,
        "brand": " ".join(_flat(meta.get("brand") or meta.get("store"))) or None,
        "price": f"${price}" if str(price).replace(".", "", 1).isdigit() else str(price or "") or None,
        "categories": list(dict.fromkeys(_flat(meta.get("categories") or meta.get("category")))),
    }


def _flat(value: Any) -> list[str]:
    """The strings in a string or in lists of lists."""
    if isinstance(value, list):
        return [text for part in value for text in _flat(part)]
    return [html.unescape(value)] if isinstance(value, str) and value else []
