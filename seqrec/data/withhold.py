"""Takes items out of a prepared data set as if nobody had touched them yet, to ask later whether texts find them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import polars as pl

from seqrec.data import store
from seqrec.data.errors import InputError
from seqrec.data.events import Events
from seqrec.data.folders import name_of
from seqrec.data.log import Log
from seqrec.data.prepare import refuse_other_data

ITEMS, TARGETS = "withheld_items", "withheld_targets"


def withhold(data: Path, out: Path, share: float = 0.1, seed: int = 0) -> None:
    """Write a prepared data set from which some items are withheld with all their interactions.

    seqrec withhold --data data/prepared/amazon-beauty --out data/prepared/amazon-beauty-cold
    seqrec fit … --data.prepared data/prepared/amazon-beauty-cold --run runs/cold
    seqrec cold --run runs/cold --vectors minilm.parquet

    A model trained on it has never seen these items. Where the newest item of a user is among them, `seqrec cold` asks
    for it after all that the user did before and that is left.

    Args:
        data: folder that `seqrec prepare` wrote.
        out: folder to write; it can be used wherever a prepared data set can.
        share: share of the items that is withheld, above 0 and below 1.
        seed: which ones, at least 0.

    Raises:
        InputError: share or seed is out of range, the data have fake users, ``out`` holds other data, or nothing is
            left to learn from or to ask for.
    """
    data, out = Path(data), Path(out)
    if not 0 < share < 1 or seed < 0:
        raise InputError(f"share is {share} and seed is {seed}. Withhold between 0 and 1 of the items, e.g. 0.1.")
    log = Log.open(data)
    refuse_other_data(data, out, "withheld", "seqrec withhold")
    if log.is_fake.any():
        raise InputError(
            f"{data} has {int(log.is_fake.sum()):,} fake users, who would be asked for withheld items; withhold items "
            "of the data set that was poisoned."
        )
    n_items, n_users = len(log.catalog), len(log.users)
    chosen = np.random.default_rng(seed).permutation(n_items)[: round(share * n_items)]
    is_withheld = np.isin(np.arange(n_items), chosen)
    items, times = np.asarray(log.items), np.asarray(log.times)
    users = np.repeat(np.arange(n_users), np.diff(log.offsets))
    warm = ~is_withheld[items]
    events = Events(users, items, times, log.users, log.catalog.ids).at(np.flatnonzero(warm)).compact()
    targets = _targets(log, warm)
    if not len(events) or not len(targets):
        raise InputError(
            f"With a share of {share}, {len(events):,} interactions and {len(targets):,} targets are left of {data}. "
            "Both are needed; choose another share."
        )
    made = {"source": log.manifest.get("fingerprint"), "share": share, "seed": seed}
    counts = {"users": len(events.user_ids), "items": len(events.item_ids), "interactions": len(events)}
    manifest = {
        "parameters": {"withheld": made},
        "origin": hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest(),
        "name": name_of(data),
        "source": str(data.absolute()),
        "unit_of_times": log.manifest.get("unit_of_times"),
        "counts": {"read": log.manifest.get("counts", {}).get("kept"), "kept": counts},
        "share_of_tied_events": log.manifest.get("share_of_tied_events"),
        "withheld": {**made, "items": len(chosen), "targets": len(targets)},
    }
    tally = pl.DataFrame({"item_id": events.item_ids, "count": np.bincount(events.items)})
    described = log.catalog.table.drop("count")
    catalog = tally.join(described, on="item_id", how="left", maintain_order="left")
    beside = {ITEMS: log.catalog.table.filter(pl.Series(is_withheld)), TARGETS: targets}
    store.write(events, catalog, out, manifest, beside)
    print(
        f"{out}: {len(chosen):,} of {n_items:,} items are withheld; {counts['interactions']:,} interactions of "
        f"{counts['users']:,} users are left, and {len(targets):,} users ask for a withheld item."
    )


def _targets(log: Log, warm: np.ndarray) -> pl.DataFrame:
    """One line per user whose newest item is withheld: what is left of all before, with times, and that item."""
    offsets, ids = np.asarray(log.offsets), log.catalog.ids
    lines = []
    for user in np.flatnonzero(np.diff(offsets) > 1):
        start, newest = offsets[user], offsets[user + 1] - 1
        before = start + np.flatnonzero(warm[start:newest])
        if not warm[newest] and before.size:
            lines.append((user, before, newest))
    return pl.DataFrame(
        {
            "user_id": [log.users[int(user)] for user, _, _ in lines],
            "history": [ids.gather(log.items[before]).to_list() for _, before, _ in lines],
            "times": [log.times[before].tolist() for _, before, _ in lines],
            "item_id": [ids[int(log.items[newest])] for _, _, newest in lines],
            "asked_at": [int(log.times[newest]) for _, _, newest in lines],
        },
        schema={
            "user_id": pl.String,
            "history": pl.List(pl.String),
            "times": pl.List(pl.Int64),
            "item_id": pl.String,
            "asked_at": pl.Int64,
        },
    )
