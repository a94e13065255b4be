"""Stands before the service: asks for a key, counts requests per client, and measures all of them."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from limits import RateLimitItem, parse_many
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from seqrec.data.errors import InputError
from seqrec.serving.metrics import Metrics

OPEN = ("/health", "/", "/page/", "/favicon.ico")
_POLICY = "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'"
# The pages that describe the service bring a script of their own within the page.
_DOCUMENTS = ("/docs", "/static-offline-docs")
_PORT = re.compile(r":\d+$")


@dataclass(frozen=True)
class Limits:
    """What a client may do.

    Attributes:
        keys: one of these must be sent as ``X-API-Key``; none lets everyone in.
        rate: requests per time, per key or else per address; None does not count.
        largest_request: bytes of the largest body.
        hosts: names in small letters, one of which a request must have in its ``Host``, without the port; none lets any
            pass. A page from elsewhere whose name is made to mean this machine has another.
    """

    keys: Collection[str] = ()
    rate: RateLimitItem | None = None
    largest_request: int = 2**20
    hosts: Collection[str] = ()


def read_keys(path: Path) -> list[str]:
    """The keys of a file, one a line.

    Raises:
        InputError: there is none.
    """
    try:
        keys = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); give a file with one API key a line.") from error
    if not keys:
        raise InputError(f"{path} holds no key; give a file with one API key a line.")
    return keys


def read_rate(words: str) -> RateLimitItem:
    """A rate like ``100/second`` or ``5000/hour``.

    Raises:
        InputError: it is not one.
    """
    try:
        (rate,) = parse_many(words)
    except ValueError as error:
        raise InputError(f"--rate is '{words}'; give something like 100/second or 5000/hour.") from error
    return rate


def refusal(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """How every error of the service looks."""
    readable = message.encode("utf-8", "backslashreplace").decode()
    return JSONResponse({"error": {"code": code, "message": readable}}, status, headers)


class Guard:
    """The outermost layer of the service.

    Args:
        app: what it guards.
        limits: what a client may do.
        metrics: where requests are counted.
    """

    def __init__(self, app: ASGIApp, limits: Limits, metrics: Metrics) -> None:
        self._app, self._limits, self._metrics = app, limits, metrics
        self._keys = [key.encode() for key in limits.keys]
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if not scope["path"].startswith(_DOCUMENTS):
                    message["headers"].append((b"content-security-policy", _POLICY.encode()))
                message["headers"].append((b"x-content-type-options", b"nosniff"))
            await send(message)

        n_bytes = 0

        async def measured() -> Message:
            nonlocal n_bytes
            message = await receive()
            n_bytes += len(message.get("body", b""))
            if n_bytes > self._limits.largest_request:
                raise HTTPException(413, f"Send at most {self._limits.largest_request:,} bytes in one request.")
            return message

        with self._metrics.in_flight.track_inprogress():
            try:
                await (self._refuses(Request(scope), scope["path"]) or self._app)(scope, measured, noted)
            finally:
                route = getattr(scope.get("route"), "path", "other")
                self._metrics.requests.labels(route, scope["method"], status).inc()
                self._metrics.seconds.labels(route).observe(time.perf_counter() - began)

    def _refuses(self, request: Request, path: str) -> Response | None:
        host = _PORT.sub("", request.headers.get("host", "")).lower()
        if self._limits.hosts and host not in self._limits.hosts:
            known = ", ".join(self._limits.hosts)
            message = f"This service is called {known}; ask for one of these, or start it with --api_keys or --proxy."
            return refusal(400, "other_host", message)
        if path in OPEN or path.startswith("/page/"):
            return None
        given = request.headers.get("x-api-key", "")
        if self._keys and not any(secrets.compare_digest(given.encode("latin-1"), key) for key in self._keys):
            return refusal(401, "key_needed", "A key is needed; send one that the service knows as X-API-Key.")
        rate = self._limits.rate
        client = given if self._keys else request.client.host if request.client else ""
        if rate is not None and not self._limiter.hit(rate, client):
            reset, _ = self._limiter.get_window_stats(rate, client)
            wait = str(max(1, round(reset - time.time())))
            return refusal(429, "too_many", f"More than {rate}; ask again in {wait} s.", {"Retry-After": wait})
        return None
