"""What changes in a bundle after training: items that were added, and items that were withdrawn."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from seqrec.catalog import Catalog
from seqrec.embeddings.extended import ExtendedEmbedding
from seqrec.recommenders.keyed import KeyedRecommender

ADDED, WITHDRAWN = "added.safetensors", "withdrawn.json"


def extend(recommender: KeyedRecommender, catalog: Catalog, vectors: Float[Tensor, "M D"]) -> None:
    """Make a trained recommender read and rank items that it was not trained on.

    Args:
        recommender: knows the first items of the catalog; it is changed.
        catalog: those items and the added ones behind them.
        vectors: what the embedding would say of each added item.
    """
    recommender.embedding = ExtendedEmbedding(recommender.embedding, len(recommender.catalog), vectors)
    recommender.catalog = catalog
    recommender.counts = torch.tensor(catalog.counts, dtype=torch.long)


def read_withdrawn(folder: Path) -> dict[str, list[str]]:
    """Raw ids that are ``blocked`` and ``removed``."""
    return json.loads((folder / WITHDRAWN).read_text())
