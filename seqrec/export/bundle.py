"""A trained recommender as a folder that serves: FAISS index, query encoder, catalog and a manifest with checksums."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentParser

from seqrec.catalog import Catalog
from seqrec.data.errors import InputError
from seqrec.data.folders import whole_folder
from seqrec.export.index import KeyIndex
from seqrec.export.users import Users
from seqrec.recommenders.base import Recommender
from seqrec.recommenders.keyed import KeyedRecommender

SCHEMA_VERSION = 1
INDEX, WEIGHTS, RECIPE, CATALOG = PARTS = "index.faiss", "encoder.pt", "encoder.yaml", "catalog.parquet"
USERS = "users.pt"
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Bundle:
    """What a bundle's folder holds, read and checked.

    Attributes:
        recommender: the query encoder, in evaluation mode, with the catalog it knows.
        index: the keys of the catalog.
        max_length: most events of a history that the encoder reads, the newest ones; None reads all.
        manifest: schema version, fingerprint, checksums, config and metrics.
        users: what the encoder remembers of some users; None where the bundle carries nobody.
    """

    recommender: KeyedRecommender
    index: KeyIndex
    max_length: int | None
    manifest: dict[str, Any]
    users: Users | None = None


def write_bundle(
    recommender: KeyedRecommender,
    folder: Path,
    *,
    recipe: Mapping[str, Any],
    config: Mapping[str, Any],
    max_length: int | None,
    metrics: Mapping[str, float] | None = None,
    users: Users | None = None,
) -> None:
    """Write a bundle; the folder appears whole or not at all.

    Args:
        recommender: a trained recommender, on any device; it is put into evaluation mode.
        folder: where; an older bundle there is replaced, anything else is refused.
        recipe: ``class_path`` and ``init_args`` that build the same recommender from its catalog.
        config: the complete config of the run, kept for the record.
        max_length: most events of a history that the encoder reads; None reads all.
        metrics: what the test said, kept for the record.
        users: what the recommender remembers of some users, so that their past need not be read again.
    """
    with torch.no_grad():
        index = KeyIndex(recommender.eval().item_keys())
    with whole_folder(folder, mark=INDEX) as fresh:
        index.save(fresh / INDEX)
        torch.save({name: weight.detach().cpu() for name, weight in recommender.state_dict().items()}, fresh / WEIGHTS)
        (fresh / RECIPE).write_text(yaml.safe_dump(dict(recipe), sort_keys=False))
        recommender.catalog.save(fresh / CATALOG)
        if users is not None:
            users.save(fresh / USERS)
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "catalog_fingerprint": recommender.catalog.fingerprint,
            "items": len(recommender.catalog),
            "max_length": max_length,
            "metrics": dict(metrics or {}),
            "config": dict(config),
            "files": {name: _digest(fresh / name) for name in (*PARTS, *([USERS] if users is not None else []))},
        }
        (fresh / MANIFEST).write_text(_sealed(manifest))


def read_bundle(folder: Path) -> Bundle:
    """Read a bundle after every file has been compared with its checksum.

    The recipe names classes that are imported, so open only bundles from people you trust.

    Raises:
        InputError: a file is missing or differs from what was written, a newer seqrec wrote it, or it remembers users
            with other weights.
        ModuleNotFoundError: FAISS is not installed.
    """
    manifest = _manifest(folder)
    for name, digest in manifest["files"].items():
        if not (folder / name).is_file():
            raise InputError(f"{folder / name} is missing. Run `seqrec export` again.")
        if _digest(folder / name) != digest:
            raise InputError(f"{folder / name} differs from what was exported. Run `seqrec export` again.")
    catalog = Catalog.load(folder / CATALOG)
    recommender = build_recommender(yaml.safe_load((folder / RECIPE).read_text()), catalog)
    recommender.load_state_dict(torch.load(folder / WEIGHTS, map_location="cpu", weights_only=True))
    users = Users.load(folder / USERS, recommender) if USERS in manifest["files"] else None
    return Bundle(recommender.eval(), KeyIndex.load(folder / INDEX), manifest["max_length"], manifest, users)


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


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(
            f"{path} does not exist, so {folder} is not a bundle. Run `seqrec export --out {folder}` first."
        )
    text = path.read_bytes()
    try:
        manifest = json.loads(text)
        version = manifest["schema_version"]
        if version > SCHEMA_VERSION:
            raise InputError(
                f"{path} has schema version {version}, this seqrec reads up to {SCHEMA_VERSION}. Update seqrec."
            )
        fields = {name: value for name, value in manifest.items() if name != "checksum"}
        intact = text == _sealed(fields).encode()
    except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError):
        intact = False
        fields = {}
    if not intact:
        raise InputError(f"{path} differs from what was exported. Run `seqrec export` again.")
    return fields


def _sealed(fields: Mapping[str, Any]) -> str:
    """The fields as JSON text together with the checksum of themselves."""
    body = json.dumps(fields, indent=2, default=str)
    checksum = hashlib.sha256(body.encode()).hexdigest()
    return json.dumps({**fields, "checksum": checksum}, indent=2, default=str) + "\n"


def _digest(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
