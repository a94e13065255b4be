"""Recommends for users whose events are in a store: reads what is new, and goes on from what is remembered."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from seqrec.data.errors import InputError
from seqrec.export.memories import from_bytes, to_bytes
from seqrec.export.retriever import Recommendation, Retriever
from seqrec.recommenders.sequential import Remembered, SequentialRecommender
from seqrec.sequences import Sequences
from seqrec.serving.filters import Filters
from seqrec.serving.store import Store

_HEAD = struct.Struct("<32sqqq")  # the model, events of the log, known ones among them, first of the window


@dataclass(frozen=True)
class Record:
    """What is known of one user.

    Attributes:
        n_events: events of the log that were read.
        rows: catalog rows of the known items among them, oldest first.
        times: when each of those happened, in seconds since 1970.
        begin: how many of them are older than what is read event by event.
        memory: what the model remembers of them, as bytes; empty where nothing was read yet.
    """

    n_events: int = 0
    rows: Sequence[int] = ()
    times: Sequence[int] = ()
    begin: int = 0
    memory: bytes = b""

    def packed(self, model: bytes) -> bytes:
        n = len(self.rows)
        head = _HEAD.pack(model, self.n_events, n, self.begin)
        return head + struct.pack(f"<{n}i{n}q", *self.rows, *self.times) + self.memory

    @classmethod
    def unpacked(cls, content: bytes, model: bytes) -> Record:
        """What ``packed`` made, or nothing known where it belongs to another model."""
        owner, n_events, n, begin = _HEAD.unpack_from(content)
        if owner != model:
            return cls()
        numbers = struct.unpack_from(f"<{n}i{n}q", content, _HEAD.size)
        return cls(n_events, numbers[:n], numbers[n:], begin, content[_HEAD.size + 12 * n :])


class Streams:
    """What one model recommends for users of a store.

    What it recommends depends on the events alone. A model that can go on from what it remembers reads each event once:
    the window begins at the oldest event and stays there until it holds ``max_length`` events; then its older half is
    dropped, so a window holds between half and all of what the model may read, and an event costs the same however
    long the history, taken over many. Of a model that compresses the past, the recent events are such a window, and
    those that are dropped from it are compressed. Every other model reads the newest ``max_length`` events each time.
    Of a user whom the bundle remembers, the events of the store that are newer than all it remembers follow, as in
    ``Retriever.recommend_user``.

    Args:
        retriever: of the bundle.
        store: where the events are.
        slot: under which name memories are kept.
        fingerprint: 64 hexadecimal digits that name the model and its catalog; memories of others are made again.
    """

    def __init__(self, retriever: Retriever, store: Store, slot: str, fingerprint: str) -> None:
        self.retriever, self._store, self._slot = retriever, store, slot
        self._fingerprint, self._model = fingerprint, bytes.fromhex(fingerprint)
        self._continuing = continuing(retriever)
        ids = [] if retriever.users is None else retriever.users.ids
        self._places = {user: place for place, user in enumerate(ids)}

    @property
    def continues(self) -> bool:
        """Whether the model goes on from what it remembers."""
        return self._continuing is not None

    def recommend(
        self, user: str, k: int, exclude_seen: bool, asked_at: int | None, filters: Filters
    ) -> list[Recommendation] | None:
        """The best items for a user; None of whom nothing is known, and none where no item of theirs is."""
        if user in self._places:
            return self._after_the_bundle(user, k, exclude_seen, asked_at, filters)
        if self._continuing is not None:
            return self._go_on(self._continuing, user, k, exclude_seen, filters)
        events = self._store.events(user)
        return self._read(events, k, exclude_seen, asked_at, filters) if events else None

    def _read(
        self,
        events: Sequence[tuple[str, int]],
        k: int,
        exclude_seen: bool,
        asked_at: int | None,
        filters: Filters,
    ) -> list[Recommendation]:
        items, times = self._known(events)
        return self.retriever.recommend_many([items], k, exclude_seen, [times], asked_at, **filters.given)[0]

    def _known(self, events: Sequence[tuple[str, int]]) -> tuple[list[str], list[int]]:
        unknown = set(self.retriever.rows(item for item, _ in events)[1])
        known = [(item, time) for item, time in events if item not in unknown]
        return [item for item, _ in known], [time for _, time in known]

    def _after_the_bundle(
        self, user: str, k: int, exclude_seen: bool, asked_at: int | None, filters: Filters
    ) -> list[Recommendation]:
        """What follows all that the bundle remembers and then those events of the store that it does not."""
        users, place = self.retriever.users, self._places[user]
        assert users is not None, "only a bundle that remembers users has places for them"
        since = -1 if users.times is None else int(users.times[place])
        events = list(zip(*self._known(self._store.events(user)), strict=True))
        items, times = [item for item, time in events if time > since], [time for _, time in events if time > since]
        if exclude_seen:  # an older event that the bundle does not have is not read, but had all the same
            had = {item for item, _ in events}.difference(items, self.retriever.catalog.ids[users.seen_by(place)])
            filters = replace(filters, deny=filters.deny | had)
        return self.retriever.recommend_user(user, items, k, exclude_seen, times, asked_at, **filters.given)

    @torch.no_grad()
    def _go_on(
        self, recommender: SequentialRecommender, user: str, k: int, exclude_seen: bool, filters: Filters
    ) -> list[Recommendation] | None:
        before, remembered = self._recalled(recommender, user)
        new = self._store.events(user, before.n_events)
        record = self._with_events(recommender, before, new)
        if not record.rows:
            return [] if record.n_events else None
        n_read = len(before.rows)
        if remembered is None or record.begin != before.begin:
            remembered, n_read = self._remembered_before(recommender, record), record.begin
        if n_read < len(record.rows):
            window = self._window(recommender, record, n_read, len(record.rows))
            remembered = recommender.proceed(window, remembered)
        assert remembered is not None, "a window holds at least one event"
        if new:
            record = replace(record, memory=to_bytes(recommender, remembered, self._fingerprint))
            self._store.keep_memory(user, self._slot, record.packed(self._model))
        seen = [list(record.rows) if exclude_seen else []]
        return self.retriever.following(remembered.newest, seen, k, **filters.given)[0]

    def _recalled(self, recommender: SequentialRecommender, user: str) -> tuple[Record, Remembered | None]:
        """What was kept of a user; nothing where it is missing, broken, or of another model."""
        content = self._store.memory(user, self._slot)
        if content is None:
            return Record(), None
        try:
            record = Record.unpacked(content, self._model)
            return record, None if not record.memory else from_bytes(recommender, record.memory, self._fingerprint)
        except (InputError, struct.error):
            return Record(), None

    def _with_events(
        self, recommender: SequentialRecommender, record: Record, new: Sequence[tuple[str, int]]
    ) -> Record:
        items, times = self._known(new)
        rows = [*record.rows, *self.retriever.rows(items)[0]]
        room = recommender.leaves_room or self.retriever.max_length
        return Record(
            record.n_events + len(new), rows, [*record.times, *times], first_of_window(len(rows), room), record.memory
        )

    def _remembered_before(self, recommender: SequentialRecommender, record: Record) -> Remembered | None:
        """What is compressed of the events before the window; None where nothing is."""
        if not recommender.leaves_room or not record.begin:
            return None
        longest = self.retriever.max_length
        begin = 0 if longest is None else max(0, record.begin - (longest - recommender.leaves_room))
        return recommender.remember(self._window(recommender, record, begin, record.begin))

    @staticmethod
    def _window(recommender: SequentialRecommender, record: Record, begin: int, end: int) -> Sequences:
        clocks = [record.times[begin:end]] if recommender.reads_clock else None
        return Sequences.pack([record.rows[begin:end]], clocks)


def first_of_window(n: int, room: int | None) -> int:
    """How many of n events are older than a window that holds all up to ``room``, and else more than half of that."""
    if room is None or n <= room:
        return 0
    step = max(room // 2, 1)
    return -(-(n - room) // step) * step


def continuing(retriever: Retriever) -> SequentialRecommender | None:
    """The recommender, if it can go on from what it remembers, in bytes, whenever it is asked."""
    recommender = retriever.recommender
    if not isinstance(recommender, SequentialRecommender) or recommender.reads_asked_at:
        return None
    clocks = [[1]] if recommender.reads_clock else None
    try:
        with torch.no_grad():
            to_bytes(recommender, recommender.remember(Sequences.pack([[0]], clocks)), "")
    except TypeError:
        return None
    return recommender
