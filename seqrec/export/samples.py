"""Histories to try a recommender with where nobody gives real ones."""

from __future__ import annotations

import numpy as np
import torch

from seqrec.recommenders.keyed import KeyedRecommender
from seqrec.sequences import Sequences

_HISTORIES, _LONGEST, _DAY = 64, 50, 86_400


def some_histories(
    recommender: KeyedRecommender, max_length: int | None, n: int = _HISTORIES, seed: int = 0
) -> Sequences:
    """Histories of 1 to ``max_length`` events (50 where that is None), popular items more often, one event a day.

    The same for the same catalog and seed. They carry times, and where the model reads it the moment of asking.
    """
    draw = np.random.default_rng(seed)
    counts = recommender.catalog.counts + 1.0
    longest = min(max_length or _LONGEST, _LONGEST)
    lengths = [1 + place * (longest - 1) // max(1, n - 1) for place in range(n)]
    items = draw.choice(len(counts), sum(lengths), p=counts / counts.sum())
    ends = np.cumsum(lengths)
    times = [[_DAY * (20_000 + day) for day in range(length)] for length in lengths]
    rows = [items[end - length : end].tolist() for length, end in zip(lengths, ends, strict=True)]
    histories = Sequences.pack(rows, times)
    asked_at = torch.full_like(histories.newest, _DAY * (20_001 + longest))
    return histories.asking(histories.newest, asked_at) if recommender.reads_asked_at else histories
