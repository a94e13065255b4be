"""From a prepared log to what is described and embedded, and what is said of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from seqrec.catalog import Catalog
from seqrec.data.errors import InputError
from seqrec.data.log import Log
from seqrec.data.prefixes import Granularity, Pool, beginnings, ids_of
from seqrec.data.protocol import LeaveOneOut, Part, Protocol, Split
from seqrec.semantics.subjects import Histories, Items
from seqrec.semantics.vectors import training_of
from seqrec.semantics.writers import Estimate

STORE = Path("data/semantics")


def items_of(log: Log, train: Part, n_quotes: int, limit: int | None) -> Items:
    """The items, quoted from training slices alone."""
    _check(limit)
    inside = np.zeros(len(log.items) + 1, dtype=np.int8)
    np.add.at(inside, train.starts, 1)
    np.add.at(inside, train.ends, -1)
    events = np.asarray(log.items)[np.cumsum(inside[:-1], dtype=np.int8).astype(bool)]
    return Items(_counted(log, train), events, np.append(0, np.cumsum(train.lengths)), n_quotes, limit)


def histories_of(
    log: Log, split: Split, pool: Pool, granularity: Granularity, window: int, limit: int | None
) -> Histories:
    _check(limit)
    part = beginnings(log, split, pool, granularity)
    part = Part(part.users[:limit], part.starts[:limit], part.ends[:limit])
    catalog = _counted(log, split.train)
    return Histories(catalog, np.asarray(log.items), part.starts, part.ends, ids_of(log, part), window)


def split_of(log: Log, protocol: Protocol | None) -> tuple[Split, dict[str, Any]]:
    """The split, and what records say of data and split."""
    split = (protocol or LeaveOneOut()).split(log)
    passport = split.passport
    return split, {
        "dataset": passport["dataset"],
        "target_hash": passport["target_hash"],
        "training": training_of(_counted(log, split.train)),
        "protocol": {name: passport[name] for name in ("kind", "parameters", "seen_is_excluded")},
    }


def record_of(pool: Pool, granularity: Granularity, window: int, limit: int | None) -> dict[str, Any]:
    """What records say of the histories that were taken."""
    return {
        "pool": pool.name,
        "leaky": pool is Pool.official,
        "granularity": granularity.name,
        "deviation": "one text per user, not per prefix" if granularity is Granularity.user else None,
        "window": window,
        "limit": limit,
    }


def remark(record: dict[str, Any]) -> str:
    """What a person must know of a record before using what it describes; mostly nothing."""
    remarks = ["leaky: some histories end in a validation item"] if record.get("leaky") else []
    remarks += ["leaky: neighbours may be of the same user"] if record.get("same_user") else []
    remarks += [f"deviation: {record['deviation']}"] if record.get("deviation") else []
    remarks += [f"the first {record['limit']:,} only"] if record.get("limit") else []
    return "".join(f" ({each})" for each in remarks)


def told(estimate: Estimate, what: str) -> str:
    """What a dry run says."""
    said = f"{estimate.subjects:,} {what}, {estimate.to_make:,} of them to be made"
    if estimate.price is None:
        return f"{said}; nobody is paid."
    if not estimate.to_make:
        return f"{said}; nothing is paid."
    tokens = f"about {estimate.tokens_in:,} tokens to read and at most {estimate.tokens_out:,} to write"
    about = f"{estimate.price:.2f}" if estimate.price >= 1 else f"{estimate.price:.2g}"
    price = f"about {about}" if estimate.price else "unknown; give the prices of the service"
    return f"{said}: {tokens}. Price: {price}."


def _counted(log: Log, train: Part) -> Catalog:
    return log.catalog.with_counts(train.item_counts(log))


def _check(limit: int | None) -> None:
    if limit is not None and limit < 1:
        raise InputError(f"limit is {limit}; try at least 1, e.g. 10.")
