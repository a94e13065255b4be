"""The frozen text vectors of a catalog, aligned by raw id, with the map that made them narrower."""

from __future__ import annotations

from abc import abstractmethod
from enum import Enum, member
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from seqrec.catalog import Catalog
from seqrec.embeddings.base import ItemEmbedding
from seqrec.embeddings.reduction import PCA
from seqrec.embeddings.stored import opens_files
from seqrec.semantics.vector_files import read_vectors
from seqrec.semantics.vectors import check_quotes

_NAMED, _SAMPLED = 5, 4096


def _zero(known: Float[Tensor, "V Q"]) -> Float[Tensor, "Q"]:
    return torch.zeros_like(known[0])


def _mean(known: Float[Tensor, "V Q"]) -> Float[Tensor, "Q"]:
    return known.mean(0, dtype=torch.float32).to(known)


class Missing(Enum):
    """What an item without a vector gets: nothing, so that its catalog is refused, or ``zero`` in every place, or the
    ``mean`` of the items of the catalog that have one, after all are reduced."""

    refuse = None
    zero = member(_zero)
    mean = member(_mean)


class TextTable(nn.Module):
    """One frozen vector per item: never trained, and carried by checkpoints and bundles.

    A stored model is thus opened where the file is absent; a new one cannot be trained there, which its first use says.

    Args:
        catalog: the items; raw ids alone say which vector is whose.
        path: file or folder of vectors, see ``semantics.vector_files.read_vectors``; it may hold other items, too.
        reduction: makes vectors narrower, fitted to those of the items of the catalog; None leaves them as they are, in
            the precision of the file.
        missing: what becomes of items of the catalog that have no vector in the file.

    Attributes:
        vectors: what stands for each item; None as long as neither file nor checkpoint brought it.

    Raises:
        ValueError: the file cannot be used, its texts quote another training part, or some items have no vector.
    """

    by_item = ("vectors",)
    vectors: Tensor | None
    mean: Tensor | None
    map: Tensor | None

    def __init__(
        self, catalog: Catalog, path: Path, reduction: PCA | None = None, missing: Missing = Missing.refuse
    ) -> None:
        super().__init__()
        self.path, self.n_items = path, len(catalog)
        self._opened = partial(_aligned, path, catalog, missing)
        self.missing = missing
        for name in ("vectors", "mean", "map"):
            self.register_buffer(name, None)
        self.register_load_state_dict_pre_hook(_make_room)
        if opens_files() and path.exists():
            vectors, without = self._opened()
            if reduction is not None:
                self.mean, self.map = reduction.fit(vectors[~without])
            self._reduce(vectors, without)

    def _reduce(self, vectors: Float[Tensor, "N T"], without: Bool[Tensor, "N"]) -> None:
        self.vectors = self.reduced(vectors)
        if self.missing is not Missing.refuse:
            self.vectors[without] = self.missing.value(self.vectors[~without])

    def reduce(self) -> None:
        """Make the vectors of the file narrower once more, with a map that came from elsewhere, say a checkpoint."""
        if self.map is not None:
            self._reduce(*self._opened())

    @property
    def dim(self) -> int | None:
        """How many numbers stand for an item; None as long as nobody knows."""
        return None if self.vectors is None else self.vectors.shape[1]

    def reduced(self, vectors: Float[Tensor, "n T"]) -> Float[Tensor, "n Q"]:
        """What stands for items with these text vectors.

        Raises:
            ValueError: they have more or fewer numbers than those of the catalog.
        """
        wanted = self.dim if self.mean is None else len(self.mean)
        if wanted is not None and vectors.shape[1] != wanted:
            raise ValueError(
                f"The new items have vectors of {vectors.shape[1]} numbers, the model was trained on vectors of "
                f"{wanted}; make them with the same encoder of texts."
            )
        if self.mean is None or self.map is None:
            return vectors
        return (vectors.float() - self.mean) @ self.map

    def demand_files(self) -> None:
        """Raises FileNotFoundError where neither file nor checkpoint brought the vectors."""
        if self.vectors is None:
            raise FileNotFoundError(
                f"{self.path} does not exist, and no checkpoint brought the vectors; correct `vectors` of the "
                "embedding, or make them with `seqrec embed items`."
            )

    def forward(self, rows: Int[Tensor, "*n"] | None = None) -> Float[Tensor, "*rows Q"]:
        self.demand_files()
        assert self.vectors is not None
        return self.vectors if rows is None else F.embedding(rows, self.vectors)


class MappedText(ItemEmbedding):
    """Frozen text vectors, each normalised and sent through maps that are trained.

    A kind makes what is as wide as a text in ``_widen``, which waits for a checkpoint where the file is absent, and all
    else before it calls ``_begin``.

    Args:
        catalog: the items; raw ids alone say which vector is whose.
        dim: width D of what is made of a text.
        vectors: file or folder of vectors, see ``semantics.vector_files.read_vectors``; it may hold other items, too.
        dropout: share that is dropped in training, in [0, 1); of what, the kind says.
        missing: what becomes of items of the catalog that have no vector in the file.
        reduction: makes text vectors narrower before the maps; None leaves them as they are.

    Attributes:
        read_by: name of a linear map that ``_widen`` makes and that reads texts.

    Raises:
        ValueError: the file cannot be used, or has no vector for some items.
    """

    read_by: str
    keeps_start: tuple[str, ...] = ()

    def __init__(
        self, catalog: Catalog, dim: int, vectors: str, dropout: float, missing: Missing, reduction: PCA | None
    ) -> None:
        super().__init__(dim)
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is {dropout}; it must be at least 0 and below 1, e.g. 0.2.")
        self.dropout = dropout
        self.texts = TextTable(catalog, Path(vectors), reduction, missing)
        self.register_load_state_dict_pre_hook(_widen_as_stored)

    @abstractmethod
    def _widen(self, text_dim: int) -> None:
        """Take fresh maps for vectors of so many numbers."""

    @abstractmethod
    def _last(self) -> nn.Linear:
        """The map that says how long the results are."""

    @abstractmethod
    def _mapped(self, vectors: Float[Tensor, "*n Q"]) -> Float[Tensor, "*n D"]:
        """What becomes of normalised text vectors."""

    def _begin(self, init_std: float | None) -> None:
        """Make the maps, whose results deviate by so much, where the width of texts is known."""
        if self.texts.dim is not None:
            self._widen(self.texts.dim)
            if init_std is not None:
                self._deviate_by(init_std)
                self.keeps_start = tuple(name for name, weight in self.named_parameters() if weight.ndim > 1)

    @torch.no_grad()
    def _deviate_by(self, std: float) -> None:
        rows = torch.arange(min(self.texts.n_items, _SAMPLED))
        factor = std / deviation(self.eval()._through(self.texts(rows)))  # dropout is for training
        for part in (self._last().weight, self._last().bias):
            part.mul_(factor)
        self.train()

    def forward(self, rows: Int[Tensor, "*n"] | None = None) -> Float[Tensor, "*rows D"]:
        return self._through(self.texts(rows))

    def vectors_of(self, vectors: Float[Tensor, "n T"]) -> Float[Tensor, "n D"]:
        return self._through(self.texts.reduced(vectors))

    def _through(self, vectors: Float[Tensor, "*n Q"]) -> Float[Tensor, "*n D"]:
        vectors = vectors.to(self._last().weight.dtype)
        return self._mapped(F.layer_norm(vectors, vectors.shape[-1:]))


def deviation(numbers: Tensor) -> Tensor:
    """How far numbers of mean 0 are from it."""
    return numbers.float().square().mean().sqrt().clamp(min=1e-12)


def _aligned(path: Path, catalog: Catalog, missing: Missing) -> tuple[Float[Tensor, "N T"], Bool[Tensor, "N"]]:
    """The vector of each item of the catalog, in row order, and which items have none, whose row is anyone's."""
    check_quotes(path, catalog)
    ids, vectors = read_vectors(path)
    place_of = {raw: place for place, raw in enumerate(ids)}
    places = np.array([place_of.get(raw, -1) for raw in catalog.ids])
    without = places < 0
    if without.all() or (missing is Missing.refuse and without.any()):
        lacking = catalog.ids.filter(without.tolist()).to_list()
        more = f" and {len(lacking) - _NAMED:,} more" if len(lacking) > _NAMED else ""
        raise ValueError(
            f"{path} has no vector for {len(lacking):,} of the {len(catalog):,} items of the catalog: "
            f"{', '.join(lacking[:_NAMED])}{more}; add them by raw id, or set `missing` of the embedding to zero or "
            "mean."
        )
    return torch.from_numpy(vectors[places]), torch.from_numpy(without)


def _make_room(table: TextTable, state_dict: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Before weights are loaded: takes on the widths of those among them where the file was absent."""
    stored = state_dict.get(f"{prefix}vectors")
    if table.vectors is None and stored is not None:
        table.vectors = stored.new_empty(table.n_items, stored.shape[1])
        for name in ("mean", "map"):
            part = state_dict.get(f"{prefix}{name}")
            setattr(table, name, None if part is None else torch.empty_like(part))


def _widen_as_stored(mapped: MappedText, state_dict: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Before weights are loaded: maps as wide as theirs where the file was absent."""
    stored = state_dict.get(f"{prefix}{mapped.read_by}.weight")
    if mapped.texts.vectors is None and stored is not None:
        mapped._widen(stored.shape[1])
