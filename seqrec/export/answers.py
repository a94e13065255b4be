"""The command that recommends: for one history on the screen, or for a file of histories."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Column, Table
from rich.text import Text

from seqrec.data.errors import InputError
from seqrec.export.filters import names_in
from seqrec.export.histories import HistoryFile, answers_file
from seqrec.export.retriever import Recommendation, Retriever


def recommend(
    bundle: Path,
    history: str = "",
    k: int = 10,
    exclude_seen: bool = True,
    histories: Path | None = None,
    out: Path | None = None,
    times: str = "",
    asked_at: int | None = None,
    user: str = "",
    allow: str = "",
    deny: str = "",
    categories: str = "",
) -> None:
    """Say which items come next, for one history on the screen or for a file of histories.

    seqrec recommend --bundle bundles/shop --history SKU-1,SKU-7 -k 5
    seqrec recommend --bundle bundles/shop --histories users.parquet --out recommendations.parquet

    Items that the bundle does not know are named and skipped.

    Args:
        bundle: folder that `seqrec export` wrote.
        history: raw item ids, oldest first, with commas between them.
        k: how many items to recommend; also -k.
        exclude_seen: whether items of the history are left out.
        histories: Parquet file with the columns user_id and item_id, one line per event, ordered by timestamp where
            that column exists and by line where it does not; or one line per user with a list in item_id.
        out: Parquet file for the answers to histories: user_id, rank (0 is best), item_id, title, score.
        times: when each item of the history happened, in seconds since 1970, with commas between them; only some
            models read it. In a file of histories it is the column timestamp, in the same unit or as dates.
        asked_at: the moment for which is recommended, in seconds since 1970; only some models read it.
        user: raw id of a user whom the bundle remembers (`seqrec export --users true`); the history is then what they
            did since, and may be left out.
        allow: raw ids of the only items to choose from, with commas between them.
        deny: raw ids of items to leave out, with commas between them.
        categories: only items of at least one of these categories are recommended, with commas between them.
    """
    alone = {"--user": user, "--history": history, "--times": times}
    named = [name for name, value in alone.items() if value]
    if histories is not None and named:
        raise InputError(
            f"--histories is a file of many users and {named[0]} speaks of one; give either of them, not both."
        )
    if not user and not history and histories is None:
        raise InputError("Give either --history ID,ID,… or --histories FILE.parquet with --out FILE.parquet.")
    if (histories is None) != (out is None):
        raise InputError("--histories and --out belong together: give both, or --history alone.")
    if out is not None and out.suffix != ".parquet":
        raise InputError(f"--out is {out}, but what is written is Parquet; name it {out.with_suffix('.parquet')}.")
    retriever = Retriever.load(bundle)
    ids = retriever.catalog.ids
    filters: dict[str, Any] = {
        "allow": names_in(allow, ids) if allow else None,
        "deny": names_in(deny, ids),
        "categories": names_in(categories, retriever.categories) if categories else None,
    }
    if strangers := retriever.catalog.rows([*(filters["allow"] or ()), *filters["deny"]])[1]:
        warnings.warn(f"Not in the catalog, so neither allowed nor denied: {', '.join(strangers[:5])}.", stacklevel=2)
    if histories is not None and out is not None:
        _answer_file(retriever, Path(histories), Path(out), k, exclude_seen, asked_at, filters)
    else:
        events = names_in(history, ids)
        clock = _numbers(times) if times else None
        if user:
            _show(retriever.recommend_user(user, events, k, exclude_seen, clock, asked_at, **filters))
        else:
            _show(retriever.recommend(events, k, exclude_seen, clock, asked_at, **filters))


def _numbers(times: str) -> list[int]:
    try:
        return [int(time) for time in times.split(",")]
    except ValueError:
        raise InputError(f"--times is '{times}'; give whole seconds since 1970 with commas between them.") from None


def _answer_file(
    retriever: Retriever,
    histories: Path,
    out: Path,
    k: int,
    exclude_seen: bool,
    asked_at: int | None,
    filters: dict[str, Any],
) -> None:
    k = min(k, len(retriever.catalog))  # no list is longer
    source = HistoryFile(histories, with_times=retriever.recommender.reads_clock)
    answered = 0
    with answers_file(out, source.nobody) as write, warnings.catch_warnings():
        warnings.simplefilter("once")
        for part in track(source, description="recommending", console=Console(stderr=True)):
            clocks = part["timestamp"].to_list() if "timestamp" in part.columns else None
            best = retriever.top_k(part["item_id"].to_list(), k, exclude_seen, clocks, asked_at, **filters)
            answered += int((best.items[:, 0] >= 0).sum())
            write(part["user_id"], retriever.catalog, best)
    print(f"{out}: recommendations for {answered:,} of {source.n_users:,} histories.")


def _show(items: list[Recommendation]) -> None:
    table = Table("", Column("item", no_wrap=True, overflow="fold"), "title", "score")
    for place, item in enumerate(items, start=1):
        table.add_row(str(place), Text(item.item_id), Text(item.title), f"{item.score:.4f}")
    Console().print(table)
