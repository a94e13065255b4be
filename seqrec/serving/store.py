"""Where events of users are kept, for good, and what models remember of them, as long as it is of use.

The events are the truth. A memory is a copy that saves time: whoever misses one makes it again from the events.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqrec.data.errors import InputError

_SECONDS_A_WRITER_WAITS = 30.0
_SECONDS_A_MEMORY_WAITS = 0.05
_SECONDS_FOR_REDIS = 1.0  # unless its URL says otherwise
_DAYS_A_MEMORY_LASTS = 30
_TABLES = """
CREATE TABLE IF NOT EXISTS events (
    user TEXT, place INTEGER, item TEXT, time INTEGER, PRIMARY KEY (user, place)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS memories (user TEXT, slot TEXT, content BLOB, PRIMARY KEY (user, slot)) WITHOUT ROWID;
"""
_COLUMNS = {"events": ["user", "place", "item", "time"], "memories": ["user", "slot", "content"]}


@dataclass(frozen=True)
class Event:
    """Something that a user did with an item, at a time in seconds since 1970."""

    user: str
    item: str
    time: int


class StoreError(Exception):
    """The store cannot be read or written now."""


class Store(ABC):
    """Events per user, in the order in which they were acknowledged, and memories.

    One thread may append while another reads events and reads and keeps memories. All but ``close`` raise
    ``StoreError`` when the store is away.
    """

    @abstractmethod
    def append(self, events: Sequence[Event]) -> None:
        """Keep these events, all or none; when this returns they outlive the process and, but for a Redis that is told
        otherwise, the loss of power."""

    @abstractmethod
    def events(self, user: str, start: int = 0) -> list[tuple[str, int]]:
        """Item and time of the events of a user, oldest first, from the ``start``-th on."""

    @abstractmethod
    def memory(self, user: str, slot: str) -> bytes | None:
        """What was kept of this user in this slot last, or None."""

    @abstractmethod
    def keep_memory(self, user: str, slot: str, content: bytes) -> None:
        """Try to keep it; it may be lost."""

    @abstractmethod
    def close(self) -> None: ...


class SQLiteStore(Store):
    """One file beside the service.

    Every append is one transaction whose write-ahead log is synchronised with the disk before it returns. Memories lie
    in the same file, written without that.

    Args:
        path: the file; made where there is none.

    Raises:
        InputError: it cannot be opened, or is something else.
    """

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._appending = self._opened(path, "FULL", _SECONDS_A_WRITER_WAITS)
            self._reading = self._opened(path, "NORMAL", _SECONDS_A_WRITER_WAITS)
            self._remembering = self._opened(path, "NORMAL", _SECONDS_A_MEMORY_WAITS)
        except (OSError, sqlite3.Error) as error:
            raise InputError(
                f"{path} cannot be used as a store of events ({error}); give another --store, or the one you had."
            ) from error

    @staticmethod
    def _opened(path: Path, synchronous: str, patience: float) -> sqlite3.Connection:
        connection = sqlite3.connect(path, timeout=patience, isolation_level=None, check_same_thread=False)
        for table, columns in _COLUMNS.items():
            found = [name for (name,) in connection.execute("SELECT name FROM pragma_table_info(?)", (table,))]
            if found and found != columns:
                raise sqlite3.DatabaseError(f"its table {table} has the columns {', '.join(found)}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.executescript(_TABLES)
        return connection

    def append(self, events: Sequence[Event]) -> None:
        next_places: dict[str, int] = {}
        lines = []
        with _reported(sqlite3.Error), _transaction(self._appending) as connection:
            for event in events:
                place = next_places.get(event.user)
                if place is None:
                    newest = connection.execute("SELECT max(place) FROM events WHERE user = ?", (event.user,))
                    (before,) = newest.fetchone()
                    place = 0 if before is None else before + 1
                next_places[event.user] = place + 1
                lines.append((event.user, place, event.item, event.time))
            connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?)", lines)

    def events(self, user: str, start: int = 0) -> list[tuple[str, int]]:
        question = "SELECT item, time FROM events WHERE user = ? AND place >= ? ORDER BY place"
        with _reported(sqlite3.Error):
            return self._reading.execute(question, (user, start)).fetchall()

    def memory(self, user: str, slot: str) -> bytes | None:
        question = "SELECT content FROM memories WHERE user = ? AND slot = ?"
        with _reported(sqlite3.Error):
            line = self._reading.execute(question, (user, slot)).fetchone()
        return None if line is None else line[0]

    def keep_memory(self, user: str, slot: str, content: bytes) -> None:
        with contextlib.suppress(sqlite3.OperationalError):  # an append holds the file; the next answer tries again
            self._remembering.execute("INSERT OR REPLACE INTO memories VALUES (?, ?, ?)", (user, slot, content))

    def close(self) -> None:
        for connection in (self._reading, self._remembering, self._appending):
            connection.close()


@contextlib.contextmanager
def _reported(*kinds: type[Exception]) -> Iterator[None]:
    """Errors of these kinds, as one that the service understands."""
    try:
        yield
    except kinds as error:
        raise StoreError(f"The store of events does not answer ({error}); ask again in a moment.") from error


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """A transaction that holds the pen from the start, so that what is read in it stays true until it is written."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


class RedisStore(Store):
    """A Redis server, which several services may share. How durable an event is, is up to its ``appendfsync``.

    Args:
        url: ``redis://HOST:PORT/NUMBER``, ``rediss://…`` or ``unix://…``.

    Raises:
        InputError: no Redis answers there.
        ImportError: the client is not installed.
    """

    def __init__(self, url: str) -> None:
        try:
            import redis
        except ModuleNotFoundError as error:
            raise ImportError(
                "A store in Redis needs redis, which is not installed; run pip install 'seqrec[serve]'."
            ) from error
        try:
            self._redis: Any = redis.Redis.from_url(
                url, socket_timeout=_SECONDS_FOR_REDIS, socket_connect_timeout=_SECONDS_FOR_REDIS
            )
            self._failure: type[Exception] = redis.RedisError
            self._redis.ping()
        except (redis.RedisError, ValueError) as error:
            raise InputError(f"No Redis answers at {url} ({error}); start one, or give a file as --store.") from error
        with contextlib.suppress(redis.ResponseError):  # some hosts keep their settings to themselves
            told = self._redis.config_get("append*")
            if told.get("appendonly") != "yes" or told.get("appendfsync") != "always":
                warnings.warn(
                    f"The Redis at {url} may lose acknowledged events when it crashes; set appendonly to yes and "
                    "appendfsync to always.",
                    stacklevel=2,
                )

    def append(self, events: Sequence[Event]) -> None:
        lines: dict[str, list[str]] = {}
        for event in events:
            lines.setdefault(event.user, []).append(json.dumps([event.item, event.time]))
        with _reported(self._failure), self._redis.pipeline(transaction=True) as together:
            for user, some in lines.items():
                together.rpush(f"seqrec:events:{user}", *some)
            together.execute()

    def events(self, user: str, start: int = 0) -> list[tuple[str, int]]:
        with _reported(self._failure):
            lines = self._redis.lrange(f"seqrec:events:{user}", start, -1)
        return [tuple(json.loads(line)) for line in lines]

    def memory(self, user: str, slot: str) -> bytes | None:
        with _reported(self._failure):
            return self._redis.get(f"seqrec:memory:{slot}:{user}")

    def keep_memory(self, user: str, slot: str, content: bytes) -> None:
        with contextlib.suppress(self._failure):
            self._redis.set(f"seqrec:memory:{slot}:{user}", content, ex=_DAYS_A_MEMORY_LASTS * 86_400)

    def close(self) -> None:
        self._redis.close()


def open_store(place: str) -> Store:
    """The store at a Redis URL, or in a file."""
    return RedisStore(place) if is_redis(place) else SQLiteStore(Path(place))


def is_redis(place: str) -> bool:
    """Whether it is the URL of a Redis, not a file."""
    return place.startswith(("redis://", "rediss://", "unix://"))
