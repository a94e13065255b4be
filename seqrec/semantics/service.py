"""A service that speaks OpenAI's HTTP protocol, what it is asked, and what it answers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

_BYTES_PER_TOKEN = 4  # of English prose, for what is told before anything is paid
_PER_MILLION = 1e6


@dataclass(frozen=True)
class Service:
    """Where a model answers, how hard it may be asked, and what that may cost.

    The key is read from an environment variable and written nowhere. Lost answers, status 408, 409, 429 and 5xx, broken
    connections, half answers and answers that make no sense are tried again, as late as the service says, or up to 8
    seconds later where it says nothing; one that asks for more than two minutes ends the run. Each attempt keeps to
    the budget and the limits of a minute.

    Args:
        model: name of the model.
        base_url: where the service is, with its version, such as http://localhost:8000/v1; None is the client's own.
        key_variable: environment variable that holds the key; a service of one's own needs none.
        price_in: price of a million tokens that are read.
        price_out: price of a million tokens that are written.
        budget: most that a run may cost, in the unit of the prices; needs ``price_in``, and ``price_out`` of a service
            that writes. Answers that do not say what they took count as the most that they can have taken.
        concurrency: requests under way at once, at least 1.
        requests_per_minute: most requests begun in a minute, at least 1; None is no limit.
        tokens_per_minute: most tokens asked for in a minute, as far as they can be told beforehand, at least 1; None is
            no limit.
        timeout: seconds without a sign of an answer until it counts as lost, above 0.
        retries: how often something is tried again, at least 0.
    """

    model: str
    base_url: str | None = None
    key_variable: str = "OPENAI_API_KEY"
    price_in: float = 0.0
    price_out: float = 0.0
    budget: float | None = None
    concurrency: int = 8
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    timeout: float = 60.0
    retries: int = 5

    def __post_init__(self) -> None:
        if self.concurrency < 1 or self.timeout <= 0 or self.retries < 0:
            raise ValueError(
                f"concurrency is {self.concurrency}, timeout {self.timeout} and retries {self.retries}; they must be "
                "at least 1, above 0 and at least 0."
            )
        for name in ("requests_per_minute", "tokens_per_minute"):
            limit = getattr(self, name)
            if limit is not None and limit < 1:
                raise ValueError(f"{name} is {limit}; it must be at least 1, or left out for no limit.")
        if self.budget is not None and self.price_in <= 0:
            raise ValueError("A budget cannot be kept without prices; give price_in (and price_out) of the service.")

    def price(self, tokens_in: int, tokens_out: int) -> float:
        return (tokens_in * self.price_in + tokens_out * self.price_out) / _PER_MILLION

    @property
    def identity(self) -> dict[str, Any]:
        """What decides an answer: a model of the same name elsewhere may be another."""
        return {"model": self.model, "base_url": self.address}

    @property
    def address(self) -> str | None:
        """Where the service is: what was named, or what the environment names for its client; None is the usual."""
        return (self.base_url or os.environ.get("OPENAI_BASE_URL") or "").rstrip("/") or None


@dataclass(frozen=True)
class Question:
    """Something to ask.

    Attributes:
        content: what the asking function gets.
        text: all that is read, to tell what it will cost.
        most_out: most tokens that are written in answer.
        parts: how many texts that is.
        name: what it is about, to be named where it gets no answer.
        keys: what its answer is filed under.
    """

    content: Any
    text: str
    most_out: int = 0
    parts: int = 1
    name: str = ""
    keys: Sequence[str] = ()

    @property
    def likely_in(self) -> int:
        """About how many tokens are read."""
        return likely_tokens(self.text)

    @property
    def most_in(self) -> int:
        """A token has one byte at least; what surrounds a text takes a few more."""
        return len(self.text.encode()) + 16 * self.parts


@dataclass(frozen=True)
class Answer:
    """What came back, what it took, and the model that the service says it was.

    Attributes:
        content: what was asked for.
        tokens_in: tokens that were read; an asking function gives 0 where the service does not say what it took.
        tokens_out: tokens that were written, then about how many.
        model: name of the model.
    """

    content: Any
    tokens_in: int
    tokens_out: int
    model: str


class Senseless(ValueError):
    """An answer that cannot be used, though the service called it one.

    Attributes:
        took: tokens that were read and written for it; None where the service does not say so.
    """

    def __init__(self, why: str, took: tuple[int, int] | None = None) -> None:
        super().__init__(f"it answered with something else than was asked for ({why})")
        self.took = took


def likely_tokens(text: str) -> int:
    """About how many tokens a text has."""
    return -(-len(text.encode()) // _BYTES_PER_TOKEN)


def took_of(usage: Any, writes: bool = True) -> tuple[int, int] | None:
    """Tokens that were read and written, as a service says; None where it leaves out what cannot have been none, or
    says something else than a whole number."""
    told = (getattr(usage, name, None) for name in ("prompt_tokens", "completion_tokens"))
    read, written = (count if isinstance(count, int) and count > 0 else 0 for count in told)
    return (read, written) if read and (written or not writes) else None


def only_one(models: Iterable[str]) -> str:
    """The one model that gave all of these answers.

    Raises:
        ValueError: there are several, because the service changed what its name stands for.
    """
    names = set(models)
    if error := several(names):
        raise error
    return names.pop()


def several(models: set[str]) -> ValueError | None:
    """What is wrong with answers of several models."""
    if len(models) < 2:
        return None
    return ValueError(
        f"The service answered with several models, {', '.join(sorted(models))}, and what was answered is stored; name "
        "one of them exactly as the model, or another store, so that they are not mixed."
    )
