"""Who writes the texts on items and histories: a language model behind a service, or a template."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from seqrec.semantics.asking import Asking
from seqrec.semantics.prompts import Prompt
from seqrec.semantics.service import Answer, Question, Senseless, Service, likely_tokens, only_one, took_of
from seqrec.semantics.store import Store
from seqrec.semantics.subjects import Subjects


@dataclass(frozen=True)
class Work:
    """What a long piece of work needs besides its subject.

    Attributes:
        store: folder of what was made before.
        begin: told how many texts are to be made; what it returns is told of each part that is.
    """

    store: Path
    begin: Callable[[int], Callable[[int], object]] = lambda total: lambda count: None


@contextmanager
def working(store: Path, what: str) -> Iterator[Work]:
    """Work that shows its progress on standard error."""
    if Path(store).is_file():
        raise ValueError(f"{store} is a file, and a store is a folder; name another --store.")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:

        def begin(total: int):
            task = bar.add_task(what, total=total)
            return lambda count: bar.advance(task, count)

        yield Work(Path(store), begin)


@dataclass(frozen=True)
class Estimate:
    """What a piece of work would take.

    Attributes:
        subjects: how many items or histories.
        to_make: how many texts or vectors are not in the store.
        tokens_in: about how many tokens would be read.
        tokens_out: at most how many would be written.
        price: what that would cost at most, in the unit of the prices; None where nobody is paid.
    """

    subjects: int
    to_make: int
    tokens_in: int = 0
    tokens_out: int = 0
    price: float | None = None


class Writer(ABC):
    """Writes a text on each of some subjects."""

    @abstractmethod
    def source(self) -> str:
        """Who that is, in a word or two: it is what results say of the text."""

    @abstractmethod
    def estimate(self, subjects: Subjects, prompt: Prompt, work: Work) -> Estimate:
        """What writing would take; asks nobody."""

    @abstractmethod
    def write(self, subjects: Subjects, prompt: Prompt, work: Work) -> tuple[list[str], dict[str, Any]]:
        """The texts, and what the record shall say of their making."""


class TemplateWriter(Writer):
    """Puts titles and categories together, without a language model; the prompt is not read."""

    def source(self) -> str:
        return "template"

    def estimate(self, subjects: Subjects, prompt: Prompt, work: Work) -> Estimate:
        return Estimate(len(subjects), len(subjects))

    def write(self, subjects: Subjects, prompt: Prompt, work: Work) -> tuple[list[str], dict[str, Any]]:
        return subjects.summaries(), {"prompt_version": None, "quotes": 0}


class ChatWriter(Writer):
    """A language model behind a service with OpenAI's chat protocol, at temperature 0.

    Source: the texts of Cui et al., "Semantic Retrieval Augmented Contrastive Learning for Sequential Recommendation",
    NeurIPS 2025 (arXiv 2503.04162). Differs from it: the prompts are our own, and no top-p is set.

    Args:
        service: where it answers; a budget needs its ``price_out``, too.
        max_tokens: most tokens of an answer, at least 1; one that reaches it is kept as it was cut, and counted.
        keep_every: answers after which the store is written, at least 1; a killed program loses fewer than these.
    """

    def __init__(self, service: Service, max_tokens: int = 400, keep_every: int = 64) -> None:
        if service.budget is not None and service.price_out <= 0:
            raise ValueError(
                f"A budget of {service.budget:g} cannot be kept with a price_out of {service.price_out:g}, for answers "
                "would count as free; give the service's price of a million tokens that are written."
            )
        if max_tokens < 1 or keep_every < 1:
            raise ValueError(f"max_tokens is {max_tokens} and keep_every {keep_every}; both must be at least 1.")
        self.service = service
        self.max_tokens = max_tokens
        self.keep_every = keep_every

    def source(self) -> str:
        return f"LLM {self.service.model}"

    def estimate(self, subjects: Subjects, prompt: Prompt, work: Work) -> Estimate:
        store = self._store(prompt, work)
        questions = [self._question(subjects, prompt, row) for row in store.missing(_keys(subjects, prompt))]
        tokens_in, tokens_out = (
            sum(getattr(question, name) for question in questions) for name in ("likely_in", "most_out")
        )
        price = self.service.price(tokens_in, tokens_out)
        return Estimate(len(subjects), len(questions), tokens_in, tokens_out, price)

    def write(self, subjects: Subjects, prompt: Prompt, work: Work) -> tuple[list[str], dict[str, Any]]:
        store, keys = self._store(prompt, work), _keys(subjects, prompt)
        missing = store.missing(keys)
        asking = Asking(self.service) if missing else None
        if asking is not None:
            questions = [self._question(subjects, prompt, row) for row in missing]
            answers = asking.each(self._ask, questions, models=models_of(store, keys))
            asking.keep(
                answers,
                lambda fresh: store.append(pl.DataFrame([_line(*each) for each in fresh])),
                self.keep_every,
                work.begin(len(missing)),
            )
        if not keys:
            return [], {"prompt_version": prompt.version, "model": self.service.model, "spent_in_this_run": 0.0}
        lines = store.lines(dict.fromkeys(keys))  # what several subjects share was paid once
        record = {
            "prompt_version": prompt.version,
            "model": only_one(lines["model"]),
            "cut_answers": int(lines["is_cut"].sum()),
            "tokens_in": int(lines["tokens_in"].sum()),
            "tokens_out": int(lines["tokens_out"].sum()),
            "spent_in_this_run": asking.spent if asking is not None else 0.0,
        }
        return store.lines(keys)["text"].to_list(), record

    def _store(self, prompt: Prompt, work: Work) -> Store:
        how = {"temperature": 0, "max_tokens": self.max_tokens}
        return Store(work.store, {"made": "texts", "prompt": prompt.version, **self.service.identity, **how})

    def _question(self, subjects: Subjects, prompt: Prompt, row: int) -> Question:
        facts = subjects.facts(row)
        messages = prompt.messages(facts)
        text = "".join(message["content"] for message in messages)
        name = " ".join(map(str, subjects.ids.row(row)))
        return Question(messages, text, self.max_tokens, name=name, keys=[prompt.key(facts)])

    def _ask(self, client: Any, messages: list[dict[str, str]]) -> Answer:
        reply = client.chat.completions.create(
            model=self.service.model, messages=messages, temperature=0, max_tokens=self.max_tokens
        )
        (choice,) = reply.choices
        text = choice.message.content
        took = took_of(reply.usage, writes=bool(text))
        if not isinstance(text, str) or not text.strip():
            raise Senseless("no text", took)
        text = text.encode(errors="replace").decode().strip()  # an answer may be cut within a character
        content = {"text": text, "is_cut": choice.finish_reason == "length"}
        return Answer(content, *(took or (0, likely_tokens(text))), reply.model or self.service.model)


def models_of(store: Store, keys: Iterable[str]) -> set[str]:
    """Who made those of these keys that are in the store."""
    keys = list(dict.fromkeys(keys))
    missing = {keys[place] for place in store.missing(keys)}
    lines = store.lines(key for key in keys if key not in missing)
    return set(lines["model"]) if lines.height else set()


def _keys(subjects: Subjects, prompt: Prompt) -> list[str]:
    return [prompt.key(subjects.facts(row)) for row in range(len(subjects))]


def _line(question: Question, answer: Answer) -> dict[str, Any]:
    took = {"tokens_in": answer.tokens_in, "tokens_out": answer.tokens_out, "model": answer.model}
    return {"key": question.keys[0], **answer.content, **took}
