"""Asking a service many things at once, in its pace, within a budget, with the account of what it took."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any

from urllib3.exceptions import InvalidHeader, MaxRetryError
from urllib3.util.retry import Retry

from seqrec.semantics.service import Answer, Question, Senseless, Service, several

# So many questions without an answer, before any or more than had one, are taken for a fault of the service.
_FEW, _MANY = 3, 10
# What a service says of a text, or of too many at once, that it will not read.
_REFUSED = (400, 413, 422)
_TRIED_AGAIN = (408, 409, 429, *range(500, 600))
# Statuses of a gateway that asked for an answer and did not pass it on; it may have been paid for.
_LOST_BEHIND = (502, 504, 520, 524)
# What httpx raises before anything was sent, by name, for which httpx it is depends on the version of openai.
_NOT_SENT = ("ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol")
_LONGEST = 120.0  # seconds that a service may ask to be left alone before the run ends instead


@dataclass(frozen=True)
class _Turn:
    """A question in line.

    Attributes:
        place: where it stands among the questions; a part of one that was divided stands behind the place of the whole.
        retry: how often it may still be tried, and how long to wait before.
        not_before: when it may be asked, of the monotonic clock.
    """

    question: Question
    place: tuple[int, ...]
    retry: Retry
    not_before: float = 0.0


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
        key = os.environ.get(service.key_variable) or ("none" if service.address else None)
        if key is None:
            raise ValueError(
                f"The environment variable {service.key_variable} is not set; put the key of the service into it, or "
                "name a service of your own with base_url."
            )
        self._openai = openai
        # Each attempt is one of ours, so that none escapes the budget and the pace.
        self._client = openai.OpenAI(api_key=key, base_url=service.address, timeout=service.timeout, max_retries=0)
        self.service = service
        self.tokens_in = self.tokens_out = 0
        self._reserved = 0.0
        self._lock = threading.Lock()
        self._stopped: BaseException | None = None

    @property
    def spent(self) -> float:
        return self.service.price(self.tokens_in, self.tokens_out)

    def each(
        self,
        ask: Callable[[Any, Any], Answer],
        questions: Sequence[Question],
        divide: Callable[[Question], Sequence[Question]] | None = None,
        models: Iterable[str] = (),
    ) -> Iterator[tuple[Question, Answer]]:
        """Each question with its answer, as answers arrive.

        Args:
            ask: gets the client and the content of a question; raises ``Senseless`` where the answer is none.
            questions: what to ask.
            divide: gives the parts of a question of several texts; if the service refuses the whole, they are asked.
            models: who gave the answers that these are to stand beside.

        Raises:
            ValueError: the budget does not suffice for the next question, several models answered, or a question got no
                answer after all retries. Where the fault lies with the question, all others are asked first; otherwise
                what is under way is waited for. All of that is given out.
            KeyboardInterrupt: somebody wants it to end; what is under way is waited for and given out.
        """
        models = set(models)
        self._stopped = several(models)
        refused: dict[tuple[int, ...], tuple[Question, Exception]] = {}
        answered = 0
        few = _FEW if divide is None else _MANY  # bad texts of one batch come after each other
        retry = Retry(
            self.service.retries,
            allowed_methods=None,
            status_forcelist=_TRIED_AGAIN,
            backoff_factor=0.5,
            backoff_max=8,
        )
        waiting = deque(_Turn(question, (place,), retry) for place, question in enumerate(questions))
        again: deque[_Turn] = deque()  # keeps its share of what may be under way, soonest first
        under_way: dict[Future[Answer], _Turn] = {}
        pace = _Pace(self.service)
        with ThreadPoolExecutor(self.service.concurrency) as pool:
            while under_way or (self._stopped is None and (waiting or again)):
                until: float | None = None  # when the next may be asked, if no answer is needed for that
                while self._stopped is None:
                    is_room = len(under_way) + len(again) < self.service.concurrency
                    lines = [line for line in (again, waiting if is_room else None) if line]
                    if not lines:
                        until = None
                        break
                    now = time.monotonic()
                    soonest = max(now, pace.free_at)
                    line = min(lines, key=lambda line: max(line[0].not_before, soonest))
                    until = max(line[0].not_before, soonest)
                    if until > now:
                        break
                    if not self._reserve(line[0].question):
                        until = again[0].not_before if again and line is waiting else None
                        if not under_way and until is None:
                            self._stopped = self._out_of_budget()
                        break
                    turn = line.popleft()
                    pace.take(turn.question.likely_in + turn.question.most_out)
                    under_way[pool.submit(self._answer, ask, turn.question)] = turn
                try:
                    finished = _finished(under_way, until)
                except KeyboardInterrupt as error:
                    if isinstance(self._stopped, KeyboardInterrupt):
                        raise
                    self._stopped, finished = error, set()
                for future in finished:
                    turn = under_way.pop(future)
                    try:
                        answer = future.result()
                    except (Senseless, self._openai.OpenAIError) as error:
                        later = self._later(turn, error)
                        is_refused = getattr(error, "status_code", None) in _REFUSED
                        if later is not None:
                            again = deque(sorted([*again, later], key=lambda turn: turn.not_before))
                        elif is_refused and divide is not None and turn.question.parts > 1:
                            parts = enumerate(divide(turn.question))
                            turns = [_Turn(part, (*turn.place, number), retry) for number, part in parts]
                            waiting.extendleft(turns[::-1])
                        elif is_refused or isinstance(error, Senseless):
                            refused[turn.place] = turn.question, error
                            # Who is refused hears of it at once, and who is answered later.
                            too_many = len(refused) >= (_MANY if answered else few)
                            if too_many and len(refused) > answered + len(under_way):
                                self._stopped = self._stopped or self._failed(error)
                        else:
                            self._stopped = self._stopped or self._failed(error)
                    else:
                        answered += turn.question.parts
                        models.add(answer.model)
                        self._stopped = self._stopped or several(models)
                        yield turn.question, answer
        if self._stopped is not None:
            raise self._stopped
        if refused:
            names = [refused[place][0].name for place in sorted(refused)]
            raise self._failed(next(iter(refused.values()))[1], names)

    def keep(
        self,
        answers: Iterator[tuple[Question, Answer]],
        keep: Callable[[list[tuple[Question, Answer]]], object],
        every: int,
        advance: Callable[[int], object],
    ) -> None:
        """Hand on the answers of ``each``, those to ``every`` texts at a time; whatever ends it, all are handed on."""
        fresh: list[tuple[Question, Answer]] = []
        try:
            for question, answer in answers:
                fresh.append((question, answer))
                advance(question.parts)
                if sum(question.parts for question, _ in fresh) >= every:
                    keep(fresh)
                    fresh = []
        except KeyboardInterrupt as error:  # between two answers; the rest is what is under way
            self._stopped = error
            fresh += answers
            raise
        finally:
            if fresh:
                keep(fresh)

    def _later(self, turn: _Turn, error: Exception) -> _Turn | None:
        """The turn of another attempt; None where there is none to be made."""
        left_alone = 0.0
        if isinstance(error, self._openai.APIStatusError):
            headers = error.response.headers
            left_alone = _left_alone(headers, turn.retry)
            wish = headers.get("x-should-retry")  # the service may know better
            may_help = wish == "true" or (wish != "false" and turn.retry.is_retry("POST", error.status_code))
        else:
            may_help = isinstance(error, (Senseless, self._openai.APIConnectionError))
        if not may_help or left_alone > _LONGEST:
            return None
        try:
            retry = turn.retry.increment("POST", error=error)
        except MaxRetryError:
            return None
        return replace(turn, retry=retry, not_before=time.monotonic() + (left_alone or retry.get_backoff_time()))

    def _reserve(self, question: Question) -> bool:
        """Set aside the most that a question can cost, if the budget has it."""
        most = self.service.price(question.most_in, question.most_out)
        with self._lock:
            if self.service.budget is not None and self.spent + self._reserved + most > self.service.budget:
                return False
            self._reserved += most
            return True

    def _answer(self, ask: Callable[[Any, Any], Answer], question: Question) -> Answer:
        """One attempt, for which the most that it can cost is set aside; booked is what it took."""
        most = question.most_in, question.most_out
        took = most  # whatever got lost may have been paid for, though nobody says how much
        try:
            answer = ask(self._client, question.content)
            if answer.tokens_in:
                took = answer.tokens_in, answer.tokens_out
            elif self.service.budget is None:
                took = question.likely_in, answer.tokens_out
            return replace(answer, tokens_in=took[0], tokens_out=took[1])
        except Senseless as error:
            took = error.took or most
            raise
        except self._openai.APIResponseValidationError as error:
            raise Senseless(str(error)) from error
        except self._openai.APIStatusError as error:
            took = most if error.status_code in _LOST_BEHIND else (0, 0)
            raise
        except self._openai.APIConnectionError as error:
            took = (0, 0) if type(error.__cause__).__name__ in _NOT_SENT else most
            raise
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise Senseless(str(error)) from error
        finally:
            with self._lock:
                self._reserved -= self.service.price(*most)
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
        where = self.service.address or "its usual address"
        some = ", ".join(names[:_FEW]) + (f" and {len(names) - _FEW:,} more" if len(names) > _FEW else "")
        kept = "All else was answered and" if names else "What was answered"
        return ValueError(
            f"The service at {where} gave no usable answer for the model {self.service.model}"
            f"{f' about {some}' if names else ''}: {said}. {kept} is stored. Put that right, then run the same command "
            "again to go on."
        )


class _Pace:
    """Says when the next request may begin, so that neither requests nor tokens exceed what a minute allows."""

    def __init__(self, service: Service) -> None:
        self.seconds_per_request = 60 / service.requests_per_minute if service.requests_per_minute else 0.0
        self.seconds_per_token = 60 / service.tokens_per_minute if service.tokens_per_minute else 0.0
        self.free_at = time.monotonic()

    def take(self, tokens: int) -> None:
        """A request of so many tokens begins now."""
        self.free_at = time.monotonic() + max(self.seconds_per_request, tokens * self.seconds_per_token)


def _finished(under_way: dict[Future[Answer], _Turn], until: float | None) -> set[Future[Answer]]:
    """What is answered, waited for until then."""
    seconds = None if until is None else max(0.0, until - time.monotonic())
    if under_way:
        return wait(under_way, seconds, FIRST_COMPLETED).done
    time.sleep(seconds or 0.0)
    return set()


def _left_alone(headers: Any, retry: Retry) -> float:
    """Seconds for which the service wants to be left alone; 0 where it does not say so."""
    for name, per_second in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            return max(0.0, float(headers.get(name, "")) / per_second)
        except ValueError:
            continue
    try:
        return retry.parse_retry_after(headers.get("retry-after", ""))
    except InvalidHeader:
        return 0.0
