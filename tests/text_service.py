"""A local service that speaks the protocol over real HTTP, and misbehaves where it is told to."""

from __future__ import annotations

import hashlib
import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class TextService(ThreadingHTTPServer):
    """Answers chats and embeddings by a checksum of what is asked.

    Attributes:
        asked: the body of every request, in order of arrival, with its path and time.
        troubles: what goes wrong with the next requests, first come first served.
        refuses: texts without a vector; a request with one of them is answered 400.
        retry_after: what it says beside 429.
        delay: seconds until an answer.
        most_at_once: most requests that were under way together.
        model: the name that it answers under; None repeats the one that was asked for.
        tells_usage: whether it says what an answer took.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[dict] = []
        self.troubles: list[str] = []
        self.refuses: set[str] = set()
        self.retry_after = "0.3"
        self.delay = 0.0
        self.most_at_once = self.under_way = 0
        self.model: str | None = None
        self.tells_usage = True
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: TextService

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.lock:
            self.server.under_way += 1
            self.server.most_at_once = max(self.server.most_at_once, self.server.under_way)
            self.server.asked.append({"path": self.path, "at": time.monotonic(), "key": self.headers["authorization"]})
            self.server.asked[-1]["body"] = body
            refused = "400" if self.server.refuses.intersection(body.get("input", [])) else ""
            trouble = self.server.troubles.pop(0) if self.server.troubles else refused
        if trouble == "interrupt":  # as if somebody had pressed Ctrl-C
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        try:
            time.sleep(self.server.delay + (1.0 if trouble == "slow" else 0.0))
            self.answer(trouble, body)
        except (BrokenPipeError, ConnectionResetError):  # the one who asked has left
            self.close_connection = True
        finally:
            with self.server.lock:
                self.server.under_way -= 1

    def answer(self, trouble: str, body: dict) -> None:
        if trouble == "gone":
            self.close_connection = True
            return
        reply = chat(body) if self.path.endswith("/chat/completions") else embeddings(body)
        reply["model"] = "other" if trouble == "other" else self.server.model or body["model"]
        if not self.server.tells_usage:
            reply["usage"] = None
        if trouble == "empty":
            reply |= {"choices": [{"index": 0, "message": {"role": "assistant", "content": " "}}], "data": []}
        if trouble == "cut" and "choices" in reply:
            reply["choices"][0]["finish_reason"] = "length"
        content = json.dumps({"error": {"message": f"trouble {trouble}"}} if trouble.isdecimal() else reply).encode()
        content = {"nonsense": b'{"choices": [}', "shape": b'{"hello": 1}'}.get(trouble, content)
        self.send_response(int(trouble) if trouble.isdecimal() else 200)
        if trouble == "429":
            self.send_header("retry-after", self.server.retry_after)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if trouble == "half" else content)
        self.close_connection = trouble == "half"

    def log_message(self, *_: object) -> None:
        pass


def chat(body: dict) -> dict:
    text = json.dumps(body["messages"])
    message = {"role": "assistant", "content": f"Written of {hashlib.sha256(text.encode()).hexdigest()[:12]}."}
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    return {"id": "c", "object": "chat.completion", "created": 0, "usage": usage} | {
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]
    }


def vector_of(text: str, dim: int = 8) -> list[float]:
    return [byte / 256 for byte in hashlib.sha256(text.encode()).digest()[:dim]]


def embeddings(body: dict) -> dict:
    lines = [
        {"object": "embedding", "index": place, "embedding": vector_of(text, body.get("dimensions", 8))}
        for place, text in enumerate(body["input"])
    ]
    return {"object": "list", "data": lines[::-1], "usage": {"prompt_tokens": 7 * len(lines), "total_tokens": 7}}


@contextmanager
def running() -> Iterator[TextService]:
    server = TextService()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
