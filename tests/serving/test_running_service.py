"""The real program: killed in the middle, given a new bundle under load, asked to stop."""

import contextlib
import http.client
import itertools
import json
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
import requests
from small_bundles import STREAMING, WINDOWED, a_bundle, a_catalog

from seqrec.cli import main
from seqrec.export.changes import block_items
from seqrec.export.retriever import Retriever
from seqrec.serving.store import SQLiteStore

QUESTION = {"histories": [["item-001", "item-002"]], "k": 5}


def ids(items):
    return [each["item_id"] for each in items]


def test_no_acknowledged_event_is_lost_when_it_is_killed(start, streaming, tmp_path):
    """Two rounds: several writers send events and note what was acknowledged until the service dies under them."""
    store = f"--store={tmp_path / 'events.sqlite'}"
    acknowledged = {user: [] for user in ("ann", "bob", "cid", "dan")}
    numbers = {user: itertools.count() for user in acknowledged}
    for seconds in (0.8, 1.2):
        service = start(f"--bundle={streaming}", store)

        def write(user, service=service):
            with requests.Session() as session, contextlib.suppress(requests.RequestException):
                while True:
                    times = [next(numbers[user]) for _ in range(random.randint(1, 3))]
                    events = [{"user": user, "item": f"item-{n % 200:03d}", "time": n} for n in times]
                    answer = session.post(f"{service.url}/events", json={"events": events}, timeout=10)
                    assert answer.json()["acknowledged"] == len(events)
                    acknowledged[user] += times
                    session.get(f"{service.url}/users/{user}/recommend", timeout=10)

        writers = [threading.Thread(target=write, args=(user,), daemon=True) for user in acknowledged]
        for writer in writers:
            writer.start()
        time.sleep(seconds)
        service.kill()
        for writer in writers:
            writer.join(timeout=20)
    kept = SQLiteStore(tmp_path / "events.sqlite")
    service = start(f"--bundle={streaming}", store)
    retriever = Retriever.load(streaming)
    for user, times in acknowledged.items():
        assert len(times) > 10
        events = kept.events(user)
        found = [n for _, n in events]
        assert found == sorted(set(found)), "events are in order, each once"
        assert set(times) <= set(found)
        # What was sent and not acknowledged may be there, at most one request per round.
        assert len(set(found) - set(times)) <= 6
        answer = service.get(f"/users/{user}/recommend").json()["items"]
        seen = {item for item, _ in events}
        assert not seen & set(ids(answer))
        assert len(answer) == min(10, len(retriever.catalog) - len(seen))


def load(service, stop, outcomes):
    """Asks on one connection until told to stop; notes every answer and every failure."""
    host, port = service.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    body = json.dumps(QUESTION)
    while not stop.is_set():
        try:
            connection.request("POST", "/recommend", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            outcomes.append((answer.status, json.loads(answer.read())["answers"][0]["items"]))
        except Exception as error:
            outcomes.append((0, repr(error)))
            return


def test_a_new_bundle_takes_over_without_a_failed_request(start, own_bundle, tmp_path):
    newer = a_bundle(tmp_path / "newer", WINDOWED, seed=1)
    old, new = (
        [each.item_id for each in Retriever.load(folder).recommend(*QUESTION["histories"], k=5)]
        for folder in (own_bundle, newer)
    )
    assert old != new
    service = start(f"--bundle={own_bundle}", "--watch=0.2")
    stop, outcomes = threading.Event(), []
    clients = [threading.Thread(target=load, args=(service, stop, outcomes)) for _ in range(6)]
    for client in clients:
        client.start()
    time.sleep(1)
    # First one that is broken: the old one goes on, and says why.
    shutil.copytree(newer, tmp_path / "broken")
    (tmp_path / "broken" / "catalog.parquet").write_bytes(b"nothing")
    exchange(tmp_path / "broken", own_bundle)
    wait_until(lambda: service.get("/health").json()["models"]["bundle"]["refused"])
    assert "catalog.parquet" in service.get("/health").json()["models"]["bundle"]["refused"]
    exchange(newer, own_bundle)
    wait_until(lambda: service.get("/health").json()["models"]["bundle"]["exchanges"] == 1)
    time.sleep(0.5)
    stop.set()
    for client in clients:
        client.join()
    assert {status for status, _ in outcomes} == {200}, [told for status, told in outcomes if status != 200][:3]
    lists = [ids(items) for _, items in outcomes]
    assert lists[0] == old
    assert lists[-1] == new
    assert all(each in (old, new) for each in lists)
    assert ids(service.post("/recommend", QUESTION).json()["answers"][0]["items"]) == new
    assert service.get("/health").json()["models"]["bundle"]["refused"] is None


@pytest.mark.parametrize("last", ["encoder.safetensors", "withdrawn.json"])
def test_a_bundle_that_is_copied_file_by_file_is_taken_once_it_is_whole(start, own_bundle, tmp_path, last):
    newer = tmp_path / "newer"
    shutil.copytree(own_bundle, newer)
    service = start(f"--bundle={own_bundle}", "--watch=0.1")
    blocked = ids(service.post("/recommend", QUESTION).json()["answers"][0]["items"])[0]
    block_items(newer, blocked)
    (own_bundle / last).unlink(missing_ok=True)
    shutil.copy(newer / "manifest.json", tmp_path / "coming.json").rename(own_bundle / "manifest.json")

    def state():
        return service.get("/health").json()["models"]["bundle"]

    wait_until(lambda: f"{last} is missing" in (state()["refused"] or ""))
    time.sleep(0.5)
    assert service.log.read_text().count("is not taken") == 1, "what stays broken is read once"
    shutil.copytree(newer, own_bundle, dirs_exist_ok=True, ignore=shutil.ignore_patterns("manifest.json"))
    wait_until(lambda: state()["exchanges"] == 1)
    assert state()["refused"] is None
    assert blocked not in ids(service.post("/recommend", QUESTION).json()["answers"][0]["items"])


def exchange(newer, folder):
    """As `seqrec export` puts a bundle in the place of an older one."""
    newer.rename(newer.with_name("coming"))
    folder.rename(folder.with_name(f"old-{time.monotonic_ns()}"))
    newer.with_name("coming").rename(folder)


def wait_until(holds, seconds=60):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_users_go_on_with_a_new_bundle(start, tmp_path):
    folder = a_bundle(tmp_path / "bundle", STREAMING)
    newer = a_bundle(tmp_path / "newer", STREAMING, seed=1, catalog=a_catalog(300))
    service = start(f"--bundle={folder}", "--watch=0.1")
    service.post("/events", {"events": [{"user": "ann", "item": item} for item in ("item-001", "item-250")]})
    first = ids(service.get("/users/ann/recommend").json()["items"])
    assert first == [each.item_id for each in Retriever.load(folder).recommend(["item-001"])]
    wanted = [each.item_id for each in Retriever.load(newer).recommend(["item-001", "item-250"])]
    exchange(newer, folder)
    wait_until(lambda: service.get("/health").json()["models"]["bundle"]["exchanges"] == 1)
    assert ids(service.get("/users/ann/recommend").json()["items"]) == wanted


def test_who_asks_it_to_stop_still_gets_what_was_begun(start, windowed):
    service = start(f"--bundle={windowed}")
    host, port = service.url.removeprefix("http://").split(":")
    body = json.dumps(QUESTION).encode()
    head = (
        "POST /recommend HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode() + body[:10])
        time.sleep(0.3)
        service.process.terminate()
        time.sleep(0.7)
        with pytest.raises(OSError):
            socket.create_connection((host, int(port)), timeout=1).close()
        connection.sendall(body[10:])
        told = b""
        while piece := connection.recv(65_536):
            told += piece
    assert told.startswith(b"HTTP/1.1 200")
    assert service.process.wait(timeout=30) == -signal.SIGTERM
    assert "Application shutdown complete" in service.log.read_text()


def test_it_listens_to_this_machine_alone_and_warns_when_it_does_not(start, windowed, tmp_path):
    service = start(f"--bundle={windowed}")
    assert service.url.startswith("http://127.0.0.1:")
    assert service.get("/health", headers={"Host": "evil.example"}).status_code == 400
    open_to_all = start(f"--bundle={windowed}", "--host=0.0.0.0", f"--store={tmp_path / 'other.sqlite'}")
    assert open_to_all.get("/health", headers={"Host": "shop.example"}).status_code == 200
    assert "Everyone who reaches 0.0.0.0 may ask" in open_to_all.log.read_text()


@pytest.mark.parametrize("proxy", [False, True])
def test_addresses_that_a_request_claims_count_where_a_proxy_says_them_alone(start, windowed, proxy):
    service = start(f"--bundle={windowed}", "--rate=2/hour", *(["--proxy=true"] if proxy else []))
    told = [service.get("/items", headers={"X-Forwarded-For": f"10.0.0.{n}"}).status_code for n in range(3)]
    assert told == ([200, 200, 200] if proxy else [200, 200, 429])


def test_a_start_that_cannot_be_is_answered_with_a_sentence(tmp_path, windowed, capsys):
    command = [sys.executable, "-m", "seqrec.cli", "serve", f"--bundle={tmp_path}", f"--store={tmp_path / 'e.sqlite'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.startswith("seqrec: error:")
    assert "is not a bundle" in done.stderr
    for option, sentence in (
        ("--threads=0", "--threads is 0; give at least 1."),
        ("--port=70000", "--port is 70000; give 1 to 65535, or 0 for a free one."),
        (
            f"--store={windowed}/e.sqlite",
            f"--store is in {windowed}, which is replaced whenever that changes; keep it elsewhere.",
        ),
        ("--rate=9/second;3/hour", "--rate is '9/second;3/hour'; give something like 100/second or 5000/hour."),
        ("--rate=often", "--rate is 'often'; give something like 100/second or 5000/hour."),
    ):
        assert main(["serve", f"--bundle={windowed}", option]) == 2
        assert capsys.readouterr().err == f"seqrec: error: {sentence}\n"


def test_a_head_without_end_is_refused_and_large_bodies_are_not(start, windowed):
    service = start(f"--bundle={windowed}")
    host, port = service.url.removeprefix("http://").split(":")
    for first in (b"GET /health HTTP/1.1\r\nX-A: ", b"GET /"):
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall(first)
            with contextlib.suppress(OSError):
                for _ in range(64):
                    connection.sendall(b"a" * 2**16)
            answer = b""
            with contextlib.suppress(OSError):
                answer = connection.recv(100)
            assert answer == b"" or answer.startswith(b"HTTP/1.1 431 ")
    assert service.get("/health", headers={"X-A": "a" * 30_000}).status_code == 200
    long = {"histories": [["item-001"]], "k": 5, "deny": ["item-002"] * 60_000}
    with requests.Session() as session:  # one connection, bodies of many pieces
        for _ in range(3):
            assert session.post(f"{service.url}/recommend", json=long, timeout=20).status_code in (200, 422)
    assert service.get("/health").status_code == 200


def test_help_teaches(capsys):
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    told = capsys.readouterr().out
    for word in (
        "seqrec serve --bundle bundles/shop",
        "--compare",
        "--store",
        "--api_keys",
        "--rate",
        "/docs",
        "Ctrl-C",
    ):
        assert word in told
