"""Events come back in the order in which they were appended, whoever reads, and memories are only ever a copy."""

import shutil
import socket
import sqlite3
import subprocess
import threading
import time
from contextlib import closing, contextmanager

import pytest

from seqrec.data.errors import InputError
from seqrec.serving.store import Event, RedisStore, SQLiteStore, StoreError, open_store


def a_free_port():
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def a_redis(folder, port):
    """A real Redis that synchronises every append; skips where there is none."""
    server = shutil.which("redis-server")
    if server is None:
        pytest.skip("redis-server is not installed")
    pytest.importorskip("redis")
    options = [
        "--port",
        str(port),
        "--dir",
        str(folder),
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
        "--save",
        "",
    ]
    process = subprocess.Popen([server, *options], stdout=subprocess.DEVNULL)
    for _ in range(400):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            time.sleep(0.05)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory):
    port = a_free_port()
    with a_redis(tmp_path_factory.mktemp("redis"), port):
        yield f"redis://127.0.0.1:{port}/0"


@pytest.fixture(params=["sqlite", "redis"])
def place(request, tmp_path):
    if request.param == "sqlite":
        return str(tmp_path / "events.sqlite")
    import redis

    url = request.getfixturevalue("redis_url")
    redis.Redis.from_url(url).flushall()
    return url


def some(user, *items, since=100):
    return [Event(user, item, since + n) for n, item in enumerate(items)]


def test_events_come_back_in_order_and_user_by_user(place):
    store = open_store(place)
    store.append([*some("ann", "a", "b"), *some("bob", "x"), *some("ann", "c", since=50)])
    store.append(some("ann", "a"))
    assert store.events("ann") == [("a", 100), ("b", 101), ("c", 50), ("a", 100)]
    assert store.events("ann", 3) == [("a", 100)]
    assert store.events("ann", 9) == []
    assert store.events("bob") == [("x", 100)]
    assert store.events("nobody") == []
    store.close()


def test_what_was_kept_is_there_after_it_is_opened_again(place):
    store = open_store(place)
    store.append(some("ann", "a"))
    store.keep_memory("ann", "bundle", b"\x00\xff")
    store.close()
    again = open_store(place)
    assert again.events("ann") == [("a", 100)]
    assert again.memory("ann", "bundle") == b"\x00\xff"
    assert again.memory("ann", "compare") is None
    assert again.memory("bob", "bundle") is None
    again.keep_memory("ann", "bundle", b"new")
    assert again.memory("ann", "bundle") == b"new"
    again.close()


@pytest.mark.parametrize("name", ["", "a/b", "zero\0byte", "'; DROP TABLE events; --", "日本", "a" * 500, "user:1"])
def test_any_name_is_a_name(place, name):
    store = open_store(place)
    store.append([Event(name, name, 1)])
    assert store.events(name) == [(name, 1)]
    assert store.events(name + "x") == []
    store.close()


def test_readers_and_a_writer_do_not_disturb_each_other(place):
    store = open_store(place)
    seen, stop = [], threading.Event()

    def read():
        while not stop.is_set():
            seen.append([item for item, _ in store.events("ann")])
            store.keep_memory("ann", "bundle", b"x" * 1000)

    reader = threading.Thread(target=read)
    reader.start()
    for n in range(100):
        store.append(some("ann", f"{n}.0", f"{n}.1"))
    stop.set()
    reader.join()
    whole = [f"{n}.{half}" for n in range(100) for half in range(2)]
    assert [item for item, _ in store.events("ann")] == whole
    assert all(items == whole[: len(items)] and len(items) % 2 == 0 for items in seen)
    store.close()


def test_two_services_may_share_a_file(tmp_path):
    one, two = (SQLiteStore(tmp_path / "events.sqlite") for _ in range(2))
    threads = [
        threading.Thread(target=lambda store=store, name=name: [store.append(some("ann", name)) for _ in range(50)])
        for store, name in ((one, "one"), (two, "two"))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    items = [item for item, _ in one.events("ann")]
    assert (items.count("one"), items.count("two")) == (50, 50)


def test_an_append_that_fails_keeps_nothing(tmp_path):
    store = SQLiteStore(tmp_path / "events.sqlite")
    with pytest.raises(OverflowError):
        store.append([Event("ann", "a", 1), Event("ann", "b", 2**70)])
    assert store.events("ann") == []
    store.append(some("ann", "a"))
    assert store.events("ann") == [("a", 100)]


def test_a_place_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "letter.txt").write_text("Dear Sir or Madam, " * 100)
    with pytest.raises(InputError, match=r"letter\.txt cannot be used as a store"):
        open_store(str(tmp_path / "letter.txt"))
    pytest.importorskip("redis")
    with pytest.raises(InputError, match=r"No Redis answers at redis://127\.0\.0\.1:1/0"):
        open_store("redis://127.0.0.1:1/0")


@pytest.mark.parametrize("table", ["events", "memories"])
def test_the_tables_of_another_program_are_refused_and_left_as_they_are(tmp_path, table):
    file = tmp_path / "other.sqlite"
    with closing(sqlite3.connect(file)) as other:
        other.execute(f"CREATE TABLE {table} (user TEXT, item TEXT, at TEXT)")
    before = file.read_bytes()
    with pytest.raises(
        InputError, match=rf"\(its table {table} has the columns user, item, at\); give another --store"
    ):
        SQLiteStore(file)
    assert file.read_bytes() == before


def test_a_redis_that_is_killed_is_missed_and_has_lost_nothing_when_it_is_back(tmp_path):
    port = a_free_port()
    with a_redis(tmp_path, port) as process:
        store = RedisStore(f"redis://127.0.0.1:{port}/0")
        store.append(some("ann", "a", "b"))
        process.kill()
        process.wait()
        with pytest.raises(StoreError, match="does not answer"):
            store.append(some("ann", "c"))
        with pytest.raises(StoreError, match="does not answer"):
            store.events("ann")
        store.keep_memory("ann", "bundle", b"")
    with a_redis(tmp_path, port):
        assert store.events("ann") == [("a", 100), ("b", 101)]
        store.append(some("ann", "d", since=102))
        assert store.events("ann", 1) == [("b", 101), ("d", 102)]
        store.close()


def test_a_redis_that_may_forget_is_reported(redis_url):
    import redis

    client = redis.Redis.from_url(redis_url)
    client.config_set("appendfsync", "everysec")
    with pytest.warns(UserWarning, match="may lose acknowledged events"):
        RedisStore(redis_url)
    client.config_set("appendfsync", "always")
