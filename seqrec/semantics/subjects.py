"""What is described and embedded, an item or the beginning of a history, and what may be said of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from functools import cached_property
from typing import ClassVar

import numpy as np
import polars as pl
from jaxtyping import Int

from seqrec.catalog import Catalog

_UNKNOWN = "not given"
_DESCRIPTION = 500  # characters of an item's text that a prompt quotes
_QUOTED = 11  # newest titles of a quoted history
_NAMED_CATEGORIES = 3


class Subjects(ABC):
    """V things with raw ids, each of which is some events of a log.

    Attributes:
        kind: items or histories.
        catalog: all items, with their training counts.
        ids: one line per subject, see ``seqrec.semantics.vectors.Vectors``.
    """

    kind: ClassVar[str]

    def __init__(self, catalog: Catalog, ids: pl.DataFrame) -> None:
        self.catalog = catalog
        self.ids = ids

    def __len__(self) -> int:
        return self.ids.height

    @abstractmethod
    def facts(self, row: int) -> dict[str, str]:
        """What a prompt may say of a subject, by the names of its places."""

    @abstractmethod
    def summary(self, row: int) -> str:
        """A text on a subject, put together without a language model."""

    @abstractmethod
    def newest(self, count: int) -> tuple[Int[np.ndarray, "T"], Int[np.ndarray, "V"]]:
        """Catalog rows of the newest ``count`` items of each subject, end to end, and where those of each begin."""

    def summaries(self) -> list[str]:
        return [self.summary(row) for row in range(len(self))]

    @cached_property
    def names(self) -> list[str]:
        """What each item of the catalog is called on one line: its title, else its categories, else its raw id."""
        return [
            title or categories or f"item {raw}"
            for title, categories, raw in zip(self._column("title"), self._categories, self.catalog.ids, strict=True)
        ]

    @property
    def has_words(self) -> bool:
        """Whether any item is called something else than its raw id."""
        return any(self._column("title")) or any(self._categories)

    @cached_property
    def _categories(self) -> list[str]:
        return [", ".join(each) for each in self._lists]

    @cached_property
    def _lists(self) -> list[list[str]]:
        if "categories" not in self.catalog.table.columns:
            return [[]] * len(self.catalog)
        table = self.catalog.table
        return [[" ".join(name.split()) for name in each or [] if name] for each in table["categories"].to_list()]

    def _column(self, name: str) -> list[str]:
        """A column of the catalog on one line per item, empty where nothing is known."""
        if name not in self.catalog.table.columns:
            return [""] * len(self.catalog)
        cells = self.catalog.table[name]
        cells = cells.fill_nan(None) if cells.dtype.is_float() else cells
        return [" ".join(str(cell).split()) if cell is not None else "" for cell in cells]


class Items(Subjects):
    """The first items of a catalog, each with histories that ended in it.

    A text is the title and the categories. A prompt gets title, brand, categories, price and the first 500 characters
    of the description, as far as the catalog has them, and histories. Differs from SRA-CL's code: all categories are
    told, not only those below the second level, because catalogs keep them as one list; no sales rank is told, because
    it is of a later time than the training.

    Args:
        catalog: the items.
        events: catalog rows of all events that may be quoted, user after user, oldest first.
        offsets: user ``u`` owns events ``offsets[u]`` up to ``offsets[u + 1]``.
        n_quotes: most histories that are told of an item, at least 0: the first in the order of the events that hold
            more than it.
        limit: how many items, all by default.
    """

    kind = "items"

    def __init__(
        self,
        catalog: Catalog,
        events: Int[np.ndarray, "T"],
        offsets: Int[np.ndarray, "bounds"],
        n_quotes: int = 5,
        limit: int | None = None,
    ) -> None:
        super().__init__(catalog, catalog.table.select(pl.col("item_id").cast(pl.String)).head(limit or len(catalog)))
        if n_quotes < 0:
            raise ValueError(f"quotes is {n_quotes}; quote at least 0 histories of an item, e.g. 5.")
        self.events = events
        starts = np.repeat(offsets[:-1], np.diff(offsets))
        at = np.flatnonzero(np.arange(len(events)) > starts)
        at = at[np.argsort(events[at], kind="stable")]
        bounds = np.searchsorted(events[at], np.arange(len(catalog) + 1))
        ends = np.minimum(bounds[:-1] + n_quotes, bounds[1:])
        self._quotes = [
            [(max(int(starts[end]), int(end) + 1 - _QUOTED), int(end) + 1) for end in at[first:last]]
            for first, last in zip(bounds[:-1], ends, strict=True)
        ]

    def facts(self, row: int) -> dict[str, str]:
        quotes = [" >> ".join(self.names[item] for item in self.events[a:b]) for a, b in self._quotes[row]]
        known = {name: self._facts[name][row] for name in ("title", "brand", "price")}
        known |= {"categories": self._categories[row], "description": self._facts["text"][row][:_DESCRIPTION]}
        return {name: value or _UNKNOWN for name, value in known.items()} | {"histories": "\n".join(quotes) or "none"}

    @cached_property
    def _facts(self) -> dict[str, list[str]]:
        return {name: self._column(name) for name in ("title", "brand", "price", "text")}

    def summary(self, row: int) -> str:
        return ". ".join(filter(None, (self._facts["title"][row], self._categories[row]))) or self.names[row]

    def newest(self, count: int) -> tuple[Int[np.ndarray, "T"], Int[np.ndarray, "V"]]:
        return np.arange(len(self)), np.arange(len(self))


class Histories(Subjects):
    """Beginnings of histories, of which the newest events are told.

    A text is the commonest categories, then the titles, newest first, because an encoder that cuts a text cuts its end.
    A prompt gets the titles, oldest first.

    Args:
        catalog: the items.
        events: catalog rows of the events of a log.
        starts: where the first event of each subject stands.
        ends: where the first event that it does not read stands.
        ids: ``user_id`` and ``n_events``, which is ``ends - starts``.
        window: most events that are told, the newest ones, at least 1.
    """

    kind = "histories"

    def __init__(
        self,
        catalog: Catalog,
        events: Int[np.ndarray, "E"],
        starts: Int[np.ndarray, "V"],
        ends: Int[np.ndarray, "V"],
        ids: pl.DataFrame,
        window: int = 20,
    ) -> None:
        super().__init__(catalog, ids)
        if window < 1:
            raise ValueError(f"window is {window}; tell at least 1 event of a history, e.g. 20.")
        self.events = events
        self.starts = starts
        self.ends = ends
        self.window = window

    def facts(self, row: int) -> dict[str, str]:
        return {"history": "\n".join(f"- {self.names[item]}" for item in self._told(row))}

    def summary(self, row: int) -> str:
        told = self._told(row)
        common = Counter(name for item in told for name in self._lists[item]).most_common(_NAMED_CATEGORIES)
        mostly = f"Mostly {', '.join(name for name, _ in common)}. " if common else ""
        return f"{mostly}Chosen, newest first: {'; '.join(self.names[item] for item in reversed(told))}"

    def newest(self, count: int) -> tuple[Int[np.ndarray, "T"], Int[np.ndarray, "V"]]:
        starts = np.maximum(self.starts, self.ends - count)
        lengths = self.ends - starts
        first = np.cumsum(lengths) - lengths
        at = np.arange(lengths.sum()) + np.repeat(starts - first, lengths)
        return self.events[at].astype(np.int64), first

    def _told(self, row: int) -> list[int]:
        return self.events[max(self.starts[row], self.ends[row] - self.window) : self.ends[row]].tolist()
