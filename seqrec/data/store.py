"""Writes the arrays, tables and manifest of a prepared log, and knows whether they are already there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from seqrec.data.errors import InputError
from seqrec.data.events import Events
from seqrec.data.folders import whole_folder
from seqrec.data.log import SCHEMA_VERSION

_MANIFEST = "manifest.json"


def is_ready(folder: Path, parameters: dict[str, Any], origin: str | None) -> bool:
    """Whether the folder is whole and was made from the same origin with the same parameters by this schema version."""
    manifest = manifest_of(folder)
    if origin is None:
        return False
    try:
        wanted = {"schema_version": SCHEMA_VERSION, "parameters": parameters, "origin": origin}
        return {name: manifest[name] for name in wanted} == wanted and all(
            (folder / name).stat().st_size == size for name, size in manifest["files"].items()
        )
    except (ValueError, KeyError, TypeError, AttributeError, OSError):
        return False


def manifest_of(folder: Path) -> dict[str, Any]:
    """What a folder says of how it was made; nothing if it is not there or cannot be read."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text())
    except (ValueError, OSError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def write(
    events: Events,
    catalog: pl.DataFrame,
    folder: Path,
    manifest: dict[str, Any],
    beside: Mapping[str, pl.DataFrame] | None = None,
) -> None:
    """Writes the folder that ``Log.open`` reads, whole or not at all.

    Args:
        events: grouped by user, oldest first, every id used.
        catalog: one line per item in row order.
        folder: its final place.
        manifest: what it says of itself; schema version, fingerprint and sizes of the files are added here.
        beside: further tables to keep in the folder, by name.
    """
    ends = np.cumsum(np.bincount(events.users, minlength=len(events.user_ids)))
    arrays = {"items": events.items, "times": events.times, "offsets": np.append(0, ends).astype(np.int64)}
    tables = {"users": pl.DataFrame({"user_id": events.user_ids}), "catalog": catalog, **(beside or {})}
    within = [entry.name for entry in folder.iterdir() if entry.is_dir()] if folder.is_dir() else []
    if within:
        raise InputError(f"{folder} holds the folder {min(within)}, too, which would be lost; choose another --out.")
    with whole_folder(folder, mark="offsets.npy") as fresh:
        for name, array in arrays.items():
            _write_array(fresh / f"{name}.npy", array)
        for name, table in tables.items():
            with (fresh / f"{name}.parquet").open("wb") as file:
                table.write_parquet(file)
        manifest = (
            {"schema_version": SCHEMA_VERSION}
            | manifest
            | {
                "fingerprint": _fingerprint(list(arrays.values()), [events.user_ids, events.item_ids]),
                "files": {path.name: path.stat().st_size for path in sorted(fresh.iterdir())},
            }
        )
        (fresh / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")


def _write_array(path: Path, array: np.ndarray) -> None:
    """As ``numpy.save``, but a full disk is reported by its own error."""
    array = np.ascontiguousarray(array)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(array.data)


def _fingerprint(arrays: list[np.ndarray], ids: list[pl.Series]) -> str:
    """SHA-256 over the arrays and the raw ids in row order."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    for column in ids:
        for raw in column:
            encoded = raw.encode()
            digest.update(len(encoded).to_bytes(4, "little") + encoded)
    return digest.hexdigest()
