"""What answers the requests: each method of the service is a route."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Query
from starlette.exceptions import HTTPException
from starlette.responses import Response

from seqrec.data.errors import InputError
from seqrec.export.index import search_with_threads_of_torch
from seqrec.serving import schemas
from seqrec.serving.batching import Batcher
from seqrec.serving.filters import Filters
from seqrec.serving.metrics import Metrics
from seqrec.serving.models import Model, Place
from seqrec.serving.questions import AboutHistories, AboutInfluence, AboutItem, AboutUser, Question, answer_all
from seqrec.serving.schemas import K, Seconds, Text, Which
from seqrec.serving.store import Event, Store, StoreError

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
        self._models: Batcher[Question, Any] = Batcher(
            "models", answer_all, observe=metrics.batch.observe, begin=search_with_threads_of_torch
        )
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
            ],
            unknown_filters=model.unknown([*(asked.allow or ()), *asked.deny]),
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
    ) -> schemas.UserItems:
        """Which items follow what this user did?"""
        chosen = self._model(model)
        filters = _filters(allow, deny or (), categories)
        found = await self._models.ask(AboutUser(chosen, user, k, exclude_seen, _moment(chosen, asked_at), filters))
        if isinstance(found, StoreError):
            raise found
        if found is None:
            raise HTTPException(404, f"Nothing is known of user '{user}'; send what they do to /events first.")
        strangers = chosen.unknown([*(allow or ()), *(deny or ())])
        return schemas.UserItems.model_construct(items=found, unknown_filters=strangers)

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
        items=model.n_items,
        max_length=model.retriever.max_length,
        streams=model.streams.continues,
        reads_times=model.reads_clock,
        fingerprint=model.fingerprint,
        loaded_at=model.loaded_at,
        metrics=model.metrics,
        exchanges=place.exchanges,
        refused=place.refused,
    )
