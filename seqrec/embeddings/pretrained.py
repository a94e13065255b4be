"""Item vectors that an encoder of texts made beforehand, read through a small trainable tower."""

from __future__ import annotations

from collections import Counter
from enum import Enum, member
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from seqrec.catalog import Catalog
from seqrec.embeddings.base import ItemEmbedding
from seqrec.ops.dropout import drop

_NAMED = 5


def _zero(known: Float[np.ndarray, "V T"]) -> Float[np.ndarray, "T"]:
    return np.zeros_like(known[0])


def _mean(known: Float[np.ndarray, "V T"]) -> Float[np.ndarray, "T"]:
    return known.mean(0, dtype=np.float32)


class Missing(Enum):
    """What an item without a vector gets: nothing, so that its catalog is refused, or ``zero`` in every place, or the
    ``mean`` of the items of the catalog that have one."""

    refuse = None
    zero = member(_zero)
    mean = member(_mean)


class TextTower(ItemEmbedding):
    """Frozen text vectors, each normalised and sent through two linear maps with a GELU between them.

    The vectors are a buffer: they are never trained, and checkpoints and bundles carry them in the precision of the
    file. So a stored model is opened where the file is absent; a new one cannot be trained there, which its first use
    says. Given all items, the forward pass costs about N · H · (T + D) multiplications, anew in every step.

    Source: the item side of Chen et al., "HLLM: Enhancing Sequential Recommendations via Hierarchical Large Language
    Models for Item and User Modeling", 2024 (arXiv 2409.12740). Differs from it: the language model stays outside and
    is not tuned, so any encoder of texts will do; the tower, which the paper does not have, learns in its place.

    Args:
        catalog: the items; raw ids alone say which vector is whose.
        vectors: Parquet file, see ``read_vectors``; it may hold other items, too.
        dim: width D of what the tower makes.
        hidden_dim: width H between its two maps, at least 1.
        dropout: share of the numbers between the two maps that is dropped in training, in [0, 1).
        missing: what becomes of items of the catalog that have no vector in the file.

    Raises:
        ValueError: the file is not as ``read_vectors`` wants it, or has no vector for some items.
    """

    vectors: Tensor | None

    def __init__(
        self,
        catalog: Catalog,
        vectors: str,
        dim: int,
        hidden_dim: int = 128,
        dropout: float = 0.2,
        missing: Missing = Missing.refuse,
    ) -> None:
        super().__init__(dim)
        if hidden_dim < 1:
            raise ValueError(f"hidden_dim is {hidden_dim}; it must be at least 1, e.g. 128.")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is {dropout}; it must be at least 0 and below 1, e.g. 0.2.")
        self.path = Path(vectors)
        self.n_items = len(catalog)
        self.dropout = dropout
        self.narrow = nn.Linear(hidden_dim, dim)
        self.register_buffer("vectors", None)
        self.register_load_state_dict_pre_hook(_make_room)
        if self.path.is_file():
            self._hold(_aligned(self.path, catalog, missing))

    def _hold(self, vectors: Float[Tensor, "N T"]) -> None:
        """Take these vectors, and a fresh first map that is as wide as they are."""
        self.vectors = vectors.to(self.narrow.weight.device)
        self.widen = nn.Linear(vectors.shape[1], self.narrow.in_features).to(self.narrow.weight)

    def forward(self, rows: Int[Tensor, "*n"] | None = None) -> Float[Tensor, "*rows D"]:
        held = self._held()
        return self._through(held if rows is None else F.embedding(rows, held))

    def vectors_of(self, vectors: Float[Tensor, "n T"]) -> Float[Tensor, "n D"]:
        held = self._held()
        if vectors.shape[1] != held.shape[1]:
            raise ValueError(
                f"The new items have vectors of {vectors.shape[1]} numbers, the model was trained on vectors of "
                f"{held.shape[1]}; make them with the same encoder."
            )
        return self._through(vectors.to(held.dtype))

    def _held(self) -> Float[Tensor, "N T"]:
        if self.vectors is None:
            raise FileNotFoundError(
                f"{self.path} does not exist, and no checkpoint brought the vectors; correct `vectors` of TextTower."
            )
        return self.vectors

    def _through(self, vectors: Float[Tensor, "*n T"]) -> Float[Tensor, "*n D"]:
        vectors = vectors.to(self.narrow.weight.dtype)
        # Without weights of its own: those of the map that follows do the same.
        hidden = F.gelu(self.widen(F.layer_norm(vectors, vectors.shape[-1:])))
        return self.narrow(drop(hidden, self.dropout) if self.training else hidden)


def read_vectors(path: Path) -> tuple[list[str], Float[np.ndarray, "V T"]]:
    """Raw ids and vectors of a Parquet file with the columns ``item_id`` and ``vector``, a list of numbers.

    Lines without a vector are left out. Half precision stays half, all else becomes float32.

    Raises:
        ValueError: the columns are not there, an id comes twice, vectors differ in length, or a number is not finite.
    """
    ids, vectors = _from_parquet(path)
    name, lines = Counter(ids).most_common(1)[0] if ids else ("", 0)
    if lines > 1:
        raise ValueError(f"{path} has {lines} vectors of the item {name}; leave one line for each item_id.")
    broken = np.flatnonzero(~np.isfinite(vectors).all(1))
    if broken.size:
        raise ValueError(
            f"{path} has numbers that are not finite, first in the vector of {ids[broken[0]]}; correct them."
        )
    return ids, vectors


def _from_parquet(path: Path) -> tuple[list[str], Float[np.ndarray, "V T"]]:
    found = "something else"
    try:
        found = ", ".join(f"{field.name} ({field.type})" for field in pq.read_schema(path))
        table = pq.read_table(path, columns=["item_id", "vector"]).drop_null()
        ids = table["item_id"].cast("string").to_pylist()
        lists = table["vector"].combine_chunks()
        lengths = sorted(pc.list_value_length(lists).unique().to_pylist())  # pyright: ignore[reportAttributeAccessIssue]
        flat = lists.flatten()
        numbers = flat.cast(flat.type if pa.types.is_float16(flat.type) else "float").to_numpy(zero_copy_only=False)
    except pa.ArrowException as error:
        raise ValueError(
            f"{path} must be a Parquet file with the columns item_id and vector, a list of numbers; found {found}."
        ) from error
    if len(lengths) > 1:
        raise ValueError(f"{path} has vectors of {lengths[0]} to {lengths[-1]} numbers; give all the same length.")
    return ids, numbers.reshape(len(ids), lengths[0] if lengths else 0)


def _aligned(path: Path, catalog: Catalog, missing: Missing) -> Float[Tensor, "N T"]:
    """The vector of each item of the catalog, in row order."""
    ids, vectors = read_vectors(path)
    place_of = {raw: place for place, raw in enumerate(ids)}
    places = np.array([place_of.get(raw, -1) for raw in catalog.ids])
    without = places < 0
    if without.all() or (missing is Missing.refuse and without.any()):
        lacking = catalog.ids.filter(without.tolist()).to_list()
        more = f" and {len(lacking) - _NAMED:,} more" if len(lacking) > _NAMED else ""
        raise ValueError(
            f"{path} has no vector for {len(lacking):,} of the {len(catalog):,} items of the catalog: "
            f"{', '.join(lacking[:_NAMED])}{more}; add them by raw id, or set `missing` of TextTower to zero or mean."
        )
    aligned = vectors[places]
    if missing is not Missing.refuse:
        aligned[without] = missing.value(aligned[~without])
    return torch.from_numpy(aligned)


def _make_room(tower: TextTower, state_dict: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Before weights are loaded: takes on the width of the vectors among them where the file was absent."""
    stored = state_dict.get(f"{prefix}vectors")
    if tower.vectors is None and stored is not None:
        tower._hold(stored.new_empty(tower.n_items, stored.shape[1]))
