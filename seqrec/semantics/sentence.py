"""Sentence encoders that run on this machine, by the library sentence-transformers."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from seqrec.semantics.encoders import TextEncoder


class SentenceEncoder(TextEncoder):
    """A model that sentence-transformers opens, with the pooling that it was trained with.

    The store knows it by the digest of its weights and the description of its modules, not by its place, so a folder
    that was moved is the same model and one that was trained on is another.

    Args:
        model: folder of the model, or a name that the library can fetch.
        device: where it runs; None leaves that to the library.
        batch_size: texts in one pass, at least 1.
        instruction: words put before every text, as some models want.
        half: see ``TextEncoder``.
        keep_every: see ``TextEncoder``.
    """

    def __init__(
        self,
        model: str,
        device: str | None = None,
        batch_size: int = 64,
        instruction: str = "",
        half: bool = True,
        keep_every: int = 1024,
    ) -> None:
        super().__init__(half, keep_every)
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it must be at least 1, e.g. 64.")
        self.model = model
        self.device = device
        self.batch_size = batch_size
        self.instruction = instruction

    def identity(self) -> dict[str, Any]:
        encoder = {"name": "sentence-transformers", "model": self._name, "weights": self._digest}
        return {"encoder": encoder, "pooling": self._pooling, "instruction": self.instruction}

    def encode(self, texts: list[str]) -> Float[np.ndarray, "n S"]:
        return np.asarray(
            self._loaded.encode(
                [self.instruction + text for text in texts],
                batch_size=self.batch_size,
                show_progress_bar=False,
                convert_to_numpy=True,
            ),
            dtype=np.float32,
        )

    @property
    def _name(self) -> str:
        return str(self.model).rstrip("/").rpartition("/")[2]

    @cached_property
    def _loaded(self) -> Any:
        try:
            from sentence_transformers import SentenceTransformer
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "A sentence encoder needs sentence-transformers, which is not installed. "
                "Run `pip install 'seqrec[llm]'`."
            ) from error
        try:
            return SentenceTransformer(self.model, device=self.device)
        except (OSError, ValueError, KeyError) as error:
            said = " ".join(str(error).split())[:200]
            raise ValueError(
                f"sentence-transformers cannot open the model {self.model}: {said} Give the folder of a model."
            ) from error

    @cached_property
    def _pooling(self) -> str:
        """The description of every module after the network itself."""
        return "; ".join(" ".join(repr(module).split()) for module in list(self._loaded)[1:]) or "as the model does"

    @cached_property
    def _digest(self) -> str:
        digest = hashlib.sha256(repr(self._loaded).encode())
        told = {name: getattr(self._loaded, name, None) for name in ("prompts", "default_prompt_name")}
        digest.update(json.dumps(told, sort_keys=True, default=str).encode())
        words = getattr(getattr(self._loaded, "tokenizer", None), "backend_tokenizer", None)
        digest.update(words.to_str().encode() if words is not None else b"")
        for name, weight in sorted(self._loaded.state_dict().items()):
            digest.update(name.encode())
            digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()
