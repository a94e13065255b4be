"""The HTTP service over a bundle: recommendations, events of users, similar items, and a page to try it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.staticfiles import StaticFiles

from seqrec.data.errors import InputError, nearest
from seqrec.serving import schemas
from seqrec.serving.batching import Overloaded
from seqrec.serving.guard import Guard, Limits, refusal
from seqrec.serving.metrics import Metrics
from seqrec.serving.models import Place, settle
from seqrec.serving.schemas import Which
from seqrec.serving.service import Service
from seqrec.serving.store import Store, StoreError

log = logging.getLogger("seqrec.serving")

PAGE = Path(__file__).parent / "page"
_FAILURES = {
    400: "a request that cannot be read, or for another host",
    401: "no key, or an unknown one",
    404: "nothing of that name",
    413: "a larger request than may be",
    422: "a request that cannot be understood",
    429: "more requests than may be",
    503: "more requests than can be answered, or a store that is away",
}
RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.Failure, "description": text} for status, text in _FAILURES.items()
}


def build_app(
    bundle: Path,
    store: Store,
    compare: Path | None = None,
    limits: Limits | None = None,
    watch: float = 2.0,
) -> FastAPI:
    """The application.

    Args:
        bundle: folder of the bundle that is served.
        store: where events are kept; the application closes it.
        compare: folder of another bundle, to be asked beside the first.
        limits: what a client may do.
        watch: seconds between two looks for newer bundles in these folders; 0 never looks.

    Raises:
        InputError: a bundle cannot be read.
    """
    folders = {Which.bundle: bundle} | ({} if compare is None else {Which.compare: compare})
    places = {which: Place(folder, store, which) for which, folder in folders.items()}
    limits, metrics = limits or Limits(), Metrics()
    service = Service(places, store, metrics)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        settle()
        watches = [asyncio.create_task(place.watch(watch)) for place in places.values()] if watch else []
        yield
        for each in watches:
            each.cancel()
        await service.close()

    app = FastAPIOffline(
        redoc_url=None,
        title="seqrec",
        summary="Given what a person did so far, which item comes next?",
        responses=RESPONSES,
        lifespan=lifespan,
    )
    _add_routes(app, service)
    _add_errors(app)
    app.add_middleware(Guard, limits=limits, metrics=metrics)
    return app


def _add_routes(app: FastAPI, service: Service) -> None:
    routes = (
        ("POST", "/recommend", service.recommend),
        ("POST", "/events", service.add_events),
        ("GET", "/users/{user:path}/recommend", service.recommend_user),
        ("GET", "/similar/{item:path}", service.similar),
        ("POST", "/influence", service.influence),
        ("GET", "/items", service.items),
    )
    for method, path, answer in routes:
        app.add_api_route(path, answer, methods=[method], dependencies=[Depends(_known_options)])
    app.add_api_route("/health", service.health, methods=["GET"])
    text = {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "metrics"}
    app.add_api_route("/metrics", service.metrics, methods=["GET"], response_class=Response, responses={200: text})
    app.mount("/page", StaticFiles(directory=PAGE))
    app.add_api_route("/", _page, methods=["GET"], include_in_schema=False)


async def _known_options(request: Request) -> None:
    """Refuse an address with an option that its route does not read."""
    known = [field.alias for field in request.scope["route"].dependant.query_params]
    for name in request.query_params:
        if name not in known:
            raise InputError(f"This address has no option '{name}'; {nearest(name, known)}.")


async def _page() -> Response:
    return Response((PAGE / "index.html").read_bytes(), media_type="text/html")


def _add_errors(app: FastAPI) -> None:
    async def invalid(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        told = [f"{'.'.join(map(str, each['loc'][1:])) or 'the body'}: {each['msg']}" for each in error.errors()]
        return refusal(422, "invalid", "; ".join(told[:10]))

    async def impossible(_: Request, error: Exception) -> JSONResponse:
        return refusal(422, "impossible", str(error))

    async def refused(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        code = {400: "unreadable", 404: "not_found", 405: "method_not_allowed", 413: "too_large"}.get(
            error.status_code, "refused"
        )
        headers = dict(error.headers or {})
        return refusal(error.status_code, code, str(error.detail), headers)

    async def overloaded(_: Request, error: Exception) -> JSONResponse:
        return refusal(503, "overloaded", str(error), {"Retry-After": "1"})

    async def away(_: Request, error: Exception) -> JSONResponse:
        log.error("%s", error)
        return refusal(503, "store", str(error), {"Retry-After": "1"})

    async def broken(request: Request, error: Exception) -> JSONResponse:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return refusal(500, "failed", "The service failed to answer; its log says why.")

    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(InputError, impossible)
    app.add_exception_handler(HTTPException, refused)
    app.add_exception_handler(Overloaded, overloaded)
    app.add_exception_handler(StoreError, away)
    app.add_exception_handler(Exception, broken)
