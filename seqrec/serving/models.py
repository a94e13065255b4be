"""A bundle that is served, with all that requests ask of it, and the watch that exchanges it for a newer one."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import polars as pl
import torch
from torch import Tensor

from seqrec.data.errors import InputError
from seqrec.export.bundle import read_bundle
from seqrec.export.manifest import MANIFEST
from seqrec.export.retriever import Retriever
from seqrec.export.users import fingerprint
from seqrec.sequences import Sequences
from seqrec.serving.store import Store
from seqrec.serving.streams import Streams

log = logging.getLogger("seqrec.serving")

Mark = tuple[int, int, int]


@dataclass(frozen=True)
class Found:
    """An item that a search found; ``count`` is how often it occurs in training."""

    item_id: str
    title: str
    count: int


class Model:
    """One bundle, read once.

    Attributes:
        retriever: answers.
        streams: answers for users of the store.
        fingerprint: of its weights, its recipe and the items that it knows.
        reads_clock: whether it needs to know when events happened.
        reads_asked_at: whether it needs to know when it is asked.
        metrics: what its test said.
        loaded_at: when it was read, in seconds since 1970.
    """

    def __init__(self, folder: Path, store: Store, slot: str) -> None:
        bundle = read_bundle(folder)
        self.name, self.loaded_at = folder.resolve().name, time.time()
        self.retriever = Retriever(bundle)
        self.reads_clock, self.reads_asked_at = bundle.recommender.reads_clock, bundle.recommender.reads_asked_at
        self.metrics = bundle.manifest["metrics"]
        # What came after training, or went, changes what a history is: memories are then made again.
        known = "\n".join([fingerprint(bundle.recommender, bundle.recipe), *sorted(bundle.removed)])
        self.fingerprint = hashlib.sha256(known.encode()).hexdigest()
        self.streams = Streams(self.retriever, store, slot, self.fingerprint)
        self._removed = bundle.removed
        _ = self._shelf  # made now, not when somebody waits

    def unknown(self, items: Sequence[str]) -> list[str]:
        """Those that are not in the catalog, each once."""
        return list(dict.fromkeys(self.retriever.rows(items)[1]))

    def titles(self, items: Sequence[str]) -> list[str | None]:
        """What a person reads for each; None where the catalog does not have it."""
        absent = set(self.unknown(items))
        titles = iter(self.retriever.catalog.titles.gather(self.retriever.rows(items)[0]))
        return [None if item in absent else next(titles) for item in items]

    def search(self, words: str, limit: int) -> list[Found]:
        """Items whose title or raw id has all of these words in it, most frequent first; all items have none of none.

        An item whose raw id is exactly that comes first.
        """
        found = self._shelf
        for word in words.lower().split():
            found = found.filter(pl.col("text").str.contains(word, literal=True))
        exact = (pl.col("item_id") == words.strip()).alias("exact")
        best = found.with_columns(exact).sort("exact", descending=True, maintain_order=True).head(limit)
        return [Found(*line) for line in best.select("item_id", "title", "count").iter_rows()]

    @property
    def n_items(self) -> int:
        """How many items there are that were not removed."""
        return self._shelf.height

    @cached_property
    def _shelf(self) -> pl.DataFrame:
        catalog = self.retriever.catalog
        table = pl.DataFrame([catalog.ids, catalog.titles, catalog.table["count"]])
        table = table.filter(~pl.col("item_id").is_in(list(self._removed)))
        text = pl.concat_str("title", "item_id", separator="\n").str.to_lowercase().alias("text")
        return table.with_columns(text).sort("count", descending=True, maintain_order=True)

    @torch.no_grad()
    def influence(
        self, items: Sequence[str], target: str, times: Sequence[int] | None, asked_at: int | None
    ) -> list[float | None]:
        """By how much the score of an item would fall without each event of a history.

        Each event is left out by itself, and the rest of what the model reads is read again. None stands where an
        item is unknown, where an event is older than what the model reads, and where no other event is left.

        Raises:
            InputError: the target is not in the catalog.
        """
        targets, _ = self.retriever.rows([target])
        if not targets:
            raise InputError(f"'{target}' is not in the catalog; give the raw id of an item that is.")
        unknown = set(self.unknown(items))
        read = [place for place, item in enumerate(items) if item not in unknown][-(self.retriever.max_length or 0) :]
        falls: list[float | None] = [None] * len(items)
        if len(read) < 2:
            return falls
        rows, _ = self.retriever.rows(items[place] for place in read)
        clock = None if times is None else [times[place] for place in read]
        whole, *others = self._scores_without_each(rows, clock, asked_at, targets[0]).tolist()
        for place, score in zip(read, others, strict=True):
            falls[place] = whole - score
        return falls

    def _scores_without_each(
        self, rows: list[int], clock: list[int] | None, asked_at: int | None, target: int
    ) -> Tensor:
        """The score of a row after all events, and after all but each of them."""
        n = len(rows)
        left = [list(range(n)), *([other for other in range(n) if other != place] for place in range(n))]
        window = Sequences.pack(
            [[rows[place] for place in some] for some in left],
            None if clock is None else [[clock[place] for place in some] for some in left],
        )
        if asked_at is not None and clock is not None:
            window = window.asking(window.newest, torch.full_like(window.newest, asked_at))
        queries = self.retriever.recommender.queries(window, window.newest)
        return queries @ self.retriever.index.keys[target]


class Place:
    """Where a model stands that may be exchanged for a newer one while requests are answered.

    Whoever asks takes the model that stands here then, and keeps it to the end of the request.

    Args:
        folder: of the bundle.
        store: of events.
        slot: under which name memories of its users are kept.

    Attributes:
        model: the one that answers.
        refused: why the newest bundle of the folder was not taken; None where it was.
        exchanges: how often a newer one came.
    """

    def __init__(self, folder: Path, store: Store, slot: str) -> None:
        self._folder, self._store, self._slot = folder, store, slot
        self._mark = _mark(folder / MANIFEST)
        self._refused_files: dict[str, Mark | None] = {}
        self.model = Model(folder, store, slot)
        self.refused: str | None = None
        self.exchanges = 0

    async def watch(self, seconds: float) -> None:
        """Look every so often whether there is a newer bundle, forever."""
        while True:
            await asyncio.sleep(seconds)
            mark, files = _mark(self._folder / MANIFEST), _files(self._folder)
            if mark == self._mark:
                self.refused = None
            # What is copied file by file is whole in the end; what stays broken need not be read over and over.
            if mark is None or mark == self._mark or files == self._refused_files:
                continue
            try:
                self.model = await asyncio.to_thread(Model, self._folder, self._store, self._slot)
                self.refused, self._mark = None, mark
                self.exchanges += 1
                settle()
                log.info("%s: a newer bundle answers from now on (%s)", self._folder, self.model.fingerprint[:12])
            except Exception as error:  # whatever is wrong with the new one, the old one goes on
                self.refused, self._refused_files = f"{error}", files
                log.warning("%s: the newer bundle is not taken: %s", self._folder, error)


def settle() -> None:
    """Free what is gone, and look no more through what stays: catalogs are large, so that would take long."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def _mark(file: Path) -> Mark | None:
    """By what a file is told from the one before, or None while there is none."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _files(folder: Path) -> dict[str, Mark | None]:
    """The marks of all files of a folder; none while there is no folder."""
    try:
        return {name: _mark(folder / name) for name in os.listdir(folder)}
    except OSError:
        return {}
