"""A trained recommender as a folder that serves: index, query encoder, catalog and a manifest with checksums."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml
from jsonargparse import ArgumentParser
from safetensors.torch import load_file, save_file
from torch import Tensor

from seqrec.catalog import Catalog
from seqrec.data.errors import InputError
from seqrec.data.folders import whole_folder
from seqrec.embeddings.stored import from_weights_alone
from seqrec.export.added import ADDED, WITHDRAWN, extend, read_withdrawn, still_withdrawn, write_withdrawn
from seqrec.export.card import CARD, card
from seqrec.export.index import KeyIndex
from seqrec.export.index_kinds import IndexKind, as_fields, load_index, save_index
from seqrec.export.manifest import RECIPE, read_fields, read_manifest, write_manifest
from seqrec.export.programs import Format, write_programs
from seqrec.export.samples import some_histories
from seqrec.export.turns import turn
from seqrec.export.users import Users, alone, fingerprint
from seqrec.recommenders.base import Recommender
from seqrec.recommenders.keyed import KeyedRecommender
from seqrec.sequences import Sequences

WEIGHTS, CATALOG = "encoder.safetensors", "catalog.parquet"
USERS = "users.safetensors"
T = TypeVar("T")
# How often a bundle is read that is replaced meanwhile.
_READINGS, _PAUSE = 3, 0.1  # seconds


@dataclass(frozen=True)
class Bundle:
    """What a bundle's folder holds, read and checked.

    Attributes:
        recommender: the query encoder, in evaluation mode, with the catalog it knows.
        index: the keys of the catalog.
        max_length: most events of a history that the encoder reads, the newest ones; None reads all.
        manifest: schema version, fingerprints, checksums, config, metrics and what the index is.
        users: what the encoder remembers of some users; None where the bundle carries nobody.
        blocked: raw ids that are never recommended.
        removed: raw ids that are never recommended and not known any more.
        recipe: ``class_path`` and ``init_args`` that the recommender was built from.
    """

    recommender: KeyedRecommender
    index: KeyIndex
    max_length: int | None
    manifest: dict[str, Any]
    users: Users | None = None
    blocked: frozenset[str] = field(default_factory=frozenset)
    removed: frozenset[str] = field(default_factory=frozenset)
    recipe: Mapping[str, Any] = field(default_factory=dict)


@torch.no_grad()
def write_bundle(
    recommender: KeyedRecommender,
    folder: Path,
    *,
    recipe: Mapping[str, Any],
    config: Mapping[str, Any],
    max_length: int | None,
    metrics: Mapping[str, float] | None = None,
    users: Users | None = None,
    index: IndexKind = IndexKind.flat,
    formats: Iterable[Format] = (),
    demanded: bool = True,
    samples: Sequences | None = None,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Write a bundle; the folder appears whole or not at all.

    Args:
        recommender: a trained recommender, on any device; it is put into evaluation mode.
        folder: where; an older bundle there is replaced, and what it has blocked or removed stays so as far as the
            catalog still has it; anything else is refused.
        recipe: ``class_path`` and ``init_args`` that build the same recommender from its catalog.
        config: the complete config of the run, kept for the record.
        max_length: most events of a history that the encoder reads; None reads all.
        metrics: what the test said, kept for the record.
        users: what the recommender remembers of some users, so that their past need not be read again.
        index: how the best items are found.
        formats: the forms in which the query encoder is also written for other programs.
        demanded: False warns of a form that cannot be written, instead of refusing.
        samples: histories to measure the index and to check the programs with; None draws some from the catalog.
        about: ``passport``, ``data`` and ``licence`` for the model card, as far as they are known.

    Raises:
        InputError: a program cannot be written, or does not answer as the recommender does, or what is blocked in
            the older bundle cannot be read.
    """
    recommender = recommender.eval().cpu()
    samples = some_histories(recommender, max_length) if samples is None else samples
    keys = recommender.item_keys()
    built, report = index.value(keys, recommender.queries(samples, samples.newest), samples)
    fields = {
        "catalog_fingerprint": recommender.catalog.fingerprint,
        "model_fingerprint": fingerprint(recommender, recipe),
        "items": len(recommender.catalog),
        "trained_items": len(recommender.catalog),
        "max_length": max_length,
        "metrics": dict(metrics or {}),
        "about": dict(about or {}),
        "index": {"asked": index.name, **as_fields(report)},
        "config": dict(config),
    }
    with turn(folder), whole_folder(folder, mark=RECIPE) as fresh:
        names = [WEIGHTS, RECIPE, CATALOG, CARD, *save_index(built, fresh)]
        save_file({name: alone(weight) for name, weight in recommender.state_dict().items()}, fresh / WEIGHTS)
        (fresh / RECIPE).write_text(yaml.safe_dump(dict(recipe), sort_keys=False))
        recommender.catalog.save(fresh / CATALOG)
        if users is not None:
            users.save(fresh / USERS)
            names.append(USERS)
        withdrawn = still_withdrawn(folder, recommender.catalog)
        if withdrawn:
            write_withdrawn(fresh, **withdrawn)
            names.append(WITHDRAWN)
        fields["programs"] = write_programs(recommender, fresh, formats, max_length, samples, demanded)
        (fresh / CARD).write_text(card(fields))
        write_manifest(fresh, fields, [*names, *fields["programs"]])


def read_bundle(folder: Path) -> Bundle:
    """Read a bundle after every file has been compared with its checksum.

    Nothing in it is a pickle, and no file outside is opened. The recipe names classes that are imported, so a bundle
    chooses among the code that is installed here.

    Raises:
        InputError: a file is missing or differs from what was written, another seqrec wrote it, it remembers users with
            another model, or it is replaced again and again.
        ModuleNotFoundError: FAISS is not installed.
    """
    return _while_it_stays(folder, _read)


def read_weights(folder: Path) -> tuple[dict[str, Any], Catalog, dict[str, Tensor]]:
    """The manifest of a bundle, the items that were trained, in row order, and the weights.

    Raises:
        InputError: a file is missing or differs from what was written, another seqrec wrote it, or it is replaced again
            and again.
    """

    def read(folder: Path, manifest: dict[str, Any]) -> tuple[dict[str, Any], Catalog, dict[str, Tensor]]:
        return manifest, _trained(_catalog(folder, manifest), manifest), load_file(folder / WEIGHTS)

    return _while_it_stays(folder, read)


def _while_it_stays(folder: Path, read: Callable[[Path, dict[str, Any]], T]) -> T:
    """What is read of a bundle whose manifest is the same before and after."""
    for _ in range(_READINGS):
        before = _fields_now(folder)
        try:
            found = read(folder, read_manifest(folder))
        except (InputError, OSError):
            time.sleep(_PAUSE)
            if _fields_now(folder) == before:
                raise
            continue
        if _fields_now(folder) == before:  # else some files are of the bundle that was there before
            return found
    raise InputError(f"{folder} was replaced {_READINGS} times while it was read; try again when it stays.")


def _fields_now(folder: Path) -> dict[str, Any] | None:
    """What the manifest says; None for the moment in which one bundle takes the place of another."""
    try:
        return read_fields(folder)
    except (InputError, OSError):
        return None


def _catalog(folder: Path, manifest: Mapping[str, Any]) -> Catalog:
    catalog = Catalog.load(folder / CATALOG)
    if catalog.fingerprint != manifest["catalog_fingerprint"]:
        raise InputError(f"{folder / CATALOG} is the catalog of another model. Run `seqrec export` again.")
    return catalog


def _trained(catalog: Catalog, manifest: Mapping[str, Any]) -> Catalog:
    return Catalog(catalog.table.head(manifest["trained_items"]))


def _read(folder: Path, manifest: dict[str, Any]) -> Bundle:
    catalog = _catalog(folder, manifest)
    with from_weights_alone():
        recipe = yaml.safe_load((folder / RECIPE).read_text())
        recommender = build_recommender(recipe, _trained(catalog, manifest))
    recommender.load_state_dict(load_file(folder / WEIGHTS))
    files = manifest["files"]
    users = Users.load(folder / USERS, manifest["model_fingerprint"]) if USERS in files else None
    if ADDED in files:
        extend(recommender, catalog, load_file(folder / ADDED)["vectors"])
    withdrawn = read_withdrawn(folder) if WITHDRAWN in files else {}
    with torch.no_grad():
        width = recommender.eval().item_keys(torch.zeros(1, dtype=torch.long)).shape[1]
    index = load_index(folder, len(catalog), width, manifest["index"])
    withdrawals = (frozenset(withdrawn.get(kind, ())) for kind in ("blocked", "removed"))
    return Bundle(recommender, index, manifest["max_length"], manifest, users, *withdrawals, recipe=recipe)


def build_recommender(recipe: Mapping[str, Any], catalog: Catalog) -> KeyedRecommender:
    """The recommender that a ``class_path`` with its ``init_args`` describes, with fresh weights.

    Raises:
        InputError: it is one that has no queries and keys, such as a popularity count.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--recommender", type=Callable[[Catalog], Recommender])
    parts = parser.instantiate_classes(parser.parse_object({"recommender": dict(recipe)}))
    recommender = parts["recommender"](catalog)
    if not isinstance(recommender, KeyedRecommender):
        raise InputError(
            f"{type(recommender).__name__} does not rank by queries and keys, which an index needs. "
            "Export a run of a SequentialRecommender."
        )
    return recommender
