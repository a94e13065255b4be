"""Writes a prepared data set with fake users in it, who are marked."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Int

from seqrec.data import store
from seqrec.data.errors import InputError
from seqrec.data.events import Events
from seqrec.data.folders import name_of
from seqrec.data.log import Log
from seqrec.data.poisoning.base import (
    HELD_OUT,
    Attack,
    Mission,
    clock_of_a_fake,
    end_to_end,
    forged,
    sample_lengths,
)

# An attack may be named without its module: the reader of options knows the classes that are imported here.
from seqrec.data.poisoning.dp import DP
from seqrec.data.poisoning.heuristic import Bandwagon, ProfileCopy, Random
from seqrec.data.poisoning.loki import LokiLike
from seqrec.data.poisoning.rev import Rev
from seqrec.data.poisoning.targets import Bucket
from seqrec.data.prepare import refuse_other_data
from seqrec.data.protocol import LeaveOneOut

ATTACKS = (Random, Bandwagon, ProfileCopy, DP, Rev, LokiLike)
FEWEST, MOST = 0.005, 0.05


def poison(
    data: Path,
    out: Path,
    attack: Attack,
    budget: float = 0.01,
    targets: Bucket = Bucket.tail,
    n_targets: int = 5,
    seed: int = 0,
    force: bool = False,
) -> None:
    """Add fake users who push chosen items to a prepared data set, and write it as another.

    seqrec poison --data data/prepared/ml-1m --attack DP --budget 0.01 --targets tail --out data/prepared/ml-1m-dp

    Attacks: Random, Bandwagon, ProfileCopy, DP, Rev, LokiLike; their settings follow as --attack.NAME VALUE.

    The fakes are marked in the manifest: training reads them as it reads everyone, evaluation and the training counts
    of items do not, and the passport of every result counts them. Running it again with the same settings does nothing,
    unless the code of the attacks has changed.

    Args:
        data: folder of a clean prepared data set.
        out: folder to write.
        attack: what makes up the fakes.
        budget: fake users as a share of the genuine ones, 0.005 to 0.05.
        targets: bucket of popularity, by training counts, that the targets are drawn from.
        n_targets: how many items are pushed, at least 1.
        seed: where targets, lengths and fakes come from, at least 0.
        force: make the fakes anew even if nothing changed.

    Raises:
        InputError: the data cannot be poisoned like this, or ``out`` holds other data; the message says what to change.
    """
    log = poisoned(data, out, attack, budget, targets, n_targets, seed, force)
    made = log.manifest["poison"]
    print(
        f"{out}: {made['fake_users']['count']:,} fake users of the attack {made['attack']} beside "
        f"{made['genuine_users']:,} genuine ones push {', '.join(made['targets'])}."
    )


def poisoned(
    data: Path,
    out: Path,
    attack: Attack,
    budget: float = 0.01,
    targets: Bucket = Bucket.tail,
    n_targets: int = 5,
    seed: int = 0,
    force: bool = False,
) -> Log:
    """The data set that ``poison`` writes, opened. Arguments and errors are those of ``poison``."""
    clean = Log.open(data)
    refuse_other_data(data, out, "poison", "seqrec poison")
    if clean.is_fake.any():
        raise InputError(f"{data} holds fake users already; give --data the clean data set that it was made from.")
    if not FEWEST <= budget <= MOST:
        raise InputError(
            f"The budget is {budget}, but fakes are {FEWEST} to {MOST} of the genuine users; choose one between."
        )
    if n_targets < 1 or seed < 0:
        raise InputError(
            f"n_targets is {n_targets} and seed is {seed}; push at least 1 item, from a seed of 0 or more."
        )
    made: dict[str, Any] = {
        "attack": type(attack).__name__,
        "settings": dict(vars(attack)),
        "budget": budget,
        "bucket": targets.name,
        "seed": seed,
        "clean": clean.manifest["fingerprint"],
        "n_targets": n_targets,
        "code": _code(),
    }
    origin = hashlib.sha256(json.dumps(made, sort_keys=True, default=str).encode()).hexdigest()
    parameters = clean.manifest.get("parameters", {})
    if not force and store.is_ready(out, parameters, origin):
        return Log.open(out)
    random = np.random.default_rng(seed)
    mission = _mission(clean, budget, targets, n_targets, random)
    profiles = forged(attack, mission, random)
    times = [clock_of_a_fake(clean, len(profile), random) for profile in profiles]
    n_genuine = len(clean.users)
    made |= {
        "targets": clean.catalog.ids.gather(mission.targets).to_list(),
        "target_rows": mission.targets.tolist(),
        "genuine_users": n_genuine,
        "fake_users": {"first": n_genuine, "count": len(profiles)},
    }
    events = _joined(clean, profiles, times)
    store.write(
        events, clean.catalog.table, out, {**clean.manifest, "name": name_of(data), "origin": origin, "poison": made}
    )
    return Log.open(out)


def _code() -> str:
    """SHA-256 of all that makes up fakes."""
    modules = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(module.read_bytes() for module in modules)).hexdigest()


def _mission(clean: Log, budget: float, targets: Bucket, n_targets: int, random: np.random.Generator) -> Mission:
    train = LeaveOneOut().split(clean).train
    items, offsets = end_to_end(clean, train)
    counts = train.item_counts(clean)
    chosen = targets.draw(counts, n_targets, random)
    most = counts.size - n_targets + 1
    if most <= HELD_OUT:
        raise InputError(f"The catalog has {counts.size} items, too few to hide {n_targets} targets among others.")
    n_fakes = max(1, round(budget * len(clean.users)))
    return Mission(items, offsets, counts, chosen, sample_lengths(train.lengths, n_fakes, most, random))


def _joined(clean: Log, profiles: list[Int[np.ndarray, "_"]], times: list[Int[np.ndarray, "_"]]) -> Events:
    """Genuine users as they are, and the fakes behind them."""
    n_genuine = len(clean.users)
    lengths = np.concatenate([np.diff(clean.offsets), [len(profile) for profile in profiles]])
    known, prefix = set(clean.users), "fake"
    while any(raw.startswith(prefix) for raw in known):
        prefix = f"_{prefix}"
    names = pl.Series("user_id", [f"{prefix}-{number:06d}" for number in range(len(profiles))], dtype=pl.String)
    return Events(
        users=np.repeat(np.arange(n_genuine + len(profiles), dtype=np.int32), lengths),
        items=np.concatenate([clean.items, *profiles]).astype(np.int32),
        times=np.concatenate([clean.times, *times]).astype(np.int64),
        user_ids=pl.concat([clean.users.alias("user_id"), names]),
        item_ids=clean.catalog.ids,
    )
