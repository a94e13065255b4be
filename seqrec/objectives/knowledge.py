"""What the texts of a user's items say about the user: their mean, and how well each of them fits the others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from seqrec.catalog import Catalog
from seqrec.ops.rows import in_rectangle, spread
from seqrec.semantics.vector_files import read_vectors
from seqrec.semantics.vectors import check_quotes
from seqrec.sequences import Sequences


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
    items, owners = histories.items, histories.owners
    sums = vectors.new_zeros(len(histories), vectors.shape[1]).index_add_(0, owners, vectors[items])
    counts = vectors.new_zeros(len(histories)).index_add_(0, owners, known[items])
    return sums / counts.clamp(min=1)[:, None]


def fit(vectors: Float[Tensor, "N S"], histories: Sequences) -> Float[Tensor, "T 2"]:
    """Of every event, the cosine of its item's vector with the sum of those of the other events of its history, and
    with the nearest of them. Where an event has nothing to be compared with, it has the mean of all that have."""
    directions = F.normalize(vectors, dim=1)
    items, owners = histories.items, histories.owners
    own = directions[items]
    sums = own.new_zeros(len(histories), own.shape[1]).index_add_(0, owners, own)
    others = sums[owners] - own
    agreement = F.cosine_similarity(own, others, dim=1)
    agreement = agreement.masked_fill((others.norm(dim=1) <= 1e-6) | (own == 0).all(1), torch.nan)
    blocks = (histories.chosen(rows) for rows in torch.arange(len(histories), device=items.device).split(512))
    found = torch.stack([agreement, torch.cat([own.new_zeros(0), *(_nearest(directions, each) for each in blocks)])], 1)
    return torch.where(found.isnan(), found.nanmean(0).nan_to_num(0.0), found)


def _nearest(directions: Float[Tensor, "N S"], histories: Sequences) -> Float[Tensor, "T"]:
    """The largest cosine of each event with another of its history; not a number where there is none."""
    n, longest, n_events = len(histories), int(histories.lengths.max()), len(histories.items)
    cells = in_rectangle(histories.offsets, longest, n_events)
    wide = spread(directions[histories.items], cells, n * longest).view(n, longest, -1)
    speaks = (wide != 0).any(2)
    cosines = (wide @ wide.mT).masked_fill(~speaks[:, None] | torch.eye(longest, dtype=torch.bool), -torch.inf)
    nearest = cosines.amax(2).masked_fill(~speaks, -torch.inf).view(-1)[cells]
    return nearest.masked_fill(nearest == -torch.inf, torch.nan)
