"""Encoders of texts behind a service with OpenAI's HTTP protocol."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from seqrec.semantics.asking import Asking
from seqrec.semantics.encoders import Read, TextEncoder
from seqrec.semantics.service import Answer, Question, Senseless, Service, only_one, took_of
from seqrec.semantics.store import Store, key_of
from seqrec.semantics.subjects import Subjects
from seqrec.semantics.writers import Estimate, Work, models_of


class HostedEncoder(TextEncoder):
    """A hosted embedding model, asked for several texts at a time.

    Args:
        service: where it answers.
        dimensions: numbers in a vector, where the model can shorten them; None is its own.
        batch_size: texts in one request, at least 1.
        half: see ``TextEncoder``.
        keep_every: see ``TextEncoder``.
    """

    def __init__(
        self,
        service: Service,
        dimensions: int | None = None,
        batch_size: int = 64,
        half: bool = True,
        keep_every: int = 512,
    ) -> None:
        super().__init__(half, keep_every)
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it must be at least 1, e.g. 64.")
        self.service = service
        self.dimensions = dimensions
        self.batch_size = batch_size

    def identity(self) -> dict[str, Any]:
        encoder = {"name": "service", **self.service.identity, "dimensions": self.dimensions}
        return {"encoder": encoder, "pooling": "of the service"}

    def encode(self, texts: list[str]) -> Float[np.ndarray, "n S"]:
        answers = Asking(self.service).each(self._ask, [self._question(texts)], self._halves)
        vector_of = {
            key: vector
            for question, answer in answers
            for key, vector in zip(question.keys, answer.content, strict=True)
        }
        return np.stack([vector_of[key_of(text)] for text in texts])

    def estimate(self, subjects: Subjects, texts: Read, work: Work) -> Estimate:
        words = texts()
        missing = self._store(work).missing(map(key_of, words))
        tokens = self._question([words[row] for row in missing]).likely_in
        return Estimate(len(subjects), len(missing), tokens, 0, self.service.price(tokens, 0))

    def _make(self, store: Store, keys: list[str], todo: list[str], work: Work) -> dict[str, Any]:
        asking = Asking(self.service) if todo else None
        if asking is not None:
            firsts = range(0, len(todo), self.batch_size)
            questions = [self._question(todo[first : first + self.batch_size]) for first in firsts]
            answers = asking.each(self._ask, questions, self._halves, models_of(store, keys))
            asking.keep(answers, lambda fresh: self._flush(store, fresh), self.keep_every, work.begin(len(todo)))
        if not keys:
            return {"model": self.service.model, "spent_in_this_run": 0.0}
        lines = store.lines(dict.fromkeys(keys))
        tokens = round(lines["tokens_in"].sum())
        return {
            "model": only_one(lines["model"]),
            "tokens_in": tokens,
            "price": self.service.price(tokens, 0),
            "spent_in_this_run": asking.spent if asking is not None else 0.0,
        }

    def _flush(self, store: Store, fresh: list[tuple[Question, Answer]]) -> None:
        # A width that changes on the way is told of when vectors are taken from the store; what was paid for is kept.
        for width in sorted({answer.content.shape[1] for _, answer in fresh}):
            alike = [(question, answer) for question, answer in fresh if answer.content.shape[1] == width]
            self._keep(
                store,
                [key for question, _ in alike for key in question.keys],
                np.concatenate([answer.content for _, answer in alike]),
                tokens_in=[answer.tokens_in / question.parts for question, answer in alike for _ in question.keys],
                model=[answer.model for question, answer in alike for _ in question.keys],
            )

    def _question(self, texts: list[str]) -> Question:
        beside = f" or {len(texts) - 1} texts beside it" if len(texts) > 1 else ""
        name = f"'{''.join(texts[:1])[:60]}'{beside}"
        return Question(texts, "".join(texts), parts=len(texts), name=name, keys=[key_of(text) for text in texts])

    def _halves(self, question: Question) -> list[Question]:
        """Of a batch, one text of which may be what the service refuses."""
        middle = len(question.content) // 2
        return [self._question(question.content[:middle]), self._question(question.content[middle:])]

    def _ask(self, client: Any, texts: list[str]) -> Answer:
        more = {} if self.dimensions is None else {"dimensions": self.dimensions}
        reply = client.embeddings.create(model=self.service.model, input=texts, encoding_format="float", **more)
        took = took_of(reply.usage, writes=False)
        place_of = {line.index: line.embedding for line in reply.data}
        if sorted(place_of) != list(range(len(texts))):
            raise Senseless(f"{len(place_of)} vectors for {len(texts)} texts", took)
        vectors = np.array([place_of[place] for place in range(len(texts))], dtype=np.float32)
        if vectors.ndim != 2 or not vectors.size or not np.isfinite(vectors).all():
            raise Senseless("vectors that are no rows of finite numbers", took)
        return Answer(vectors, *(took or (0, 0)), reply.model or self.service.model)
