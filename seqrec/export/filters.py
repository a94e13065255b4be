"""Which items of a bundle may be recommended: what is withdrawn, and what a request allows, denies or asks for."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from functools import cached_property

import polars as pl
import torch
from jaxtyping import Bool
from torch import Tensor

from seqrec.catalog import Catalog
from seqrec.data.errors import InputError, nearest


def names_in(words: str, known: Iterable[str]) -> list[str]:
    """The names that stand in a text with commas between them.

    A comma may be part of a known name; where several readings are possible, the longest name that is known is taken.
    """
    with_commas = {name for name in known if "," in name}
    parts, names = words.split(","), []
    while parts:
        joined = ((n, ",".join(parts[:n]).strip()) for n in range(len(parts), 1, -1)) if with_commas else ()
        n, name = next(((n, name) for n, name in joined if name in with_commas), (1, parts[0].strip()))
        names.append(name)
        del parts[:n]
    return [name for name in names if name]


class Filters:
    """What is admitted of a catalog. It never changes, so any number of threads may ask it.

    Args:
        catalog: the items.
        blocked: raw ids that are never recommended.
        removed: raw ids that are never recommended and that nobody knows any more.

    Raises:
        InputError: a blocked or removed item is not in the catalog.
    """

    def __init__(self, catalog: Catalog, blocked: Iterable[str | int] = (), removed: Iterable[str | int] = ()) -> None:
        self.catalog = catalog
        self.blocked, self.removed = frozenset(map(str, blocked)), frozenset(map(str, removed))
        rows, unknown = catalog.rows(self.blocked | self.removed)
        if unknown:
            raise InputError(f"'{unknown[0]}' is not an item of the bundle; correct the id.")
        self.offered = torch.ones(len(catalog), dtype=torch.bool)
        self.offered[rows] = False

    def rows(self, history: Sequence[str | int]) -> tuple[list[int], list[str]]:
        """Rows of the known ids, in order, and the ids that nobody knows, or knows any more."""
        if not self.removed:
            return self.catalog.rows(history)
        names = [*map(str, history)]
        known, unknown = self.catalog.rows(raw for raw in names if raw not in self.removed)
        return known, [*unknown, *(raw for raw in names if raw in self.removed)]

    def admitted(
        self, allow: Collection[str | int] | None, deny: Collection[str | int], categories: Collection[str] | None
    ) -> Bool[Tensor, "N"] | None:
        """Which rows may be recommended; None where a request filters nothing.

        Args:
            allow: raw ids that alone are admitted; None admits all. Ids that the bundle does not know admit nothing.
            deny: raw ids that are not admitted; unknown ones change nothing.
            categories: only items of at least one of these are admitted; None admits all.

        Raises:
            InputError: no item has one of the categories, or a list is a text.
        """
        for name, given in {"allow": allow, "deny": deny, "categories": categories}.items():
            if isinstance(given, str):
                raise InputError(f"{name} is the text '{given}'; give a list, say ['{given}'].")
        if allow is None and not len(deny) and categories is None:
            return None
        admitted = self.offered.clone()
        if allow is not None:
            admitted &= self._marked(self.catalog.rows(allow)[0])
        if len(deny):
            admitted[self.catalog.rows(deny)[0]] = False
        if categories is not None:
            admitted &= self._marked([row for name in categories for row in self._rows_in(name)])
        return admitted

    @property
    def categories(self) -> Collection[str]:
        """All that some item has."""
        return self._rows_of_category.keys()

    def _marked(self, rows: list[int]) -> Bool[Tensor, "N"]:
        marked = torch.zeros_like(self.offered)
        marked[rows] = True
        return marked

    def _rows_in(self, category: str) -> list[int]:
        if category not in self._rows_of_category:
            names = sorted(self._rows_of_category)
            found = nearest(category, names) if names else "and the items of this bundle have no categories"
            raise InputError(f"No item has the category '{category}', {found}; ask for one that there is.")
        return self._rows_of_category[category]

    @cached_property
    def _rows_of_category(self) -> dict[str, list[int]]:
        if "categories" not in self.catalog.table.columns:
            return {}
        kind = self.catalog.table.schema["categories"]
        if not isinstance(kind, pl.List):
            raise InputError(
                f"The categories of this bundle are {kind}, not lists of words; run `seqrec export` again, then "
                "`seqrec add-items` with what was added."
            )
        named = self.catalog.table.select("categories").with_row_index("row").explode("categories").drop_nulls()
        return dict(named.group_by("categories").agg("row").iter_rows())
