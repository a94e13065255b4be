"""The HTTP service over a bundle: recommendations, events of users, similar items, and a page to try it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.staticfiles import StaticFiles

from seqrec.data.errors import InputError
from seqrec.serving import schemas
from seqrec.serving.batching import Batcher, Overloaded
from seqrec.serving.filters import Filters
from seqrec.serving.guard import Guard, Limits, refusal
from seqrec.serving.metrics import Metrics
from seqrec.serving.models import Model, Place, settle
from seqrec.serving.questions import AboutHistories, AboutInfluence, AboutItem, AboutUser, Question, answer_all
from seqrec.serving.schemas import K, Seconds, Text, Which
from seqrec.serving.store import Event, Store, StoreError

log = logging.getLogger("seqrec.serving")

PAGE = Path(__file__).parent / "page"
_FAILURES = {
    400: "a request that cannot be read",
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

WhichModel = Annotated[Which, Query(description="which model answers")]
Names = Annotated[list[Text] | None, Query(max_length=schemas.MOST_IN_ADDRESS)]


class Service:
    """What answers requests; its methods are the routes.

    Args:
        places: where the models stand.
        store: of events.
        metrics: what is counted.
    """

    def __init__(self, places: dict[Which, Place], store: Store, metrics: Metrics) -> None:
        self._places, self._store, self._metrics = places, store, metrics
        self._models: Batcher[Question, Any] = Batcher("models", answer_all, observe=metrics.batch.observe)
        self._events: Batcher[Sequence[Event], StoreError | None] = Batcher(
            "events", self._append, observe=metrics.append.observe
        )

    async def close(self) -> None:
        """Answer those who wait, and let go of the store."""
        await self._events.close()
        await self._models.close()
        self._store.close()

    def _append(self, batch: list[Sequence[Event]]) -> list[StoreError | None]:
        """Keep the events of several requests, all or none; nobody tries again, lest they be there twice."""
        try:
            self._store.append([event for events in batch for event in events])
        except StoreError as failure:
            return [failure] * len(batch)
        return [None] * len(batch)

    def _model(self, which: Which) -> Model:
        place = self._places.get(which)
        if place is None:
            raise HTTPException(404, "There is one model only; start the service with --compare to have another.")
        return place.model

    async def recommend(self, asked: schemas.HistoriesIn) -> schemas.Answers:
        """Which items follow each of these histories?

        Items that the catalog does not have are skipped and listed. A history without a known item has no answer.
        """
        if len(asked.histories) * asked.k > schemas.MOST_ANSWERED:
            raise InputError(f"Ask for at most {schemas.MOST_ANSWERED:,} items in one request, over all histories.")
        model = self._model(asked.model)
        _demand_times(model, asked.histories, asked.times)
        known, times, unknown = _known(model, asked.histories, asked.times)
        lists = await self._models.ask(
            AboutHistories(
                model,
                known,
                times,
                asked.k,
                asked.exclude_seen,
                _moment(model, asked.asked_at),
                _filters(asked.allow, asked.deny, asked.categories),
            )
        )
        return schemas.Answers.model_construct(
            answers=[
                schemas.Answer.model_construct(items=some, unknown=absent)
                for some, absent in zip(lists, unknown, strict=True)
            ]
        )

    async def add_events(self, told: schemas.EventsIn) -> schemas.Acknowledged:
        """Keep what users did. When this is answered, the events outlive the service.

        Events of a user are read in the order in which they were acknowledged. Send them again if no answer came:
        they are then kept twice where the answer alone was lost.
        """
        now = int(time.time())
        events = [Event(each.user, each.item, now if each.time is None else each.time) for each in told.events]
        failure = await self._events.ask(events)
        if failure is not None:
            raise failure
        self._metrics.events.inc(len(events))
        unknown = self._model(Which.bundle).unknown([event.item for event in events])
        return schemas.Acknowledged(acknowledged=len(events), unknown=unknown)

    async def recommend_user(
        self,
        user: Text,
        k: Annotated[K, Query()] = 10,
        exclude_seen: bool = True,
        asked_at: Annotated[Seconds | None, Query()] = None,
        allow: Names = None,
        deny: Names = None,
        categories: Names = None,
        model: WhichModel = Which.bundle,
    ) -> schemas.Items:
        """Which items follow what this user did?"""
        chosen = self._model(model)
        filters = _filters(allow, deny or (), categories)
        found = await self._models.ask(AboutUser(chosen, user, k, exclude_seen, _moment(chosen, asked_at), filters))
        if found is None:
            raise HTTPException(404, f"Nothing is known of user '{user}'; send what they do to /events first.")
        return schemas.Items.model_construct(items=found)

    async def similar(
        self, item: Text, k: Annotated[K, Query()] = 10, model: WhichModel = Which.bundle
    ) -> schemas.Items:
        """Which items does the model take for most like this one? The score is a cosine."""
        chosen = self._model(model)
        if chosen.unknown([item]):
            raise HTTPException(404, f"Item '{item}' is not in the catalog; /items finds those that are.")
        return schemas.Items.model_construct(items=await self._models.ask(AboutItem(chosen, item, k)))

    async def influence(self, asked: schemas.InfluenceIn) -> schemas.Influences:
        """Which events of a history made the model recommend the target? Each is left out once."""
        model = self._model(asked.model)
        if model.unknown([asked.target]):
            raise HTTPException(404, f"Item '{asked.target}' is not in the catalog; /items finds those that are.")
        _demand_times(model, [asked.history], None if asked.times is None else [asked.times])
        clock = None if asked.times is None else tuple(asked.times)
        falls = await self._models.ask(
            AboutInfluence(model, tuple(asked.history), asked.target, clock, _moment(model, asked.asked_at))
        )
        titles = model.titles(asked.history)
        return schemas.Influences(
            events=[
                schemas.Influence(item_id=item, title=title, influence=fall)
                for item, title, fall in zip(asked.history, titles, falls, strict=True)
            ]
        )

    async def items(
        self,
        search: Annotated[str, Query(max_length=512, description="words of titles or raw ids")] = "",
        limit: Annotated[int, Query(ge=1, le=100)] = 10,
        model: WhichModel = Which.bundle,
    ) -> schemas.FoundItems:
        """Items that have all of these words in their title or raw id; the most frequent ones for no words."""
        found = await asyncio.to_thread(self._model(model).search, search, limit)
        return schemas.FoundItems(items=found)

    async def health(self) -> schemas.Health:
        """Is the service alive, and which bundles does it serve?"""
        return schemas.Health(status="ok", models={which: _state(place) for which, place in self._places.items()})

    async def metrics(self) -> Response:
        """What Prometheus reads."""
        self._metrics.waiting.set(self._models.n_waiting)
        for which, place in self._places.items():
            self._metrics.exchanges.labels(which).set(place.exchanges)
            self._metrics.loaded.labels(which).set(place.model.loaded_at)
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


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
        ("GET", "/health", service.health),
    )
    for method, path, answer in routes:
        app.add_api_route(path, answer, methods=[method])
    text = {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "metrics"}
    app.add_api_route("/metrics", service.metrics, methods=["GET"], response_class=Response, responses={200: text})
    app.mount("/page", StaticFiles(directory=PAGE))
    app.add_api_route("/", _page, methods=["GET"], include_in_schema=False)


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


def _demand_times(model: Model, histories: Sequence[Sequence[str]], times: Sequence[Sequence[int]] | None) -> None:
    if times is None:
        if model.reads_clock:
            raise InputError("This model reads when events happened; give times, in seconds since 1970, for each item.")
        return
    lengths, others = [len(history) for history in histories], [len(clock) for clock in times]
    if lengths != others:
        raise InputError(f"The histories have {lengths} items and {others} times; give one time for each item.")


def _known(
    model: Model, histories: Sequence[Sequence[str]], times: Sequence[Sequence[int]] | None
) -> tuple[list[list[str]], list[list[int]] | None, list[list[str]]]:
    """Histories and times of known items, and which items of each are not."""
    unknown = [model.unknown(history) for history in histories]
    keeps = [[item not in absent for item in some] for some, absent in zip(histories, unknown, strict=True)]

    def kept(lists: Sequence[Sequence[Any]]) -> list[list[Any]]:
        both = zip(lists, keeps, strict=True)
        return [[each for each, keep in zip(some, marks, strict=True) if keep] for some, marks in both]

    return kept(histories), None if times is None else kept(times), unknown


def _moment(model: Model, asked_at: int | None) -> int | None:
    """The moment of asking, where the model reads it."""
    if not model.reads_asked_at:
        return None
    return int(time.time()) if asked_at is None else asked_at


def _filters(allow: Sequence[str] | None, deny: Sequence[str], categories: Sequence[str] | None) -> Filters:
    return Filters(
        None if allow is None else frozenset(allow),
        frozenset(deny),
        None if categories is None else frozenset(categories),
    )


def _state(place: Place) -> schemas.ModelState:
    model = place.model
    return schemas.ModelState(
        name=model.name,
        items=len(model.retriever.catalog),
        max_length=model.retriever.max_length,
        streams=model.streams.continues,
        reads_times=model.reads_clock,
        fingerprint=model.fingerprint,
        loaded_at=model.loaded_at,
        metrics=model.metrics,
        exchanges=place.exchanges,
        refused=place.refused,
    )
