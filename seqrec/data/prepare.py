"""Turns a source into a prepared data set on disk: filtered, in order of time, numbered, and ready to memory-map."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table as Grid

from seqrec.data import card as cards
from seqrec.data import filters, store
from seqrec.data.card import Card
from seqrec.data.columns import raw_id
from seqrec.data.download import download
from seqrec.data.errors import InputError
from seqrec.data.events import Events, read_events, refuse_future, to_seconds, unit_of
from seqrec.data.filters import Duplicates
from seqrec.data.folders import digest_of_files
from seqrec.data.log import Log
from seqrec.data.sources import Source, Table

# What may be known of an item; prompts and titles of recommendations read it.
DESCRIBING = ("title", "text", "categories", "brand", "price")
_DAY = 86_400  # seconds; clocks of shops and of this machine may stand in different time zones


def prepare(
    data: str,
    raw: Path | None = None,
    out: Path | None = None,
    min_rating: float | None = None,
    duplicates: Duplicates | None = None,
    user_core: int | None = None,
    item_core: int | None = None,
    min_length: int | None = None,
    user_column: str | None = None,
    item_column: str | None = None,
    time_column: str | None = None,
    rating_column: str | None = None,
    items_file: Path | None = None,
    title_column: str | None = None,
    text_column: str | None = None,
    brand_column: str | None = None,
    price_column: str | None = None,
    categories_column: str | None = None,
    separator: str | None = None,
    force: bool = False,
) -> None:
    """Prepare a data set once, so that every later command only memory-maps it.

    seqrec prepare ml-1m                        download, show the licence, prepare
    seqrec prepare ml-1m --raw FOLDER_OR_ZIP    the same from files you already have
    seqrec prepare simulated-shop               a small shop whose true answers are known
    seqrec prepare my-card.yaml --raw my.csv    by a card of your own, which says what the columns mean
    seqrec prepare my.csv --user_column uid --item_column sku --time_column when
    seqrec prepare my.parquet --rating_column stars --min_rating 4 --user_core 5 --item_core 5

    Prints how many users, items and interactions were read and kept, and which share of the order rests on equal
    times. Running it again with the same files and settings does nothing.

    Args:
        data: name of a data card, path of your own card (.yaml), or path of your own CSV, TSV, Parquet or JSONL file.
        raw: file or folder of the original data, for a card that shall not be downloaded.
        out: folder to write; by default data/prepared/NAME.
        min_rating: lowest rating that counts as an interaction; by default what the card says, else all.
        duplicates: which of several events of one user with one item stay: keep_all, keep_first or keep_last.
        user_core: fewest events of a user; with item_core, applied in turns until both hold.
        item_core: fewest events of an item.
        min_length: fewest events of a user, applied once at the end.
        user_column: column of your own file with user ids; by default user_id.
        item_column: column of your own file with item ids; by default item_id.
        time_column: column of your own file with times (a Unix clock in any unit, or dates); by default timestamp.
        rating_column: column of your own file with ratings, needed for min_rating.
        items_file: your own table of the items, with a column item_id, or item_column where it has none.
        title_column: its column of titles.
        text_column: its column of descriptions.
        brand_column: its column of brands or makers.
        price_column: its column of prices, with their currency as far as it is known.
        categories_column: its column of categories.
        separator: what divides the columns of your own text files; by default a tab for .tsv and .tab, else a comma.
        force: prepare again even if nothing changed.

    Raises:
        InputError: the input cannot be used; the message says where and what to do.
    """
    own = {
        "user": user_column,
        "item": item_column,
        "time": time_column,
        "rating": rating_column,
        "items": items_file,
        "title": title_column,
        "text": text_column,
        "brand": brand_column,
        "price": price_column,
        "categories": categories_column,
        "separator": separator,
    }
    own = {name: value for name, value in own.items() if value is not None}
    given = {
        "min_rating": min_rating,
        "duplicates": duplicates,
        "user_core": user_core,
        "item_core": item_core,
        "min_length": min_length,
    }
    given = {name: value for name, value in given.items() if value is not None}
    card = None
    console = Console()
    if _is_own_file(data):
        if raw is not None:
            raise InputError(f"--raw {raw} was given with your own file {data}. Leave --raw out.")
        source, origin, name = *_own_file(Path(data), own), _name_of(Path(data))
    else:
        card = Card.load(data)
        if own:
            named = {"items": "--items_file", "separator": "--separator"}
            options = ", ".join(named.get(name, f"--{name}_column") for name in own)
            raise InputError(f"The card {card.name} already says what its columns mean. Leave out {options}.")
        source, origin = _carded(card, raw)
        given = _usual(card) | given
        name = card.name
        console.print(f"Licence of {card.name}: {card.licence}", markup=False, highlight=False)
    folder = out or Path("data/prepared") / name
    if out is None and not force:
        _refuse_another_log(folder, source, origin)
    latest = int(time.time()) + _DAY
    log = prepare_log(source, folder, latest=latest, origin=origin, force=force, **given)
    _report(log, folder, console)
    if card is not None:
        _warn_of_other_counts(card, log.manifest)


def prepare_log(
    source: Source,
    folder: Path,
    *,
    min_rating: float | None = None,
    duplicates: Duplicates = Duplicates.keep_all,
    user_core: int = 0,
    item_core: int = 0,
    min_length: int = 1,
    latest: int | None = None,
    origin: str | None = None,
    force: bool = False,
) -> Log:
    """Reads a source, filters it, and writes the folder that ``Log.open`` reads.

    The filters act in the order of the arguments. Events of one user at the same time keep the order of the source.
    Users and items are numbered in the ascending order of their raw ids, so the same input gives the same
    arrays and tables. The folder is written under a temporary name and renamed, so it is never there in part.

    Args:
        source: the interactions and, where known, the items.
        folder: where the prepared data set goes; an older one there is replaced.
        min_rating: events rated lower, or not rated, are dropped; None keeps all.
        duplicates: which of several events of one user with the same item stay.
        user_core: with ``item_core``: users with fewer events and items with fewer events are dropped in turns until
            none is left (iterative k-core, events counted after ``duplicates``); 0 or 1 keeps all.
        item_core: as ``user_core``, for the events of an item.
        min_length: users with fewer events are dropped last, once, which may leave items below ``item_core``.
        latest: events after this second since 1970 are refused as dates in the future; None allows all.
        origin: digest of what the source reads. A whole folder with the same origin and arguments is used as it is;
            None prepares anew.
        force: prepare anew whatever stands in the folder.

    Raises:
        InputError: the interactions cannot be used, nothing or only one user is left, or the disk refuses.
    """
    parameters = {
        "min_rating": min_rating,
        "duplicates": duplicates.name,
        "user_core": user_core,
        "item_core": item_core,
        "min_length": min_length,
    }
    for name in ("user_core", "item_core", "min_length"):
        if parameters[name] < 0:
            raise InputError(f"{name} is {parameters[name]}, which is no number of events. Give 0 or more.")
    if not force and store.is_ready(folder, parameters, origin):
        return Log.open(folder)
    events = read_events(source, min_rating)
    read = _sizes(events)
    unit = unit_of(events.readings, source)
    if latest is not None:
        refuse_future(events.readings, unit, latest, source)
    # Sorted by the source's own clock: two readings of one second may still differ by milliseconds.
    events = filters.by_user_and_time(events)
    events = filters.without_repeats(events, duplicates)
    events = filters.core(events, user_core, item_core)
    events = filters.long_enough(events, min_length).compact()
    _refuse_too_little(events, parameters)
    tied_events, tied_users = filters.ties(events)
    events = replace(events, times=to_seconds(events.readings, unit), parts=1)
    manifest = {
        "parameters": parameters,
        "origin": origin,
        "source": _place(source),
        "unit_of_times": unit,
        "counts": {"read": read, "kept": _sizes(events)},
        "share_of_tied_events": tied_events,
        "share_of_users_with_tied_last_event": tied_users,
    }
    store.write(events, _catalog(events, source.items()), folder, manifest)
    return Log.open(folder)


def refuse_other_data(data: Path, out: Path, kind: str, command: str) -> None:
    """Raises ``InputError`` if ``command``, whose data say ``kind`` in their manifest, would replace other data."""
    if out.resolve() == data.resolve():
        raise InputError(f"{out} is the data set that `{command}` reads. Choose another folder with --out.")
    made = store.manifest_of(out)
    # Data with fakes among them may say that items were withheld before.
    if made and (kind not in made or (kind != "poison" and "poison" in made)):
        raise InputError(
            f"{out} holds a prepared data set that `{command}` did not write, and it would be lost. "
            "Choose another folder with --out, or delete that one first."
        )


def _sizes(events: Events) -> dict[str, int]:
    return {"users": len(events.user_ids), "items": len(events.item_ids), "interactions": len(events)}


def _refuse_too_little(events: Events, parameters: dict[str, Any]) -> None:
    if not len(events):
        chosen = ", ".join(f"{name} {value}" for name, value in parameters.items() if name != "duplicates")
        raise InputError(f"No interactions are left after the filters ({chosen}). Lower them.")
    if len(events.user_ids) == 1:
        raise InputError(
            f"Only one user is left ('{events.user_ids[0]}'), and there is nothing to learn from one. "
            "Check which column holds the users, or lower the filters."
        )


def _catalog(events: Events, described: pl.LazyFrame | pl.DataFrame | None) -> pl.DataFrame:
    """One line per item in row order, with its count and what is known about it."""
    counts = np.bincount(events.items, minlength=len(events.item_ids))
    catalog = pl.DataFrame({"item_id": events.item_ids, "count": pl.Series(counts, dtype=pl.Int64)})
    if described is None:
        return catalog
    described = described.lazy()
    schema = described.collect_schema()
    known = [name for name in DESCRIBING if name in schema.names()]
    details = (
        described.select(raw_id("item_id", schema["item_id"].is_float()), *known)
        .join(catalog.lazy().select("item_id"), on="item_id", how="semi")
        .unique("item_id", keep="first", maintain_order=True)
    )
    try:
        found = details.collect()
        if not found.height:
            warnings.warn(
                f"The table of the items describes none of the {catalog.height:,} items of the log (the first is "
                f"'{catalog['item_id'][0]}'); look whether both write ids alike.",
                stacklevel=2,
            )
        return catalog.join(found, on="item_id", how="left", maintain_order="left")
    except pl.exceptions.PolarsError as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise InputError(f"The table of the items could not be read: {reason}. Repair the row or the cell.") from error


def _name_of(path: Path) -> str:
    """What data of one's own are called: the file or folder without its endings, wherever one stands."""
    name = Path(os.path.abspath(path)).name.strip(".").split(".")[0]  # a link has a name of its own
    if not name:
        raise InputError(f"{path} has no name to call the data by; give the path of the file, or of a folder in it.")
    return name


def _is_own_file(data: str) -> bool:
    path = Path(data)
    is_card = path.suffix in (".yaml", ".yml") or data in cards.known()
    return not is_card and (path.suffix != "" or path.exists())


def _place(source: Source) -> str:
    """Where a source reads, whatever the working folder is; its name if it makes its own data."""
    return str(Path(source.name).absolute()) if Path(source.name).exists() else source.name


def _refuse_another_log(folder: Path, source: Source, origin: str | None) -> None:
    """Two files of one name in two folders would otherwise replace each other."""
    made = store.manifest_of(folder)
    before, now = made.get("source"), _place(source)
    if before not in (None, now) and made.get("origin") != origin:
        raise InputError(
            f"{folder} was prepared from {before}, which is not {now}. "
            "Choose another folder with --out, or replace it with --force."
        )


def _own_file(path: Path, columns: dict[str, Any]) -> tuple[Source, str]:
    if not path.exists():
        raise InputError(f"{path} does not exist. Give the path of your own file, or the name of a data card.")
    named = {name: column for name, column in columns.items() if name != "items"}
    described = [columns["items"]] if "items" in columns else []
    for table in described:
        if not table.exists():
            raise InputError(f"{table} does not exist. Give --items_file the path of your table of items.")
    source = Table(path, **columns)
    about = [f"--{name}_column" for name in DESCRIBING if name in columns]
    if about and source.items_file is None:
        raise InputError(
            f"{path} has no table of its items beside it, where alone {' and '.join(about)} would be read. "
            "Name that table with --items_file, or leave the columns out."
        )
    read = [table for table in (source.table, source.items_file) if table is not None]
    return source, _origin(named, read or [path])


def _carded(card: Card, raw: Path | None) -> tuple[Source, str | None]:
    """The source of a card, downloaded where the card has an address and no files are given."""
    files = raw or Path("data/raw") / card.name
    if raw is None and card.url is not None:
        for url, checksum in ((card.url, card.sha256), (card.items_url, None)):
            if url is not None:
                download(url, files / url.rpartition("/")[2], checksum, card.licence)
    if raw is not None and not raw.exists():
        where = f", fetched from {card.homepage}" if card.homepage else ""
        raise InputError(f"{raw} does not exist. Give --raw the original file or folder of {card.name}{where}.")
    there = files if files.exists() else None
    # What the reader is told of besides, such as a table of the items.
    named = [Path(value) for value in card.reader.get("init_args", {}).values() if isinstance(value, str)]
    beside = [path for path in named if path.is_file()]
    source = card.source(there)
    read = [*([there] if there else []), *beside]
    code = inspect.getsourcefile(type(source))
    if type(source).__module__.startswith("seqrec.") or code is None:
        return source, _origin(card.reader, read)
    # Somebody's own class may read what it is not told of, so without a file that is known it is asked anew.
    return source, _origin(card.reader, [*read, Path(code)]) if read else None


def _origin(reader: dict[str, Any], paths: list[Path]) -> str:
    """Digest of how files are read and of what is in them; their names, places and dates do not count."""
    digest = hashlib.sha256(json.dumps(reader, sort_keys=True, default=str).encode())
    for path in paths:
        digest.update(digest_of_files(path).encode())
    return digest.hexdigest()


def _usual(card: Card) -> dict[str, Any]:
    """The preparation that the card proposes."""
    usual = dict(card.preparation or {})
    if "duplicates" in usual:
        usual["duplicates"] = Duplicates[usual["duplicates"]]
    if usual.get("min_rating") is not None:
        usual["min_rating"] = float(usual["min_rating"])
    return usual


def _warn_of_other_counts(card: Card, manifest: dict[str, Any]) -> None:
    """Warns if the log is more than 5 % larger or smaller than the literature says.

    The literature counts the whole log or, for some cards, what their usual filters keep. Items are not compared:
    some publishers count those that nobody touched.
    """
    used = {name: value for name, value in manifest["parameters"].items() if name in (card.preparation or {})}
    if manifest["parameters"]["min_rating"] is not None or used != (card.preparation or {}):
        return
    for kind in ("users", "interactions"):
        expected, counts = card.counts.get(kind), manifest["counts"]
        if expected and all(abs(counts[stage][kind] / expected - 1) > 0.05 for stage in ("read", "kept")):
            warnings.warn(
                f"This log has {counts['read'][kind]:,} {kind}, but the card {card.name} says {expected:,} "
                f"({card.counts.get('where', 'no source')}). Check that the raw files are those of {card.name}.",
                stacklevel=2,
            )
            return


def _report(log: Log, folder: Path, console: Console) -> None:
    manifest = log.manifest
    grid = Grid("", "users", "items", "interactions")
    for stage in ("read", "kept"):
        grid.add_row(stage, *(f"{manifest['counts'][stage][kind]:,}" for kind in ("users", "items", "interactions")))
    console.print(grid)
    console.print(
        f"Events at the same time as a neighbour of their user: {manifest['share_of_tied_events']:.1%}; "
        f"users whose newest events are at the same time: {manifest['share_of_users_with_tied_last_event']:.1%}. "
        "Their order is that of the file.",
        markup=False,
        highlight=False,
    )
    console.print(f"Prepared: {folder}", markup=False, highlight=False, soft_wrap=True)
