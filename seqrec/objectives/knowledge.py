"""What the texts of a user's items say about the user: their mean, and how well each of them fits the others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from seqrec.catalog import Catalog
from seqrec.semantics.vector_files import read_vectors
from seqrec.semantics.vectors import check_quotes
from seqrec.sequences import Sequences

# How many events are looked at together; their vectors take a hundred MiB.
_EVENTS = 2**16


def text_vectors(path: str, catalog: Catalog) -> Float[Tensor, "N S"]:
    """The vector of each item of the catalog, by raw id, from a file or folder as ``read_vectors`` wants it; zero if it
    has none.

    Raises:
        ValueError: the file is missing, is not as it should be, has no vector for any item, or quotes what may be asked
            for.
    """
    try:
        ids, vectors = read_vectors(Path(path))
    except FileNotFoundError as error:
        raise ValueError(str(error)) from error
    check_quotes(Path(path), catalog)
    place_of = {raw: place for place, raw in enumerate(ids)}
    places = np.array([place_of.get(raw, -1) for raw in catalog.ids])
    if (places < 0).all():
        raise ValueError(f"{path} has no vector for any item of the catalog; name the file of this data set.")
    aligned = np.where((places >= 0)[:, None], vectors[places], 0)
    return torch.from_numpy(aligned.astype(np.float32))


def of_users(vectors: Float[Tensor, "N S"], histories: Sequences) -> Float[Tensor, "B S"]:
    """The mean over the items of each history that have a vector; zero where none has."""
    known = (vectors != 0).any(1).to(vectors.dtype)
    sums, counts = vectors.new_zeros(len(histories), vectors.shape[1]), vectors.new_zeros(len(histories))
    for items, owners in _blocks(histories):
        sums.index_add_(0, owners, vectors[items])
        counts.index_add_(0, owners, known[items])
    return sums / counts.clamp(min=1)[:, None]


def fit(vectors: Float[Tensor, "N S"], histories: Sequences) -> Float[Tensor, "T 1"]:
    """Of every event, the cosine of its item's vector and the sum of those of the other events of its history. Where
    either vector is zero, the mean of all cosines that are defined, or zero."""
    directions = F.normalize(vectors, dim=1)
    sums = directions.new_zeros(len(histories), directions.shape[1])
    for items, owners in _blocks(histories):
        sums.index_add_(0, owners, directions[items])
    cosines, whether = [], []
    for items, owners in _blocks(histories):
        own = directions[items]
        others = sums[owners] - own
        cosines.append(F.cosine_similarity(own, others, dim=1))
        whether.append((own != 0).any(1) & (others.norm(dim=1) > 1e-6))
    agreement, defined = torch.cat(cosines), torch.cat(whether)
    usual = agreement[defined].mean() if defined.any() else agreement.new_zeros(())
    return torch.where(defined, agreement, usual)[:, None]


def _blocks(histories: Sequences) -> Iterator[tuple[Tensor, Tensor]]:
    """Items and owners of some events after others."""
    yield from zip(histories.items.split(_EVENTS), histories.owners.split(_EVENTS), strict=True)
