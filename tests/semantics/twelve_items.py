"""Twelve items to ask a service about, and the service on this machine that is asked."""

import numpy as np
import polars as pl

from seqrec.catalog import Catalog
from seqrec.semantics.prompts import DEFAULTS, Prompt
from seqrec.semantics.service import Service
from seqrec.semantics.subjects import Items

N = 12
CATALOG = Catalog(
    pl.DataFrame(
        {"item_id": [str(row) for row in range(N)], "count": [1] * N, "title": [f"Thing {r}" for r in range(N)]}
    )
)
ITEMS = Items(CATALOG, np.arange(0), np.zeros(1, dtype=np.int64))
PROMPT = Prompt.read(DEFAULTS["items"])


def at(service, **settings) -> Service:
    return Service(**({"model": "small", "base_url": service.url, "retries": 3, "concurrency": 4} | settings))
