"""What changes in a bundle after training: items that were added, and items that were withdrawn."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from seqrec.catalog import Catalog
from seqrec.data.errors import InputError
from seqrec.embeddings.extended import ExtendedEmbedding
from seqrec.recommenders.keyed import KeyedRecommender

logger = logging.getLogger(__name__)

ADDED, WITHDRAWN = "added.safetensors", "withdrawn.json"


def extend(recommender: KeyedRecommender, catalog: Catalog, vectors: Float[Tensor, "M D"]) -> None:
    """Make a trained recommender read and rank items that it was not trained on.

    Args:
        recommender: knows the first items of the catalog; it is changed.
        catalog: those items and the added ones behind them.
        vectors: what the embedding would say of each added item.

    Raises:
        InputError: items are scored by something else than what they are read as.
    """
    if recommender.output is not None:
        raise InputError(
            "The model scores items by a table of their own (output), which says nothing of new ones; train it anew."
        )
    recommender.embedding = ExtendedEmbedding(recommender.embedding, len(recommender.catalog), vectors)
    recommender.catalog = catalog
    recommender.counts = torch.tensor(catalog.counts, dtype=torch.long)


def read_withdrawn(folder: Path) -> dict[str, list[str]]:
    """Raw ids that are ``blocked`` and ``removed``."""
    return json.loads((folder / WITHDRAWN).read_text())


def write_withdrawn(folder: Path, blocked: Iterable[str], removed: Iterable[str]) -> None:
    """Raw ids for ``read_withdrawn``."""
    lists = {"blocked": sorted(blocked), "removed": sorted(removed)}
    (folder / WITHDRAWN).write_text(json.dumps(lists, indent=2) + "\n")


def still_withdrawn(folder: Path, catalog: Catalog) -> dict[str, frozenset[str]]:
    """What an older bundle, if there is one in this folder, has withdrawn of this catalog.

    Raises:
        InputError: it cannot be read.
    """
    if not (folder / WITHDRAWN).is_file():
        return {}
    try:
        withdrawn = read_withdrawn(folder)
    except ValueError as error:
        raise InputError(
            f"{folder / WITHDRAWN} cannot be read ({error}), so nobody knows which items are blocked; choose another "
            "--out, and block them there."
        ) from error
    kept = {kind: frozenset(ids).difference(catalog.rows(ids)[1]) for kind, ids in withdrawn.items()}
    if not any(kept.values()):
        return {}
    logger.warning(
        "%s: %s; `seqrec block-items --undo` takes back a block.",
        folder,
        ", ".join(f"{len(ids):,} items stay {kind}" for kind, ids in kept.items()),
    )
    return kept
