"""From a run to a bundle: rebuilds what was trained from the run's own config and hands it to ``seqrec.export``."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from seqrec.data.card import Card, known
from seqrec.data.datamodule import SequenceDataModule
from seqrec.data.errors import InputError, nearest
from seqrec.export.bundle import write_bundle
from seqrec.export.index_kinds import IndexKind
from seqrec.export.programs import Format
from seqrec.export.users import Users, remember_users
from seqrec.recommenders.keyed import KeyedRecommender
from seqrec.recommenders.sequential import SequentialRecommender
from seqrec.runs import Run, open_run
from seqrec.sequences import Sequences


def export(
    run: Path, out: Path, users: bool = False, index: IndexKind = IndexKind.auto, format: str | None = None
) -> None:
    """Write the best model of a run as a bundle that `seqrec recommend` answers from.

    seqrec export --run runs/shop --out bundles/shop
    seqrec export --run runs/shop --out bundles/shop --index hnsw --format onnx

    Args:
        run: folder of a finished run; its best checkpoint is taken, or the last where there is no best.
        out: folder to write; an older bundle there is replaced, and what it has blocked or removed stays so.
        users: whether the bundle also carries what the model remembers of every user of the data, all of their events
            included, so that `seqrec recommend --user` need not read their past again; for models whose memory is as
            large for everyone.
        index: how the best items are found. flat is exact; ivf, hnsw and pq are quicker and miss a few; auto is exact
            up to 50,000 items, then ivf or pq, and exact again where they miss more than 5 of the 100 best.
        format: forms in which the query encoder is also written for other programs, with commas between them: torch,
            onnx; or none. Without it, those that this model and this machine can write.
    """
    run, out = Path(run), Path(out)
    formats = tuple(Format) if format is None else _formats(format)
    opened = open_run(run)
    recommender, data = opened.recommender, opened.data
    result = run / "result.json"
    tested = json.loads(result.read_text()) if result.is_file() else {}
    write_bundle(
        recommender,
        out,
        recipe=opened.recipe,
        config=opened.config,
        max_length=data.max_length,
        metrics=_metrics(tested, opened.checkpoint) if tested else None,
        users=_remembered(recommender, data, opened.recipe) if users else None,
        index=index,
        formats=formats,
        demanded=format is not None,
        about=_about(opened, tested),
    )
    print(f"{out}: {len(data.catalog):,} items, ready for `seqrec recommend --bundle {out} --history ID,ID`.")


def _metrics(tested: Mapping[str, Any], exported: str) -> Mapping[str, float] | None:
    """What the test said, where it was of the weights that are exported."""
    name = tested.get("checkpoint", "checkpoints/best.ckpt") or "other weights"  # earlier versions did not say
    if name == exported:
        return tested.get("metrics")
    warnings.warn(
        f"result.json is of {name}, but {exported} is exported, so the bundle gets no metrics; run `seqrec test "
        f"--ckpt_path {Path(exported).stem}` and export again.",
        stacklevel=3,
    )
    return None


def _formats(words: str) -> tuple[Format, ...]:
    names = [word.strip() for word in words.split(",") if word.strip() and word.strip() != "none"]
    unknown = [name for name in names if name not in Format.__members__]
    if unknown:
        raise InputError(
            f"--format is '{unknown[0]}', {nearest(unknown[0], [*Format.__members__, 'none'])}; choose one."
        )
    return tuple(Format[name] for name in dict.fromkeys(names))


def _about(run: Run, tested: Mapping[str, Any]) -> dict[str, Any]:
    """What the model card says of the model and its data, and what a model that starts from it must know."""
    name = Path(run.data.prepared).name
    return {
        "model": type(run.recommender.backbone).__name__,
        "data": name,
        "licence": Card.load(name).licence if name in known() else None,
        "passport": tested.get("passport"),
        "commit": tested.get("commit"),
        "trained_on": run.trained_on,
        "learned_before": (run.starts_from or {}).get("learned_before", []),
    }


def _remembered(recommender: KeyedRecommender, data: SequenceDataModule, recipe: Mapping[str, Any]) -> Users:
    if not isinstance(recommender, SequentialRecommender):
        raise InputError(f"{type(recommender).__name__} remembers nothing; export without --users.")
    log, batch = data.log, 256
    if data.max_length is not None and data.max_length <= recommender.leaves_room:
        raise InputError(
            f"The model reads the newest {recommender.leaves_room} events itself and data.max_length is "
            f"{data.max_length}, so nothing older would be remembered; export without --users."
        )

    def batches() -> Iterator[tuple[list[str], Sequences, Sequences]]:
        longest = len(log.items) if data.max_length is None else data.max_length - recommender.leaves_room
        for first in track(range(0, len(log.users), batch), "remembering users", console=Console(stderr=True)):
            some = range(first, min(first + batch, len(log.users)))
            events = [slice(int(log.offsets[user]), int(log.offsets[user + 1])) for user in some]
            newest = [slice(max(each.start, each.stop - longest), each.stop) for each in events]
            items, times = ([values[each].tolist() for each in newest] for values in (log.items, log.times))
            window = Sequences.pack(items, times if data.has_clock else None)
            if recommender.reads_asked_at:  # what is remembered does not depend on it
                window = window.asking(window.newest, torch.tensor([clock[-1] for clock in times]))
            seen = Sequences.pack(
                [log.items[each].tolist() for each in events],
                [log.times[each].tolist() for each in events] if data.has_clock else None,
            )
            yield [log.users[user] for user in some], window, seen

    try:
        return remember_users(recommender.eval(), batches(), recipe)
    except TypeError as refusal:
        raise InputError(f"{refusal} Or export without --users.") from refusal
