"""What requests and answers of the service look like."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

from seqrec.export.histories import LATEST
from seqrec.export.retriever import Recommendation
from seqrec.serving.models import Found

MOST_HISTORIES, LONGEST_HISTORY, LARGEST_K, MOST_EVENTS = 256, 2_000, 1_000, 1_000
MOST_FILTERED, MOST_IN_ADDRESS = 10_000, 100
MOST_EXPLAINED, MOST_ANSWERED = 200, 20_000
_ONE_LINE = r"[^\x00-\x1f\x7f-\x9f]*"


def _in_one_line(text: str) -> str:
    if not re.fullmatch(_ONE_LINE, text):
        raise PydanticCustomError(
            "control", "{found} has a line break or another control character; send it without.", {"found": repr(text)}
        )
    return text


Text = Annotated[str, StringConstraints(min_length=1, max_length=512)]
Line = Annotated[Text, AfterValidator(_in_one_line), Field(json_schema_extra={"pattern": f"^{_ONE_LINE}$"})]
Seconds = Annotated[int, Field(ge=0, le=LATEST, description="seconds since 1970")]
K = Annotated[int, Field(ge=1, le=LARGEST_K, description="how many items")]


class Which(StrEnum):
    """Which model answers: that of ``--bundle`` or that of ``--compare``."""

    bundle = "bundle"
    compare = "compare"


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class HistoriesIn(_Body):
    histories: Annotated[
        list[Annotated[list[Text], Field(max_length=LONGEST_HISTORY)]], Field(min_length=1, max_length=MOST_HISTORIES)
    ] = Field(description="one list of raw item ids per history, oldest first")
    times: list[list[Seconds]] | None = Field(
        None, description="when each item happened, for models that read it", max_length=MOST_HISTORIES
    )
    k: K = 10
    exclude_seen: bool = Field(True, description="whether items of the history are left out")
    asked_at: Seconds | None = Field(None, description="the moment of asking, for models that read it; now")
    allow: Annotated[list[Text], Field(max_length=MOST_FILTERED)] | None = Field(
        None, description="the only items that may be recommended"
    )
    deny: Annotated[list[Text], Field(max_length=MOST_FILTERED)] = Field(
        default=[], description="items that may not be recommended"
    )
    categories: Annotated[list[Text], Field(max_length=MOST_FILTERED)] | None = Field(
        None, description="only items of any of these may be recommended"
    )
    model: Which = Which.bundle

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"histories": [["SKU-1", "SKU-7"]], "k": 5}}
    )


class EventIn(_Body):
    user: Line
    item: Line
    time: Seconds | None = Field(None, description="when it happened; now")


class EventsIn(_Body):
    events: Annotated[list[EventIn], Field(min_length=1, max_length=MOST_EVENTS)]


class InfluenceIn(_Body):
    history: Annotated[list[Text], Field(max_length=MOST_EXPLAINED)]
    target: Text = Field(description="the recommended item that is to be explained")
    times: list[Seconds] | None = None
    asked_at: Seconds | None = None
    model: Which = Which.bundle


class _Filtered(BaseModel):
    unknown_filters: list[str] = Field(
        description="ids of allow and deny that the catalog does not have; they were neither allowed nor denied"
    )


class Items(BaseModel):
    items: list[Recommendation] = Field(description="best first")


class UserItems(Items, _Filtered): ...


class Answer(Items):
    unknown: list[str] = Field(description="items of the history that the catalog does not have; they were skipped")


class Answers(_Filtered):
    answers: list[Answer] = Field(description="one per history; without items where no item of the history is known")


class Acknowledged(BaseModel):
    acknowledged: int = Field(description="how many events are kept for good")
    unknown: list[str] = Field(description="their items that the catalog does not have; a newer bundle may")


class Influence(BaseModel):
    item_id: str
    title: str | None = Field(description="null where the catalog does not have the item")
    influence: float | None = Field(
        description="by how much the target's score would fall without this event; null where that cannot be said"
    )


class Influences(BaseModel):
    events: list[Influence] = Field(description="one per event of the history, in its order")


class FoundItems(BaseModel):
    items: list[Found] = Field(description="most frequent first")


class ModelState(BaseModel):
    name: str
    items: int
    max_length: int | None = Field(description="most events of a history that it reads; null reads all")
    streams: bool = Field(description="whether it goes on from what it remembers of a user")
    reads_times: bool
    fingerprint: str
    loaded_at: float
    metrics: dict[str, float]
    exchanges: int = Field(description="how often a newer bundle came since the start")
    refused: str | None = Field(description="why the newest bundle of the folder was not taken")


class Health(BaseModel):
    status: str
    models: dict[Which, ModelState]


class Error(BaseModel):
    code: str
    message: str = Field(description="what was found, what was needed, what to do")


class Failure(BaseModel):
    error: Error
