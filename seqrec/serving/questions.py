"""What the thread of the models is asked: questions that look alike are answered together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from seqrec.serving.filters import Filters
from seqrec.serving.models import Model
from seqrec.serving.store import StoreError


class Question(ABC):
    """Something to be asked of a model."""

    @property
    @abstractmethod
    def kind(self) -> Hashable:
        """Questions of equal kind are answered together."""

    @abstractmethod
    def answers(self, alike: Sequence[Any]) -> list[Any]:
        """The answers to these questions, which are of this kind, in their order."""


@dataclass(frozen=True)
class AboutHistories(Question):
    """What follows these histories, whose items are all in the catalog? One list of recommendations for each."""

    model: Model
    histories: Sequence[Sequence[str]]
    times: Sequence[Sequence[int]] | None
    k: int
    exclude_seen: bool
    asked_at: int | None
    filters: Filters

    @property
    def kind(self) -> Hashable:
        return id(self.model), self.k, self.exclude_seen, self.asked_at, self.times is None, self.filters

    def answers(self, alike: Sequence[Any]) -> list[Any]:
        histories = [history for each in alike for history in each.histories]
        times = None if self.times is None else [clock for each in alike for clock in each.times or ()]
        found = iter(
            self.model.retriever.recommend_many(
                histories, self.k, self.exclude_seen, times, self.asked_at, **self.filters.given
            )
        )
        return [[next(found) for _ in each.histories] for each in alike]


@dataclass(frozen=True)
class AboutUser(Question):
    """What follows the events of this user? Recommendations, None of whom nothing is known, or a StoreError."""

    model: Model
    user: str
    k: int
    exclude_seen: bool
    asked_at: int | None
    filters: Filters

    @property
    def kind(self) -> Hashable:
        return id(self.model)

    def answers(self, alike: Sequence[Any]) -> list[Any]:
        answers: dict[AboutUser, Any] = {}
        try:
            for each in dict.fromkeys(alike):
                answers[each] = self.model.streams.recommend(
                    each.user, each.k, each.exclude_seen, each.asked_at, each.filters
                )
        except StoreError as failure:  # who comes later would wait as long for the same
            return [answers.get(each, failure) for each in alike]
        return [answers[each] for each in alike]


@dataclass(frozen=True)
class AboutItem(Question):
    """Which items are most like this one? Recommendations, whose scores say how much."""

    model: Model
    item: str
    k: int

    @property
    def kind(self) -> Hashable:
        return self

    def answers(self, alike: Sequence[Any]) -> list[Any]:
        answer = self.model.retriever.similar(self.item, self.k)
        return [answer for _ in alike]


@dataclass(frozen=True)
class AboutInfluence(Question):
    """By how much would the score of the target fall without each event? A number or None for each."""

    model: Model
    items: tuple[str, ...]
    target: str
    times: tuple[int, ...] | None
    asked_at: int | None

    @property
    def kind(self) -> Hashable:
        return self

    def answers(self, alike: Sequence[Any]) -> list[Any]:
        answer = self.model.influence(self.items, self.target, self.times, self.asked_at)
        return [answer for _ in alike]


def answer_all(questions: list[Question]) -> list[Any]:
    """The answers to questions of any kinds, in their order."""
    kinds: dict[Hashable, list[int]] = {}
    for place, question in enumerate(questions):
        kinds.setdefault((type(question), question.kind), []).append(place)
    answers: list[Any] = [None] * len(questions)
    for places in kinds.values():
        alike = [questions[place] for place in places]
        for place, answer in zip(places, alike[0].answers(alike), strict=True):
            answers[place] = answer
    return answers
