"""Encoders of texts behind a service with OpenAI's HTTP protocol."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from seqrec.semantics.encoders import Read, TextEncoder
from seqrec.semantics.service import Answer, Asking, Question, Senseless, Service
from seqrec.semantics.store import Store, key_of
from seqrec.semantics.subjects import Subjects
from seqrec.semantics.writers import Estimate, Work, only_one


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
        self.service = service
        self.dimensions = dimensions
        self.batch_size = batch_size

    def identity(self) -> dict[str, Any]:
        encoder = {"name": "service", **self.service.identity, "dimensions": self.dimensions}
        return {"encoder": encoder, "pooling": "of the service"}

    def encode(self, texts: list[str]) -> Float[np.ndarray, "n S"]:
        ((_, answer),) = Asking(self.service).each(self._ask, [self._question(texts)])
        return answer.content

    def estimate(self, subjects: Subjects, texts: Read, work: Work) -> Estimate:
        words = texts()
        missing = self._store(work).missing(map(key_of, words))
        tokens = self._question([words[row] for row in missing]).likely_in
        return Estimate(len(subjects), len(missing), tokens, 0, self.service.price(tokens, 0))

    def vectors(self, subjects: Subjects, texts: Read, work: Work) -> tuple[Float[np.ndarray, "V S"], dict[str, Any]]:
        vectors, record = super().vectors(subjects, texts, work)
        lines = self._store(work).lines(dict.fromkeys(map(key_of, texts())))
        model, tokens = only_one(lines["model"], "vectors"), round(lines["tokens_in"].sum())
        return vectors, {**record, "model": model, "tokens_in": tokens, "price": self.service.price(tokens, 0)}

    def _make(self, store: Store, todo: list[tuple[str, str]], work: Work) -> None:
        if not todo:
            return
        advance, fresh = work.begin(len(todo)), []
        batches = [todo[first : first + self.batch_size] for first in range(0, len(todo), self.batch_size)]
        questions = [self._question([text for _, text in batch]) for batch in batches]
        try:
            for place, answer in Asking(self.service).each(self._ask, questions):
                fresh.append(([key for key, _ in batches[place]], answer))
                advance(len(batches[place]))
                if sum(len(keys) for keys, _ in fresh) >= self.keep_every:
                    self._flush(store, fresh)
                    fresh = []
        finally:
            if fresh:
                self._flush(store, fresh)

    def _flush(self, store: Store, fresh: list[tuple[list[str], Answer]]) -> None:
        self._keep(
            store,
            [key for keys, _ in fresh for key in keys],
            np.concatenate([answer.content for _, answer in fresh]),
            tokens_in=[answer.tokens_in / len(keys) for keys, answer in fresh for _ in keys],
            model=[answer.model for keys, answer in fresh for _ in keys],
        )

    def _question(self, texts: list[str]) -> Question:
        beside = f" or {len(texts) - 1} texts beside it" if len(texts) > 1 else ""
        return Question(texts, "".join(texts), parts=len(texts), name=f"'{''.join(texts[:1])[:60]}'{beside}")

    def _ask(self, client: Any, texts: list[str]) -> Answer:
        more = {} if self.dimensions is None else {"dimensions": self.dimensions}
        reply = client.embeddings.create(model=self.service.model, input=texts, encoding_format="float", **more)
        took = (reply.usage.prompt_tokens, 0) if reply.usage else None
        place_of = {line.index: line.embedding for line in reply.data}
        if sorted(place_of) != list(range(len(texts))):
            raise Senseless(f"{len(place_of)} vectors for {len(texts)} texts", took)
        vectors = np.array([place_of[place] for place in range(len(texts))], dtype=np.float32)
        if vectors.ndim != 2 or not np.isfinite(vectors).all():
            raise Senseless("vectors that are no rows of finite numbers", took)
        return Answer(vectors, *(took or (0, 0)), reply.model or self.service.model)
