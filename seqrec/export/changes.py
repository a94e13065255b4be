"""Commands that change a bundle after training: items are added, blocked or removed, and the folder stays whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from seqrec.catalog import Catalog
from seqrec.data.errors import InputError, nearest
from seqrec.data.folders import leftovers, whole_folder
from seqrec.export.added import ADDED, WITHDRAWN, extend, read_withdrawn, write_withdrawn
from seqrec.export.bundle import CATALOG, Bundle, read_bundle
from seqrec.export.card import CARD, card
from seqrec.export.filters import Filters, names_in
from seqrec.export.index_kinds import INDEX, KEYS, IndexKind, as_fields, save_index
from seqrec.export.manifest import RECIPE, read_fields, read_manifest, write_manifest
from seqrec.export.programs import Format, write_programs
from seqrec.export.samples import some_histories
from seqrec.export.turns import turn
from seqrec.export.users import alone


def add_items(bundle: Path, items: Path) -> None:
    """Add items that came after training, so that they are recommended and read in histories.

    seqrec add-items --bundle bundles/shop new-items.parquet

    Only models that read texts can: a new item's place follows from the vector of its text, made by the encoder that
    made those of the training. The index is built and measured anew; memories of users stay valid.

    Args:
        bundle: folder that `seqrec export` wrote; it is replaced when all is done.
        items: Parquet file with the columns item_id and vector (a list of numbers), and where known title and
            categories (a list of words, or words with | between them).
    """
    bundle = Path(bundle)
    with _turn(bundle):
        opened = read_bundle(bundle)
        table, vectors = _new_items(Path(items), opened)
        replaced = [CATALOG, ADDED, INDEX, KEYS, *opened.manifest["programs"]]
        with changed(bundle, replaced) as (fresh, fields), torch.no_grad():
            recommender = opened.recommender
            try:
                added = recommender.embedding.vectors_of(vectors)
            except (TypeError, ValueError) as refusal:
                raise InputError(f"{bundle} cannot take new items: {refusal}") from refusal
            catalog = Catalog(pl.concat([recommender.catalog.table, table], how="diagonal_relaxed"))
            extend(recommender, catalog, added)
            before = [load_file(bundle / ADDED)["vectors"]] if ADDED in fields["files"] else []
            save_file({"vectors": alone(torch.cat([*before, added]))}, fresh / ADDED)
            recommender.catalog.save(fresh / CATALOG)
            samples = some_histories(recommender, opened.max_length)
            queries = recommender.queries(samples, samples.newest)
            index, report = IndexKind[fields["index"]["asked"]].value(recommender.item_keys(), queries, samples)
            save_index(index, fresh)
            written = [form for form in Format if form.value.file in fields["programs"]]
            fields |= {
                "items": len(recommender.catalog),
                "catalog_fingerprint": recommender.catalog.fingerprint,
                "index": {"asked": fields["index"]["asked"], **as_fields(report)},
                "programs": write_programs(recommender, fresh, written, opened.max_length, samples),
            }
    print(f"{bundle}: {table.height:,} items added, {len(recommender.catalog):,} in all.")


def block_items(bundle: Path, items: str, undo: bool = False) -> None:
    """Never recommend some items, which may still stand in histories; or recommend them again.

    seqrec block-items --bundle bundles/shop --items SKU-1,SKU-7
    seqrec block-items --bundle bundles/shop --items SKU-7 --undo

    Args:
        bundle: folder that `seqrec export` wrote; it is replaced when all is done.
        items: raw ids, with commas between them.
        undo: whether they are recommended again.
    """
    bundle = Path(bundle)
    with _turn(bundle):
        opened = _withdrawn(bundle)
        ids = frozenset(names_in(str(items), opened.catalog.ids))
        blocked = opened.blocked - ids if undo else opened.blocked | ids
        _withdraw(bundle, Filters(opened.catalog, blocked, opened.removed), ids)
    print(f"{bundle}: {len(blocked):,} items are blocked.")


def remove_items(bundle: Path, items: str) -> None:
    """Take items out for good: they are never recommended, and in histories nobody knows them any more.

    seqrec remove-items --bundle bundles/shop --items SKU-1,SKU-7

    Their numbers stay in the weights, which only another training changes.

    Args:
        bundle: folder that `seqrec export` wrote; it is replaced when all is done.
        items: raw ids, with commas between them.
    """
    bundle = Path(bundle)
    with _turn(bundle):
        opened = _withdrawn(bundle)
        ids = frozenset(names_in(str(items), opened.catalog.ids))
        _withdraw(bundle, Filters(opened.catalog, opened.blocked - ids, opened.removed | ids), ids)
    print(f"{bundle}: {len(opened.removed | ids):,} items are removed.")


@contextmanager
def _turn(bundle: Path) -> Iterator[None]:
    if bundle.exists() or not leftovers(bundle.resolve()):
        read_fields(bundle)  # what is no bundle gets no lock beside it
    with turn(bundle):  # a bundle whose change was killed comes back
        read_fields(bundle)
        yield


@contextmanager
def changed(folder: Path, replaced: Iterable[str]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A copy of a bundle without the files to be replaced, and its fields; both may be written to until the block ends.

    The copy then gets its card and its checksums and takes the bundle's place, or vanishes if there was an error.
    """
    fields = read_manifest(folder)
    left_out = {*replaced, CARD}
    with whole_folder(folder, mark=RECIPE) as fresh:
        for name in fields["files"]:
            if name not in left_out:
                _share(folder / name, fresh / name)
        yield fresh, fields
        (fresh / CARD).write_text(card(fields))
        write_manifest(fresh, fields, sorted(each.name for each in fresh.iterdir()))


def _share(old: Path, new: Path) -> None:
    """The same file under both names, or a copy where the disk cannot do that."""
    try:
        os.link(old, new)
    except OSError:
        shutil.copyfile(old, new)


def _withdrawn(folder: Path) -> Filters:
    fields = read_manifest(folder)
    withdrawn = read_withdrawn(folder) if WITHDRAWN in fields["files"] else {}
    return Filters(Catalog.load(folder / CATALOG), withdrawn.get("blocked", ()), withdrawn.get("removed", ()))


def _withdraw(folder: Path, filters: Filters, named: frozenset[str]) -> None:
    _, unknown = filters.catalog.rows(sorted(named))
    if unknown:
        raise InputError(
            f"'{unknown[0]}' is not an item of {folder}, {nearest(unknown[0], filters.catalog.ids)}; correct --items."
        )
    with changed(folder, [WITHDRAWN]) as (fresh, _):
        write_withdrawn(fresh, filters.blocked, filters.removed)


def _new_items(path: Path, opened: Bundle) -> tuple[pl.DataFrame, Float[Tensor, "n T"]]:
    """The lines of the catalog for new items, and the vectors of their texts.

    Raises:
        InputError: the file is not as it must be, or an item is in the bundle already.
    """
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"{path} {found}; give a Parquet file of the new items with the columns item_id and vector.")
    try:
        table = pl.read_parquet(path)
    except pl.exceptions.PolarsError as error:
        raise InputError(f"{path} is not a Parquet file that can be read ({error}).") from error
    for column in ("item_id", "vector"):
        if column not in table.columns:
            raise InputError(f"{path} has no column {column}, {nearest(column, table.columns)}; rename it.")
    table = table.with_columns(pl.col("item_id").cast(pl.String))
    known, _ = opened.recommender.catalog.rows(table["item_id"])
    if known:
        raise InputError(
            f"{path} names '{opened.recommender.catalog.ids[known[0]]}', which is in the bundle or was; leave it out."
        )
    twice = table.filter(pl.col("item_id").is_duplicated())
    if twice.height or table["item_id"].null_count() or not table.height:
        found = f"'{twice['item_id'][0]}' twice" if twice.height else "an item without id, or none at all"
        raise InputError(f"{path} has {found}; give one line for each new item.")
    lines = table.select("item_id", *_described(path, table))
    return lines.with_columns(count=pl.lit(0, dtype=pl.Int64)), _vectors(path, table["vector"])


def _described(path: Path, table: pl.DataFrame) -> Iterator[pl.Expr]:
    """Titles and categories, as far as the file has them, of the types that a catalog has."""
    wanted = {"title": (pl.String(), "a text"), "categories": (pl.List(pl.String), "a list of words")}
    types = table.schema
    for name, (kind, words) in wanted.items():
        if name == "categories" and types.get(name) == pl.String:  # divided as `seqrec prepare` does
            parts = pl.col(name).str.split("|").list.eval(pl.element().str.strip_chars().replace("", None))
            yield parts.list.drop_nulls()
        elif name in types:
            if types[name] not in (kind, pl.Null):
                raise InputError(f"{path} must have {words} in the column {name}; found {types[name]}.")
            yield pl.col(name).cast(kind)


def _vectors(path: Path, column: pl.Series) -> Float[Tensor, "n T"]:
    try:
        rows = column.cast(pl.List(pl.Float32))
        lengths = rows.list.len().unique()
        numbers = rows.explode().to_numpy()
    except pl.exceptions.PolarsError as error:
        raise InputError(f"{path} must have a list of numbers in the column vector; found {column.dtype}.") from error
    if len(lengths) != 1 or not np.isfinite(numbers).all():
        raise InputError(f"{path} must have a vector of finite numbers for every item, all of the same length.")
    return torch.from_numpy(numbers.reshape(len(rows), -1).copy())
