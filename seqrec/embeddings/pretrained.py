"""Item vectors that an encoder of texts made beforehand: read as they are, through a small tower, or to begin from."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from seqrec.catalog import Catalog
from seqrec.embeddings.base import ItemEmbedding
from seqrec.embeddings.reduction import PCA
from seqrec.embeddings.texts import MappedText, Missing, TextTable, deviation
from seqrec.ops.dropout import drop


class FrozenText(ItemEmbedding):
    """Text vectors and nothing else: their principal components, never trained.

    Args:
        catalog: the items; raw ids alone say which vector is whose.
        dim: width D, at most the numbers of a text vector.
        vectors: file or folder of vectors, see ``semantics.vector_files.read_vectors``; it may hold other items, too.
        whitens: whether all directions are scaled to the same variance.
        init_std: what all numbers together deviate by, above 0.
        missing: what becomes of items of the catalog that have no vector in the file.

    Raises:
        ValueError: the file cannot be used, or has no vector for some items.
    """

    scale: Tensor

    def __init__(
        self,
        catalog: Catalog,
        dim: int,
        vectors: str,
        whitens: bool = True,
        init_std: float = 0.02,
        missing: Missing = Missing.refuse,
    ) -> None:
        super().__init__(dim)
        self.texts = TextTable(catalog, Path(vectors), PCA(dim, whitens), missing)
        scale = torch.ones(()) if self.texts.vectors is None else init_std / deviation(self.texts.vectors)
        self.register_buffer("scale", scale)

    def forward(self, rows: Int[Tensor, "*n"] | None = None) -> Float[Tensor, "*rows D"]:
        return self.texts(rows) * self.scale

    def vectors_of(self, vectors: Float[Tensor, "n T"]) -> Float[Tensor, "n D"]:
        return self.texts.reduced(vectors) * self.scale


class TextTower(MappedText):
    """Frozen text vectors, each normalised and sent through two linear maps with a GELU between them.

    The vectors are a buffer: they are never trained, and checkpoints and bundles carry them in the precision of the
    file. Given all items, the forward pass costs about N · H · (T + D) multiplications, anew in every step.

    Source: the item side of Chen et al., "HLLM: Enhancing Sequential Recommendations via Hierarchical Large Language
    Models for Item and User Modeling", 2024 (arXiv 2409.12740). Differs from it: the language model stays outside and
    is not tuned, so any encoder of texts will do; the tower, which the paper does not have, learns in its place.

    Args:
        catalog: the items; raw ids alone say which vector is whose.
        dim: width D of what the tower makes.
        vectors: file or folder of vectors, see ``semantics.vector_files.read_vectors``; it may hold other items, too.
        hidden_dim: width H between its two maps, at least 1.
        dropout: share of the numbers between the two maps that is dropped in training, in [0, 1).
        missing: what becomes of items of the catalog that have no vector in the file.
        reduction: makes text vectors narrower before the tower; None leaves them as they are.
        init_std: what the tower's numbers deviate by before training, above 0, so that they can stand beside a table
            that begins so; None leaves them as the maps' own initialisation makes them.

    Raises:
        ValueError: the file cannot be used, or has no vector for some items.
    """

    read_by = "widen"

    def __init__(
        self,
        catalog: Catalog,
        dim: int,
        vectors: str,
        hidden_dim: int = 128,
        dropout: float = 0.2,
        missing: Missing = Missing.refuse,
        reduction: PCA | None = None,
        init_std: float | None = None,
    ) -> None:
        super().__init__(catalog, dim, vectors, dropout, missing, reduction)
        if hidden_dim < 1:
            raise ValueError(f"hidden_dim is {hidden_dim}; it must be at least 1, e.g. 128.")
        self.narrow = nn.Linear(hidden_dim, dim)
        self._begin(init_std)

    def _widen(self, text_dim: int) -> None:
        self.widen = nn.Linear(text_dim, self.narrow.in_features).to(self.narrow.weight)

    def _last(self) -> nn.Linear:
        return self.narrow

    def _mapped(self, vectors: Float[Tensor, "*n Q"]) -> Float[Tensor, "*n D"]:
        # The vectors were normalised without weights of their own: those of the map here do the same.
        hidden = F.gelu(self.widen(vectors))
        return self.narrow(drop(hidden, self.dropout) if self.training else hidden)


class TextInitialised(ItemEmbedding):
    """One free vector per item, which begins as the principal components of its text and learns like any other.

    Source: the start of the ID view in Liu et al., "LLM-ESR: Large Language Models Enhancement for Long-tailed
    Sequential Recommendation", NeurIPS 2024 (arXiv 2405.20646). Differs from it: this is the only view of an item.

    Args:
        catalog: the items; raw ids alone say which vector is whose.
        dim: width D, at most the numbers of a text vector.
        vectors: file or folder of vectors, see ``semantics.vector_files.read_vectors``; where it is absent, the table
            begins by chance, to be filled from a checkpoint.
        init_std: what the numbers of the table deviate by in the beginning, above 0.
        whitens: whether all directions are scaled to the same variance.
        missing: what becomes of items of the catalog that have no vector in the file.

    Raises:
        ValueError: the file cannot be used, or has no vector for some items.
    """

    by_item = ("table.weight",)
    keeps_start: tuple[str, ...] = ()

    def __init__(
        self,
        catalog: Catalog,
        dim: int,
        vectors: str,
        init_std: float = 0.02,
        whitens: bool = False,
        missing: Missing = Missing.refuse,
    ) -> None:
        super().__init__(dim)
        self.table = nn.Embedding(len(catalog), dim)
        texts = TextTable(catalog, Path(vectors), PCA(dim, whitens), missing).vectors
        with torch.no_grad():
            if texts is None:
                self.table.weight.normal_(std=init_std)
            else:
                self.table.weight.copy_(texts * (init_std / deviation(texts)))
                self.keeps_start = ("table.weight",)

    def forward(self, rows: Int[Tensor, "*n"] | None = None) -> Float[Tensor, "*rows D"]:
        return self.table.weight if rows is None else self.table(rows)
