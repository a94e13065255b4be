"""From a run to a bundle: rebuilds what was trained from the run's own config and hands it to ``seqrec.export``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track

from seqrec.data.datamodule import SequenceDataModule
from seqrec.data.errors import InputError
from seqrec.export.bundle import write_bundle
from seqrec.export.users import Users, remember_users
from seqrec.recommenders.keyed import KeyedRecommender
from seqrec.recommenders.sequential import SequentialRecommender
from seqrec.runs import open_run
from seqrec.sequences import Sequences


def export(run: Path, out: Path, users: bool = False) -> None:
    """Write the best model of a run as a bundle that `seqrec recommend` answers from.

    seqrec export --run runs/shop --out bundles/shop

    Args:
        run: folder of a finished run; its best checkpoint is taken, or the last where there is no best.
        out: folder to write; an older bundle there is replaced.
        users: whether the bundle also carries what the model remembers of every user of the data, all of their events
            included, so that `seqrec recommend --user` need not read their past again; for models whose memory is as
            large for everyone.
    """
    run, out = Path(run), Path(out)
    opened = open_run(run)
    recommender, data = opened.recommender, opened.data
    result = run / "result.json"
    metrics = json.loads(result.read_text())["metrics"] if result.is_file() else {}
    write_bundle(
        recommender,
        out,
        recipe=opened.recipe,
        config=opened.config,
        max_length=data.max_length,
        metrics=metrics,
        users=_remembered(recommender, data) if users else None,
    )
    print(f"{out}: {len(data.catalog):,} items, ready for `seqrec recommend --bundle {out} --history ID,ID`.")


def _remembered(recommender: KeyedRecommender, data: SequenceDataModule) -> Users:
    if not isinstance(recommender, SequentialRecommender):
        raise InputError(f"{type(recommender).__name__} remembers nothing; export without --users.")
    log, batch = data.log, 256
    longest = len(log.items) if data.max_length is None else data.max_length - recommender.leaves_room

    def batches() -> Iterator[tuple[list[str], Sequences, Sequences]]:
        for first in track(range(0, len(log.users), batch), "remembering users", console=Console(stderr=True)):
            some = range(first, min(first + batch, len(log.users)))
            events = [slice(int(log.offsets[user]), int(log.offsets[user + 1])) for user in some]
            newest = [slice(max(each.start, each.stop - longest), each.stop) for each in events]
            items, times = ([values[each].tolist() for each in newest] for values in (log.items, log.times))
            window = Sequences.pack(items, times)
            if recommender.reads_asked_at:  # what is remembered does not depend on it
                window = window.asking(window.newest, torch.tensor([clock[-1] for clock in times]))
            seen = Sequences.pack([log.items[each].tolist() for each in events])
            yield [log.users[user] for user in some], window, seen

    try:
        return remember_users(recommender.eval(), batches())
    except TypeError as refusal:
        raise InputError(f"{refusal} Or export without --users.") from refusal
