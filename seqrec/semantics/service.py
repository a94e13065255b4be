"""A service that speaks OpenAI's HTTP protocol: asked many things at once, in its pace, within a budget."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

_BYTES_PER_TOKEN = 4  # of English prose, for what is told before anything is paid
_PER_MILLION = 1e6
# So many questions without an answer, before any or more than had one, are taken for a fault of the service.
_FEW, _MANY = 3, 10


@dataclass(frozen=True)
class Service:
    """Where a model answers, how hard it may be asked, and what that may cost.

    The key is read from an environment variable and written nowhere. Lost answers, status 408, 409, 429 and 5xx, broken
    connections and half answers are tried again by the client of openai, as late as the service says; answers that
    make no sense are tried again here.

    Args:
        model: name of the model.
        base_url: where the service is, with its version, such as http://localhost:8000/v1; None is the client's own.
        key_variable: environment variable that holds the key; a service of one's own needs none.
        price_in: price of a million tokens that are read.
        price_out: price of a million tokens that are written.
        budget: most that a run may cost, in the unit of the prices; needs ``price_in``.
        concurrency: requests under way at once, at least 1.
        requests_per_minute: most requests begun in a minute; None is no limit.
        tokens_per_minute: most tokens asked for in a minute, as far as they can be told beforehand; None is no limit.
        timeout: seconds until an answer counts as lost, above 0.
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
        if self.budget is not None and self.price_in <= 0:
            raise ValueError("A budget cannot be kept without prices; give price_in (and price_out) of the service.")

    def price(self, tokens_in: int, tokens_out: int) -> float:
        return (tokens_in * self.price_in + tokens_out * self.price_out) / _PER_MILLION

    @property
    def identity(self) -> dict[str, Any]:
        """What decides an answer: a model of the same name elsewhere may be another."""
        return {"model": self.model, "base_url": self.base_url}


@dataclass(frozen=True)
class Question:
    """Something to ask.

    Attributes:
        content: what the asking function gets.
        text: all that is read, to tell what it will cost.
        most_out: most tokens that are written in answer.
        parts: how many texts that is.
        name: what it is about, to be named where it gets no answer.
    """

    content: Any
    text: str
    most_out: int = 0
    parts: int = 1
    name: str = ""

    @property
    def likely_in(self) -> int:
        """About how many tokens are read."""
        return -(-len(self.text.encode()) // _BYTES_PER_TOKEN)

    @property
    def most_in(self) -> int:
        """A token has one byte at least; what surrounds a text takes a few more."""
        return len(self.text.encode()) + 16 * self.parts


@dataclass(frozen=True)
class Answer:
    """What came back, what it took, and the model that the service says it was."""

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


class Asking:
    """One run against a service, with the account of what it took.

    Attributes:
        tokens_in: tokens read so far.
        tokens_out: tokens written so far.
    """

    def __init__(self, service: Service) -> None:
        try:
            import openai
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "A hosted model needs openai, which is not installed. Run `pip install 'seqrec[llm]'`."
            ) from error
        key = os.environ.get(service.key_variable) or ("none" if service.base_url else None)
        if key is None:
            raise ValueError(
                f"The environment variable {service.key_variable} is not set; put the key of the service into it, or "
                "name a service of your own with base_url."
            )
        self._openai = openai
        self._client = openai.OpenAI(
            api_key=key, base_url=service.base_url, timeout=service.timeout, max_retries=service.retries
        )
        self.service = service
        self.tokens_in = self.tokens_out = 0
        self._reserved = 0.0
        self._lock = threading.Lock()

    @property
    def spent(self) -> float:
        return self.service.price(self.tokens_in, self.tokens_out)

    def each(self, ask: Callable[[Any, Any], Answer], questions: Sequence[Question]) -> Iterator[tuple[int, Answer]]:
        """The place and the answer of each question, as answers arrive.

        Args:
            ask: gets the client and the content of a question; raises ``Senseless`` where the answer is none.
            questions: what to ask.

        Raises:
            ValueError: the budget does not suffice for the next question, or a question got no answer after all
                retries. Where the fault lies with the question, all others are asked first; otherwise what is under way
                is waited for. All of that is given out.
        """
        refused: dict[int, Exception] = {}
        answered = 0
        of_one_question = (Senseless, self._openai.BadRequestError, self._openai.UnprocessableEntityError)
        waiting = list(range(len(questions)))[::-1]
        under_way: dict[Future[Answer], int] = {}
        failures = Counter[int]()
        stopped: Exception | None = None
        pace = _Pace(self.service)
        with ThreadPoolExecutor(self.service.concurrency) as pool:
            while under_way or (waiting and stopped is None):
                while waiting and stopped is None and len(under_way) < self.service.concurrency:
                    question = questions[waiting[-1]]
                    if not self._reserve(question):
                        stopped = None if under_way else self._out_of_budget()
                        break
                    pace.wait(question.likely_in + question.most_out)
                    place = waiting.pop()
                    under_way[pool.submit(self._answer, ask, question, failures[place])] = place
                done, _ = wait(under_way, return_when=FIRST_COMPLETED)
                for future in done:
                    place = under_way.pop(future)
                    try:
                        answer = future.result()
                        answered += 1
                        yield place, answer
                    except of_one_question as error:
                        failures[place] += 1
                        if isinstance(error, Senseless) and failures[place] <= self.service.retries:
                            waiting.append(place)
                            continue
                        refused[place] = error
                        if len(refused) >= (_MANY if answered else _FEW) and len(refused) > answered:
                            stopped = stopped or self._failed(error)
                    except self._openai.OpenAIError as error:
                        stopped = stopped or self._failed(error)
        if stopped is not None:
            raise stopped
        if refused:
            raise self._failed(next(iter(refused.values())), [questions[place].name for place in sorted(refused)])

    def _reserve(self, question: Question) -> bool:
        """Set aside the most that a question can cost, if the budget has it."""
        most = self.service.price(question.most_in, question.most_out)
        with self._lock:
            if self.service.budget is not None and self.spent + self._reserved + most > self.service.budget:
                return False
            self._reserved += most
            return True

    def _answer(self, ask: Callable[[Any, Any], Answer], question: Question, failures: int) -> Answer:
        """One request, for which the most that it can cost is set aside; booked is what it took."""
        took = 0, 0
        try:
            time.sleep(min(0.125 * 2**failures, 8) if failures else 0)
            answer = ask(self._client, question.content)
            took = answer.tokens_in or question.likely_in, answer.tokens_out
            return answer
        except Senseless as error:
            took = error.took or (question.most_in, question.most_out)
            raise
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            # It was answered, so it was paid for, though nobody says how much.
            took = question.most_in, question.most_out
            raise Senseless(str(error)) from error
        finally:
            with self._lock:
                self._reserved -= self.service.price(question.most_in, question.most_out)
                self.tokens_in += took[0]
                self.tokens_out += took[1]

    def _out_of_budget(self) -> ValueError:
        return ValueError(
            f"The budget of {self.service.budget:g} does not suffice for the next request ({self.spent:.4g} spent); "
            "what was answered is stored. Run the same command again to go on, with a budget of its own."
        )

    def _failed(self, error: Exception, names: Sequence[str] = ()) -> ValueError:
        cause = getattr(error, "body", None) or error
        said = " ".join(str(cause).split())[:200]
        where = self.service.base_url or "its usual address"
        some = ", ".join(names[:_FEW]) + (f" and {len(names) - _FEW:,} more" if len(names) > _FEW else "")
        kept = "All else was answered and" if names else "What was answered"
        return ValueError(
            f"The service at {where} gave no usable answer for the model {self.service.model}"
            f"{f' about {some}' if names else ''}: {said}. {kept} is stored. Put that right, then run the same command "
            "again to go on."
        )


class _Pace:
    """Holds requests back so that neither requests nor tokens exceed what a minute allows."""

    def __init__(self, service: Service) -> None:
        self.seconds_per_request = 60 / service.requests_per_minute if service.requests_per_minute else 0.0
        self.seconds_per_token = 60 / service.tokens_per_minute if service.tokens_per_minute else 0.0
        self._next = time.monotonic()

    def wait(self, tokens: int) -> None:
        time.sleep(max(0.0, self._next - time.monotonic()))
        pause = max(self.seconds_per_request, tokens * self.seconds_per_token)
        self._next = max(self._next, time.monotonic()) + pause
