"""What an encoder of texts makes of a user when it reads a question about the user."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

from seqrec.catalog import Catalog
from seqrec.semantics.encoders import TextEncoder
from seqrec.semantics.prompts import DEFAULTS, Prompt
from seqrec.semantics.subjects import Histories
from seqrec.semantics.writers import working
from seqrec.sequences import Sequences


class FraudQuestion:
    """The vector of "is this user a fraudster?", asked with the titles of what the user has.

    Nobody answers: the vector of the question, as the encoder reads it, is what is known of the user. Each question is
    encoded once and kept in the store by its text, so another run, another seed and another defence ask nothing again;
    an attack costs the questions about its fakes.

    Source: the knowledge of users in Zhang et al., "LoRec: Combating Poisons with Large Language Model for Robust
    Sequential Recommendation", SIGIR 2024 (arXiv 2401.17723). Differs from it: any encoder of texts reads the question,
    where the paper takes the mean hidden state of Llama 2; the words are our own; a history is told up to its newest
    ``window`` items.

    Args:
        encoder: reads the question.
        domain: what the items are, in the words of the prompt.
        prompt: file of your own prompt; by default the newest of the package.
        window: most items that are told, the newest ones, at least 1.
        store: folder of all vectors so far, shared with `seqrec embed`.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        domain: str = "goods and media",
        prompt: str | None = None,
        window: int = 50,
        store: str = "data/semantics",
    ) -> None:
        self.encoder, self.window, self.store = encoder, window, store
        self.prompt = Prompt.read(DEFAULTS["fraud"] if prompt is None else Path(prompt)).about(domain)

    def about(self, histories: Sequences, catalog: Catalog) -> Float[Tensor, "B S"]:
        """One vector of each history.

        Raises:
            ValueError: the catalog has neither titles nor categories, so that nothing can be asked.
        """
        offsets = histories.offsets.cpu().numpy()
        ids = pl.DataFrame({"user_id": [str(row) for row in range(len(histories))], "n_events": np.diff(offsets)})
        told = Histories(catalog, histories.items.cpu().numpy(), offsets[:-1], offsets[1:], ids, self.window)
        if not told.has_words:
            raise ValueError(
                "The catalog has neither titles nor categories, so there is nothing to ask about a user; prepare the "
                "data with titles, or take text vectors of the items."
            )

        def texts() -> list[str]:
            facts = map(told.facts, range(len(told)))
            return ["\n\n".join(part["content"] for part in self.prompt.messages(each)) for each in facts]

        with working(Path(self.store), "asking about users") as work:
            vectors, _ = self.encoder.vectors(told, texts, work)
        return torch.from_numpy(vectors.astype(np.float32))
