"""All N items: rows 0 … N-1, their raw ids, texts and counts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Int


class Catalog:
    """The items of a data set; everything below the surface speaks of them by row.

    Args:
        table: one line per item, in row order, with the columns ``item_id`` (String, unique) and ``count`` (how often
            the item occurs in training), and, where known, ``title`` (String), ``text`` (String) and
            ``categories`` (List of String).
    """

    def __init__(self, table: pl.DataFrame) -> None:
        missing = {"item_id", "count"} - set(table.columns)
        if missing:
            raise ValueError(f"A catalog needs the columns item_id and count; {sorted(missing)} is missing.")
        self.table = table

    def __len__(self) -> int:
        return self.table.height

    @property
    def ids(self) -> pl.Series:
        """Raw ids in row order."""
        return self.table["item_id"]

    @property
    def counts(self) -> Int[np.ndarray, "N"]:
        """How often each item occurs in training."""
        return self.table["count"].to_numpy()

    @property
    def titles(self) -> pl.Series:
        """A name for each item that a person can read: its title, or its raw id where it has none."""
        if "title" not in self.table.columns:
            return self.ids.alias("title")
        return self.table.select(pl.coalesce("title", "item_id").alias("title"))["title"]

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {raw: row for row, raw in enumerate(self.ids)}

    def rows(self, raw_ids: Iterable[str | int]) -> tuple[list[int], list[str]]:
        """Rows of the known ids, in order, and the ids that are not in the catalog; a whole number is its digits."""
        known, unknown = [], []
        for raw in map(str, raw_ids):
            row = self._row_of.get(raw)
            if row is None:
                unknown.append(raw)
            else:
                known.append(row)
        return known, unknown

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the raw ids in row order: two catalogs with the same one number their items alike."""
        digest = hashlib.sha256()
        for raw in self.ids:
            encoded = raw.encode()
            digest.update(len(encoded).to_bytes(4, "little") + encoded)
        return digest.hexdigest()

    def with_counts(self, counts: Int[np.ndarray, "N"]) -> Catalog:
        """The same items with other counts, say those of the training part alone."""
        return Catalog(self.table.with_columns(pl.Series("count", counts, dtype=pl.Int64)))

    def save(self, path: Path) -> None:
        self.table.write_parquet(path)

    @classmethod
    def load(cls, path: Path) -> Catalog:
        return cls(pl.read_parquet(path))
