"""The manifest of a bundle: what is in it, sealed with checksums, so that a change of any byte is noticed."""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from seqrec.data.errors import InputError

SCHEMA_VERSION = 2
MANIFEST = "manifest.json"
RECIPE = "encoder.yaml"  # by which a folder is known to be a bundle; other folders have a manifest, too
# What a bundle is made of. Nothing that Python would import is among them, so what is downloaded brings no code.
_KINDS = {".safetensors", ".yaml", ".parquet", ".faiss", ".json", ".md", ".pt2", ".onnx"}


def write_manifest(folder: Path, fields: Mapping[str, Any], names: Iterable[str]) -> None:
    """Seal a folder: the fields, the schema version, and the SHA-256 of these files and of the manifest itself.

    All files may be read by whoever may read the manifest.
    """
    files = {name: digest(folder / name) for name in names}
    manifest = folder / MANIFEST
    manifest.write_text(_sealed({**fields, "schema_version": SCHEMA_VERSION, "files": files}))
    readable = stat.S_IMODE(manifest.stat().st_mode)
    for name in files:  # safetensors writes files that nobody else may read
        if stat.S_IMODE((folder / name).stat().st_mode) == 0o600 != readable:
            (folder / name).chmod(readable)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The fields of a sealed folder, after every file has been compared with its checksum.

    Raises:
        InputError: a file is missing or differs from what was written, or another version of seqrec wrote it.
    """
    fields = read_fields(folder)
    for name, expected in fields["files"].items():
        if not (folder / name).is_file():
            raise InputError(f"{folder / name} is missing. Run `seqrec export` again.")
        if digest(folder / name) != expected:
            raise InputError(f"{folder / name} differs from what was exported. Run `seqrec export` again.")
    return fields


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def read_fields(folder: Path) -> dict[str, Any]:
    """The fields of a sealed folder, whose manifest alone is read. Raises as ``read_manifest`` does."""
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(
            f"{path} does not exist, so {folder} is not a bundle. Run `seqrec export --out {folder}` first."
        )
    text = path.read_bytes()
    try:
        manifest = json.loads(text)
        version = int(manifest["schema_version"])
        fields = {name: value for name, value in manifest.items() if name != "checksum"}
        intact = text == _sealed(fields).encode() and {Path(name).name for name in fields["files"]} == set(
            fields["files"]
        )
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{path} differs from what was exported. Run `seqrec export` again.") from None
    if version > SCHEMA_VERSION:
        raise InputError(
            f"{path} has schema version {version}, this seqrec reads up to {SCHEMA_VERSION}. Update seqrec."
        )
    if version < SCHEMA_VERSION:
        raise InputError(
            f"{path} has schema version {version}, which this seqrec does not read any more. Run `seqrec export` again."
        )
    if not intact:
        raise InputError(f"{path} differs from what was exported. Run `seqrec export` again.")
    strange = sorted(name for name in fields["files"] if Path(name).suffix not in _KINDS)
    if strange:
        raise InputError(f"{path} names {strange[0]}, which no bundle has; do not trust where it is from.")
    return fields


def _sealed(fields: Mapping[str, Any]) -> str:
    """The fields as JSON text together with the checksum of themselves."""
    body = json.dumps(fields, indent=2, default=str)
    checksum = hashlib.sha256(body.encode()).hexdigest()
    return json.dumps({**fields, "checksum": checksum}, indent=2, default=str) + "\n"
