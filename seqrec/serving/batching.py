"""Answers questions that arrive together in one go, so that a busy model is asked once for many."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class Overloaded(Exception):
    """More questions wait than may, or nobody answers any more."""


def _nobody_asks(_: int) -> None:
    """Nobody wants to know."""


class Batcher(Generic[Question, Answer]):
    """A queue before a thread: while some questions are answered newcomers wait, and all go together next.

    Nobody waits for others to come: alone, a question is answered at once.

    Args:
        name: of the thread.
        answer: answers a list of questions, one for each, in their order.
        most: questions that are answered together, at most.
        most_waiting: questions that may wait; more are refused.
        observe: told how many questions went together, each time.
        begin: called once in the thread before it answers anything.
    """

    def __init__(
        self,
        name: str,
        answer: Callable[[list[Question]], list[Answer]],
        most: int = 64,
        most_waiting: int = 2048,
        observe: Callable[[int], object] = _nobody_asks,
        begin: Callable[[], object] | None = None,
    ) -> None:
        self._answer, self._most, self._most_waiting, self._observe = answer, most, most_waiting, observe
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name, initializer=begin)
        self._waiting: deque[tuple[Question, asyncio.Future[Answer]]] = deque()
        self._working: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def n_waiting(self) -> int:
        return len(self._waiting)

    async def ask(self, question: Question) -> Answer:
        """The answer, or what was raised on the way to it.

        Raises:
            Overloaded: too many are waiting, or it is closed.
        """
        if self._closed:
            raise Overloaded("The service is stopping; ask again when it is back.")
        if len(self._waiting) >= self._most_waiting:
            raise Overloaded(f"{len(self._waiting):,} requests are waiting; ask again in a moment.")
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future))
        if self._working is None:
            self._working = asyncio.create_task(self._work())
        return await future

    async def close(self) -> None:
        """Answer those who wait, then stop."""
        self._closed = True
        if self._working is not None:
            await self._working
        self._thread.shutdown()

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
                # Who gave up meanwhile needs no answer.
                batch = [(question, future) for question, future in batch if not future.done()]
                if not batch:
                    continue
                self._observe(len(batch))
                outcomes = await loop.run_in_executor(self._thread, self._outcomes, [each for each, _ in batch])
                for (_, future), settle in zip(batch, outcomes, strict=True):
                    if not future.done():
                        settle(future)
        finally:
            self._working = None

    def _outcomes(self, questions: list[Question]) -> list[Callable[[asyncio.Future[Any]], None]]:
        """What to do with the future of each question. One that fails does not take its neighbours along."""
        try:
            return [_answered(answer) for answer in self._answer(questions)]
        except Exception as error:
            if len(questions) == 1:
                return [_failed(error)]
            return [outcome for question in questions for outcome in self._outcomes([question])]


def _answered(answer: Any) -> Callable[[asyncio.Future[Any]], None]:
    return lambda future: future.set_result(answer)


def _failed(error: Exception) -> Callable[[asyncio.Future[Any]], None]:
    return lambda future: future.set_exception(error)
