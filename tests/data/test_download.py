"""A download ends with the whole, right file, or with one sentence and no file, whatever the server does."""

import hashlib
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from seqrec.data.download import download
from seqrec.data.errors import InputError

CONTENT = random.Random(0).randbytes(700_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Answer(BaseHTTPRequestHandler):
    """One request, answered by the server's own manners."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.close_connection = True
        self.server.ranges.append(self.headers["Range"])
        self.server.manners(self)

    def log_message(self, *_: object) -> None: ...

    def send(self, body: bytes, status: int = 200, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.send_header("Connection", "close")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    @property
    def start(self) -> int:
        return int((self.headers["Range"] or "bytes=0-")[6:-1])


@contextmanager
def server(manners: Callable[[Answer], None]) -> Iterator[tuple[str, list]]:
    http = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    http.manners, http.ranges = manners, []
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_port}/data.zip", http.ranges
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def honest(answer: Answer, stop: int | None = None) -> None:
    """Keeps the rules of ranges; breaks off after ``stop`` bytes of the file."""
    start = answer.start
    if start >= len(CONTENT):
        answer.send(b"", 416, Content_Range=f"bytes */{len(CONTENT)}")
    elif start:
        span = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
        answer.send(CONTENT[start:stop], 206, len(CONTENT) - start, Content_Range=span)
    else:
        answer.send(CONTENT[:stop], length=len(CONTENT))


def breaks_off_once(answer: Answer) -> None:
    honest(answer, 300_000 if len(answer.server.ranges) == 1 else None)


def breaks_off_and_ignores_ranges(answer: Answer) -> None:
    stop = 300_000 if len(answer.server.ranges) == 1 else None
    answer.send(CONTENT[:stop], length=len(CONTENT))


def is_busy_once(answer: Answer) -> None:
    if len(answer.server.ranges) == 1:
        answer.send(b"later", 503)
    else:
        honest(answer)


def says_no_length(answer: Answer) -> None:
    answer.send_response(200)
    answer.send_header("Connection", "close")
    answer.end_headers()
    answer.wfile.write(CONTENT)


@pytest.mark.parametrize(
    "manners", [honest, breaks_off_once, breaks_off_and_ignores_ranges, is_busy_once, says_no_length]
)
def test_the_file_arrives_whole(tmp_path, manners):
    with server(manners) as (url, _):
        target = download(url, tmp_path / "new" / "data.zip", SHA256, backoff=0.0)
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == ["data.zip"]


def test_a_transfer_that_broke_off_is_continued_not_repeated(tmp_path):
    with server(breaks_off_once) as (url, ranges):
        download(url, tmp_path / "data.zip", SHA256, backoff=0.0)
    assert len(ranges) == 2
    assert 200_000 < int(ranges[1][6:-1]) <= 300_000


def test_a_later_call_continues_what_an_earlier_one_left(tmp_path):
    with server(lambda answer: honest(answer, 300_000)) as (url, _), pytest.raises(InputError, match="again to cont"):
        download(url, tmp_path / "data.zip", SHA256, attempts=2, backoff=0.0)
    kept = (tmp_path / "data.zip.part").stat().st_size
    assert 200_000 < kept <= 300_000
    assert not (tmp_path / "data.zip").exists()
    with server(honest) as (url, ranges):
        assert download(url, tmp_path / "data.zip", SHA256).read_bytes() == CONTENT
    assert ranges == [f"bytes={kept}-"]


@pytest.mark.parametrize(
    ("told", "asked"),
    [
        ({"ETag": '"a"', "Last-Modified": "Sun"}, '"a"'),
        ({"ETag": 'W/"a"', "Last-Modified": "Sun"}, "Sun"),
        ({"ETag": 'W/"a"'}, None),
        ({}, None),
    ],
)
def test_without_a_checksum_only_the_same_version_is_continued(tmp_path, told, asked):
    other, conditions = bytes(len(CONTENT)), []

    def changes(answer: Answer) -> None:
        conditions.append((answer.headers["Range"] is not None, answer.headers["If-Range"]))
        if len(conditions) == 1:
            answer.send(other[:300_000], length=len(other), **told)
        elif answer.start and answer.headers["If-Range"] is None:
            honest(answer)
        else:
            answer.send(CONTENT, **told)

    with server(changes) as (url, _):
        assert download(url, tmp_path / "data.zip", backoff=0.0).read_bytes() == CONTENT
    assert conditions == [(False, None), (asked is not None, asked)]
    assert [path.name for path in tmp_path.iterdir()] == ["data.zip"]


@pytest.mark.parametrize("size", [len(CONTENT), len(CONTENT) + 5])
def test_a_part_that_is_whole_or_too_long_is_dealt_with(tmp_path, size):
    (tmp_path / "data.zip.part").write_bytes((CONTENT + b"extra")[:size])
    with server(honest) as (url, _):
        assert download(url, tmp_path / "data.zip", SHA256, backoff=0.0).read_bytes() == CONTENT


@pytest.mark.parametrize("claim", [len(CONTENT) + 10, len(CONTENT) - 10])
def test_a_server_that_lies_about_the_length_leaves_no_file(tmp_path, claim):
    with server(lambda answer: answer.send(CONTENT, length=claim)) as (url, _), pytest.raises(InputError) as caught:
        download(url, tmp_path / "data.zip", SHA256, attempts=2, backoff=0.0)
    assert url in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "data.zip").exists()


def test_another_range_than_asked_for_is_not_appended(tmp_path):
    def shifted(answer: Answer) -> None:
        if answer.start:
            answer.send(CONTENT[7:], 206, Content_Range=f"bytes 7-{len(CONTENT) - 1}/{len(CONTENT)}")
        else:
            honest(answer)

    (tmp_path / "data.zip.part").write_bytes(CONTENT[:1000])
    with server(shifted) as (url, _):
        assert download(url, tmp_path / "data.zip", SHA256, backoff=0.0).read_bytes() == CONTENT


def test_a_wrong_checksum_leaves_neither_file_nor_part(tmp_path):
    with server(honest) as (url, _), pytest.raises(InputError, match="sha256"):
        download(url, tmp_path / "data.zip", "0" * 64)
    assert not list(tmp_path.iterdir())


def test_a_missing_page_is_one_sentence(tmp_path):
    with server(lambda answer: answer.send(b"no", 404)) as (url, ranges), pytest.raises(InputError) as caught:
        download(url, tmp_path / "data.zip", backoff=0.0)
    assert "404" in str(caught.value)
    assert "--raw" in str(caught.value)
    assert len(ranges) == 1
    assert not list(tmp_path.iterdir())


def test_a_server_that_is_away_is_one_sentence(tmp_path):
    with server(honest) as (url, _):
        pass
    with pytest.raises(InputError) as caught:
        download(url, tmp_path / "data.zip", attempts=1, backoff=0.0)
    assert url in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_there_is_kept_if_it_is_right(tmp_path):
    (tmp_path / "data.zip").write_bytes(CONTENT)
    assert download("http://127.0.0.1:1/never", tmp_path / "data.zip", SHA256).read_bytes() == CONTENT
    with pytest.raises(InputError, match="remove it"):
        download("http://127.0.0.1:1/never", tmp_path / "data.zip", "0" * 64)


def test_the_licence_is_shown(tmp_path, capsys):
    with server(honest) as (url, _):
        download(url, tmp_path / "data.zip", licence="research [only]")
    assert "research [only]" in capsys.readouterr().err
