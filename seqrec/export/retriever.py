"""Answers which items come next, in raw ids, from a bundle alone: no training code and no training data."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from seqrec.data.errors import InputError
from seqrec.export.bundle import Bundle, read_bundle
from seqrec.export.filters import Filters
from seqrec.export.histories import LATEST
from seqrec.export.search import best_rows, most_alike
from seqrec.recommenders.base import TopK
from seqrec.recommenders.sequential import SequentialRecommender
from seqrec.sequences import Sequences

_HISTORIES_PER_BATCH = 1024
_EVENTS_PER_BATCH = 16_384
_NAMED = 5


@dataclass(frozen=True)
class Recommendation:
    """One recommended item: its raw id, a name that a person can read, and its score."""

    item_id: str
    title: str
    score: float


class Retriever:
    """Recommends from a bundle, exactly what the recommender itself would; any number of threads may ask at once.

    Where the bundle has a quick index, a request without filters is answered from what that finds, which may miss some
    of the best items; one with filters is always answered exactly.

    Args:
        bundle: what ``read_bundle`` returns.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.recommender = bundle.recommender.eval()
        self.catalog = bundle.recommender.catalog
        self._ids, self._titles = self.catalog.ids, self.catalog.titles
        self.index = bundle.index
        self.max_length = bundle.max_length
        self.users = bundle.users
        self.manifest = bundle.manifest
        self._filters = Filters(self.catalog, bundle.blocked, bundle.removed)
        self._row_of_user = {} if bundle.users is None else {raw: row for row, raw in enumerate(bundle.users.ids)}
        self._reads_clock, self._reads_asked_at = self.recommender.reads_clock, self.recommender.reads_asked_at
        self._ids, self._titles = self.catalog.ids.to_list(), self.catalog.titles.to_list()

    @classmethod
    def load(cls, folder: Path | str) -> Retriever:
        """Open the bundle in this folder.

        Raises:
            InputError: a file is missing or differs from what was exported, or a newer seqrec wrote it.
            ModuleNotFoundError: FAISS is not installed.
        """
        return cls(read_bundle(Path(folder)))

    @property
    def fingerprint(self) -> str:
        """Of the model and the catalog that memories belong to; items that are added later leave it as it is."""
        return self.manifest["model_fingerprint"]

    @property
    def blocked(self) -> frozenset[str]:
        """Raw ids that are known in histories and never recommended. Assign to it to block others from now on.

        Raises:
            InputError: (on assignment) an item is not in the catalog.
        """
        return self._filters.blocked

    @blocked.setter
    def blocked(self, ids: Iterable[str | int]) -> None:
        if isinstance(ids, str):
            raise InputError(f"blocked is the text '{ids}'; give a list, say ['{ids}'].")
        self._filters = Filters(self.catalog, ids, self._filters.removed)

    def recommend(
        self,
        history: Sequence[str | int],
        k: int = 10,
        exclude_seen: bool = True,
        times: Sequence[int] | None = None,
        asked_at: int | None = None,
        *,
        allow: Collection[str | int] | None = None,
        deny: Collection[str | int] = (),
        categories: Collection[str] | None = None,
    ) -> list[Recommendation]:
        """The k best items to follow a history of raw ids, best first; fewer where no more are left to recommend.

        Args:
            history: raw item ids, oldest first. Unknown ones are named in a warning and skipped.
            k: length of the list, at least 1.
            exclude_seen: whether items of the history are left out.
            times: when each of them happened, in seconds since 1970; some models read it.
            asked_at: the moment for which is recommended, in seconds since 1970; some models read it.
            allow: raw ids of the only items to choose from; None is all. Ids that nobody knows admit nothing.
            deny: raw ids of items to leave out.
            categories: only items of at least one of these are recommended; None is all.

        Raises:
            InputError: no item of the history is known, no item has one of the categories, or the model reads times
                that were not given.
        """
        clocks = None if times is None else [times]
        filters = {"allow": allow, "deny": deny, "categories": categories}
        answer = self.recommend_many([history], k, exclude_seen, clocks, asked_at, **filters)[0]
        if not answer and not self._filters.rows(history)[0]:
            raise InputError(
                f"None of the {len(history)} items of the history is in the catalog; give at least one that is."
            )
        return answer

    @torch.no_grad()
    def recommend_user(
        self,
        user: str,
        recent: Sequence[str | int] = (),
        k: int = 10,
        exclude_seen: bool = True,
        times: Sequence[int] | None = None,
        asked_at: int | None = None,
        *,
        allow: Collection[str | int] | None = None,
        deny: Collection[str | int] = (),
        categories: Collection[str] | None = None,
    ) -> list[Recommendation]:
        """The k best items for a user whom the bundle remembers, what they did since included.

        Their past is not read again while the model may read what happened since beside what it remembers. With more
        than that, the newest events of all that they have are read. With nothing new that is known, the state after
        their newest remembered event answers, unless the model reads when it is asked and is told. A model that reads
        the clock can read nothing again from a bundle of earlier versions, which kept no times: it then reads the
        recent events alone.

        Args:
            user: raw id of the user.
            recent: raw ids of what the user did since, oldest first. Unknown ones are named in a warning and skipped.
            k: length of the list, at least 1.
            exclude_seen: whether all that the user has, remembered or recent, is left out.
            times: when each recent item happened, in seconds since 1970; some models read it.
            asked_at: the moment for which is recommended, in seconds since 1970; some models read it.
            allow: as in ``recommend``.
            deny: as in ``recommend``.
            categories: as in ``recommend``.

        Raises:
            InputError: the bundle does not remember this user, or no event of theirs and none that is new is known, or
                as ``recommend`` does.
        """
        place = self._row_of_user.get(user)
        if self.users is None or place is None or not isinstance(self.recommender, SequentialRecommender):
            raise InputError(
                f"The bundle remembers {len(self._row_of_user):,} users, and '{user}' is not among them; give their "
                "whole history to `recommend`, or run `seqrec export --users true` again."
            )
        _demand_positive(k)
        filters = self._filters
        admitted = filters.admitted(allow, deny, categories)
        if recent:
            self._demand_times([recent], None if times is None else [times], asked_at)
        known, clocks, unknown = _known(filters, [recent], None if times is None else [times])
        _warn_of(unknown)
        has, had_at = self.users.seen_by(place), self.users.times_of(place)
        past, then, _ = _known(filters, [[self._ids[row] for row in has]], None if had_at is None else [had_at])
        if self._reads_clock and then is None:
            past, then = [[]], [[]]
        n_past, n_new = int(self.users.counts[place]), len(known[0])
        # The window is asked for at another moment, or its newest events are read as they are, as the evaluation does.
        reads_again = asked_at is not None if self._reads_asked_at else self.recommender.leaves_room > 0
        asks_again = reads_again and bool(past[0])
        if not n_past and not n_new:
            raise InputError(
                f"The bundle remembers no event of user '{user}', and of {len(recent)} recent items none is in the "
                "catalog; give at least one that is."
            )
        if not n_new and not asks_again:  # nothing is read, so nothing need be known of when
            queries = self.recommender.scorer.queries(self.users.newest[[place]])
        elif n_new and self._goes_on(self.recommender, n_past, n_new):
            window = self._window(known, clocks, asked_at)
            remembered = self.recommender.proceed(window, self.users.remembered([place], self.recommender))
            queries = self.recommender.scorer.queries(remembered.newest)
        else:
            clock = [[*(then or [[]])[0], *(clocks or [[]])[0]]] if self._reads_clock else None
            queries = self._queries(self._window([[*past[0], *known[0]]], clock, asked_at))
        seen = Sequences.pack([[*has, *known[0]] if exclude_seen else []])
        return self._named(TopK(*best_rows(self.index, queries, k, seen, filters.offered, admitted)))[0]

    def recommend_many(
        self,
        histories: Sequence[Sequence[str | int]],
        k: int = 10,
        exclude_seen: bool = True,
        times: Sequence[Sequence[int]] | None = None,
        asked_at: int | None = None,
        *,
        allow: Collection[str | int] | None = None,
        deny: Collection[str | int] = (),
        categories: Collection[str] | None = None,
    ) -> list[list[Recommendation]]:
        """One list per history, as ``recommend`` makes it; an empty list where no item of the history is known."""
        filters = {"allow": allow, "deny": deny, "categories": categories}
        k = min(k, len(self.catalog))  # no list is longer
        return self._named(self.top_k(histories, k, exclude_seen, times, asked_at, **filters))

    def similar(self, item_id: str, k: int = 10) -> list[Recommendation]:
        """The k items whose keys have the largest cosines with the key of this one, best first, itself left out.

        Blocked items are left out, too. The score is the cosine.

        Raises:
            InputError: the item is not in the catalog.
        """
        _demand_positive(k)
        filters = self._filters
        known, _ = filters.rows([item_id])
        if not known:
            raise InputError(f"'{item_id}' is not in the catalog; give the raw id of an item that is.")
        return self._named(TopK(*most_alike(self.index.keys, known[0], k, filters.offered)))[0]

    def rows(self, history: Iterable[str | int]) -> tuple[list[int], list[str]]:
        """Catalog rows of the known items of a history, in order, and the ids that nobody knows."""
        return self._filters.rows(list(history))

    @torch.no_grad()
    def following(
        self,
        states: Float[Tensor, "B D"],
        seen: Sequence[Sequence[int]],
        k: int = 10,
        *,
        allow: Collection[str | int] | None = None,
        deny: Collection[str | int] = (),
        categories: Collection[str] | None = None,
    ) -> list[list[Recommendation]]:
        """The k best items to follow the newest events, given by their states.

        Args:
            states: one per history, as ``newest`` of what the recommender remembers.
            seen: catalog rows that are left out, for each history.
            k: length of the lists, at least 1.
            allow: as in ``recommend``.
            deny: as in ``recommend``.
            categories: as in ``recommend``.
        """
        _demand_positive(k)
        filters = self._filters
        queries, admitted = self.recommender.scorer.queries(states), filters.admitted(allow, deny, categories)
        left_out = Sequences.pack(seen)
        return self._named(TopK(*best_rows(self.index, queries, k, left_out, filters.offered, admitted)))

    def top_k(
        self,
        histories: Sequence[Sequence[str | int]],
        k: int = 10,
        exclude_seen: bool = True,
        times: Sequence[Sequence[int]] | None = None,
        asked_at: int | None = None,
        *,
        allow: Collection[str | int] | None = None,
        deny: Collection[str | int] = (),
        categories: Collection[str] | None = None,
    ) -> TopK:
        """The same lists as catalog rows and scores; -1 and minus infinity where there is no item."""
        _demand_positive(k)
        self._demand_times(histories, times, asked_at)
        filters = self._filters
        admitted = filters.admitted(allow, deny, categories)
        known, times, unknown = _known(filters, histories, times)
        _warn_of(unknown)
        items = torch.full((len(known), k), -1)
        scores = torch.full((len(known), k), -torch.inf)
        asked = [place for place, rows in enumerate(known) if rows]
        for batch in _batches(asked, [len(known[place][-self._reads :]) for place in asked]):
            some = [known[place] for place in batch]
            window = self._window(some, None if times is None else [times[place] for place in batch], asked_at)
            seen = Sequences.pack(some if exclude_seen else [[] for _ in some])
            queries = self._queries(window)
            items[batch], scores[batch] = best_rows(self.index, queries, k, seen, filters.offered, admitted)
        return TopK(items, scores)

    @property
    def categories(self) -> Collection[str]:
        """All that some item has."""
        return self._filters.categories

    def _goes_on(self, recommender: SequentialRecommender, n_past: int, n_new: int) -> bool:
        """Whether so many new events may be read beside what is remembered of so many others."""
        if recommender.leaves_room and n_new > recommender.leaves_room:
            return False
        return self.max_length is None or n_past + n_new <= self.max_length

    def _window(
        self, histories: Sequence[Sequence[int]], times: Sequence[Sequence[int]] | None, asked_at: int | None
    ) -> Sequences:
        """As many of the newest events of each history as the model reads."""
        clocks = None if times is None else [clock[-self._reads :] for clock in times]
        window = Sequences.pack([history[-self._reads :] for history in histories], clocks)
        if asked_at is None or clocks is None or not len(window.items):
            return window
        return window.asking(window.newest, torch.full_like(window.newest, asked_at))

    @torch.no_grad()
    def _queries(self, window: Sequences) -> Float[Tensor, "B K"]:
        return self.recommender.queries(window, window.newest)

    def _named(self, best: TopK) -> list[list[Recommendation]]:
        return [
            [
                Recommendation(self._ids[row], self._titles[row], score)
                for row, score in zip(rows, scores, strict=True)
                if row >= 0
            ]
            for rows, scores in zip(best.items.tolist(), best.scores.tolist(), strict=True)
        ]

    @property
    def _reads(self) -> int:
        return self.max_length or 0

    def _demand_times(
        self, histories: Sequence[Sequence[str | int]], times: Sequence[Sequence[int]] | None, asked_at: int | None
    ) -> None:
        """See that all is given that a position of the model reads, and that every event has its time."""
        if self._reads_clock and times is None:
            raise InputError(
                "This model reads when events happened; give --times T,T,… in seconds since 1970, one for each item."
            )
        if self._reads_asked_at and asked_at is None:
            raise InputError(
                "This model reads for when a recommendation is asked; give --asked_at in seconds since 1970."
            )
        latest = max((time for clock in times or [] for time in clock), default=0)
        if max(latest, asked_at or 0) > LATEST:
            raise InputError(
                f"The time {max(latest, asked_at or 0)} lies beyond the year 2100; give whole seconds since 1970, not "
                "milliseconds."
            )
        for history, clock in zip(histories, times or [], strict=times is not None):
            if len(history) != len(clock):
                raise InputError(f"A history has {len(history)} items and {len(clock)} times; give one time for each.")


def _known(
    filters: Filters, histories: Sequence[Sequence[str | int]], times: Sequence[Sequence[int]] | None
) -> tuple[list[list[int]], Sequence[Sequence[int]] | None, list[str]]:
    """Catalog rows of the known items of each history, their times, and the ids that nobody knows."""
    for history in histories:
        if isinstance(history, str):
            raise InputError(f"A history is the text '{history}'; give a list of ids, say ['{history}'].")
    histories = [[*map(str, history)] for history in histories]
    found = [filters.rows(history) for history in histories]
    unknown = [raw for _, others in found for raw in others]
    if times is not None and unknown:
        absent = set(unknown)
        times = [
            [time for raw, time in zip(history, clock, strict=True) if raw not in absent]
            for history, clock in zip(histories, times, strict=True)
        ]
    return [rows for rows, _ in found], times, unknown


def _demand_positive(k: int) -> None:
    if k < 1:
        raise InputError(f"k is {k}; ask for at least 1 item.")


def _warn_of(unknown: list[str]) -> None:
    if not unknown:
        return
    ids = list(dict.fromkeys(unknown))
    named = ", ".join(ids[:_NAMED]) + (f" and {len(ids) - _NAMED:,} more" if len(ids) > _NAMED else "")
    warnings.warn(f"Not in the catalog, so skipped: {named}.", stacklevel=4)


def _batches(places: list[int], lengths: list[int]) -> Iterator[list[int]]:
    """Cut places into batches of bounded size: few enough histories and few enough events."""
    batch: list[int] = []
    events = 0
    for place, length in zip(places, lengths, strict=True):
        if batch and (len(batch) == _HISTORIES_PER_BATCH or events + length > _EVENTS_PER_BATCH):
            yield batch
            batch, events = [], 0
        batch.append(place)
        events += length
    if batch:
        yield batch
