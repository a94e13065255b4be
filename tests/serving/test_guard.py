"""Who has no key, asks too often or sends too much is told so, and the service goes on for the others."""

import re
import time

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.requests import Request

from seqrec.data.errors import InputError
from seqrec.serving.app import build_app
from seqrec.serving.guard import Guard, Limits, read_keys, read_rate
from seqrec.serving.metrics import Metrics
from seqrec.serving.store import SQLiteStore

QUESTION = {"histories": [["item-001"]]}


@pytest.fixture
def client_of(windowed, tmp_path):
    """A client of a service with these limits."""
    clients = []

    def build(limits):
        client = TestClient(build_app(windowed, SQLiteStore(tmp_path / "events.sqlite"), limits=limits, watch=0.0))
        clients.append(client)
        return client.__enter__()

    yield build
    for client in clients:
        client.__exit__(None, None, None)


def test_only_who_knows_a_key_is_answered(client_of):
    client = client_of(Limits(keys=["first", "sécond"]))
    for headers in ({}, {"X-API-Key": ""}, {"X-API-Key": "firs"}, {"X-API-Key": "firstx"}):
        answer = client.post("/recommend", json=QUESTION, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "key_needed")
    assert client.post("/recommend", json=QUESTION, headers={"X-API-Key": "first"}).status_code == 200
    for path in ("/metrics", "/openapi.json", "/items", "/users/ann/recommend"):
        assert client.get(path).status_code == 401
    for path in ("/", "/page/app.js", "/page/style.css", "/health"):
        assert client.get(path).status_code == 200


def test_a_key_of_any_letters_is_a_key(client_of):
    client = client_of(Limits(keys=["schlüssel"]))
    assert client.get("/items", headers={"X-API-Key": "schlüssel".encode()}).status_code == 200
    assert client.get("/items", headers={"X-API-Key": "schluessel"}).status_code == 401


def test_who_asks_too_often_waits_and_others_do_not(client_of):
    client = client_of(Limits(keys=["ann", "bob"], rate=read_rate("3/minute")))
    told = [client.post("/recommend", json=QUESTION, headers={"X-API-Key": "ann"}) for _ in range(4)]
    assert [answer.status_code for answer in told] == [200, 200, 200, 429]
    assert 1 <= int(told[-1].headers["Retry-After"]) <= 60
    assert re.search(r"3 per 1 minute; ask again in \d+ s", told[-1].json()["error"]["message"])
    assert client.post("/recommend", json=QUESTION, headers={"X-API-Key": "bob"}).status_code == 200
    assert client.get("/health").status_code == 200


def test_where_there_are_no_keys_nobody_gets_around_the_rate_with_one(client_of):
    client = client_of(Limits(rate=read_rate("2/minute")))
    told = [client.get("/items", headers={"X-API-Key": f"{n}"}).status_code for n in range(3)]
    assert told == [200, 200, 429]


def test_who_asked_long_ago_is_forgotten(client_of):
    guard = Guard(FastAPI(), Limits(rate=read_rate("2/second")), Metrics())
    for n in range(1000):
        scope = {"type": "http", "method": "GET", "path": "/items", "headers": [], "client": (f"10.0.0.{n}", 1)}
        assert guard._refuses(Request(scope), "/items") is None
    storage = guard._limiter.storage
    time.sleep(2.1)  # two windows
    storage.incr("another", 1)  # whoever comes next makes it look
    deadline = time.monotonic() + 20
    while max(len(kept) for kept in (storage.storage, storage.events, storage.expirations, storage.locks)) > 1:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_page_that_only_pretends_to_be_of_this_machine_is_not_answered(client_of):
    client = client_of(Limits(hosts=["localhost", "127.0.0.1", "[::1]"]))
    for host in ("localhost", "LOCALHOST:8000", "127.0.0.1:8000", "[::1]", "[::1]:8000"):
        assert client.post("/recommend", json=QUESTION, headers={"Host": host}).status_code == 200
    for host in ("evil.example", "ev_il.example:8000", "localhost.evil.example", "x/health?", "", "evil@localhost"):
        for path in ("/items", "/health", "/"):
            answer = client.get(path, headers={"Host": host})
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "other_host")


def test_what_a_request_says_of_the_host_opens_no_door(client_of):
    client = client_of(Limits(keys=["first"]))
    for host in ("x/health?", "x/page/?", "x/health#", "[x"):
        assert client.get("/items", headers={"Host": host}).status_code == 401


def test_a_request_that_is_too_large_is_refused_however_it_comes(client_of):
    client = client_of(Limits(largest_request=1000))
    large = b'{"histories": [["' + b"x" * 1000 + b'"]]}'
    headers = {"Content-Type": "application/json"}
    whole = client.post("/recommend", content=large, headers=headers)
    pieces = client.post("/recommend", content=iter([large[:500], large[500:]]), headers=headers)
    for answer in (whole, pieces):
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    assert client.post("/recommend", json=QUESTION).status_code == 200


def test_requests_are_counted_by_route_and_not_by_address(client_of):
    client = client_of(Limits())
    for n in range(3):
        client.get(f"/users/user-{n}/recommend")
    client.post("/events", json={"events": [{"user": "ann", "item": "item-001"}] * 5})
    told = client.get("/metrics").text
    assert 'seqrec_requests_total{method="GET",route="/users/{user:path}/recommend",status="404"} 3.0' in told
    assert "seqrec_events_total 5.0" in told
    assert 'seqrec_request_seconds_count{route="/events"} 1.0' in told
    assert "user-1" not in told
    assert "process_resident_memory_bytes" in told


def test_nothing_on_the_page_may_come_from_elsewhere(client_of):
    client = client_of(Limits())
    assert client.get("/").headers["Content-Security-Policy"].startswith("default-src 'self'")


def test_a_file_without_keys_and_a_rate_that_is_none_are_refused(tmp_path):
    (tmp_path / "keys").write_text("\n one \n\ntwo\n")
    assert read_keys(tmp_path / "keys") == ["one", "two"]
    (tmp_path / "none").write_text("\n")
    with pytest.raises(InputError, match="holds no key"):
        read_keys(tmp_path / "none")
    with pytest.raises(InputError, match="cannot be read"):
        read_keys(tmp_path / "absent")
    with pytest.raises(InputError, match="--rate is 'often'"):
        read_rate("often")
