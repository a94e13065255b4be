"""Texts on items or histories on disk, with the record of who wrote them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from seqrec.semantics.files import ANYTHING, fingerprint, read_json, write_json, write_whole

SCHEMA_VERSION = 1
TEXTS, MANIFEST = "texts.parquet", "manifest.json"
_MADE_BY = "seqrec describe"


@dataclass(frozen=True)
class Texts:
    """One text for each of V items or histories.

    Attributes:
        table: the ids of ``seqrec.semantics.vectors.Vectors``, and ``text``.
        manifest: ``kind``, ``text_source`` (template, or LLM and its name), ``prompt_version``, ``dataset`` and more.
    """

    table: pl.DataFrame
    manifest: dict[str, Any]

    @classmethod
    def open(cls, folder: Path) -> Texts:
        """Read a folder that ``write_texts`` wrote, after its content was compared with its fingerprint.

        Raises:
            FileNotFoundError: there is no such folder.
            ValueError: it is broken, or holds something else.
        """
        manifest = read_json(folder / MANIFEST, _MADE_BY)
        if "text_source" not in manifest or not (folder / TEXTS).is_file():
            raise ValueError(f"{folder} holds no texts. Name a folder that `{_MADE_BY}` wrote.")
        try:
            table = pl.read_parquet(folder / TEXTS)
            intact = fingerprint(table) == manifest["fingerprint"]
        except ANYTHING:
            intact = False
        if not intact:
            raise ValueError(
                f"{folder / TEXTS} is not what was written. Run the `{_MADE_BY}` that wrote it again; "
                "what is in the store is not asked for anew."
            )
        return cls(table, manifest)


def write_texts(folder: Path, table: pl.DataFrame, manifest: Mapping[str, Any]) -> None:
    """Write the folder that ``Texts.open`` reads; one without its manifest, which comes last, is not read."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    write_whole(folder / TEXTS, table.write_parquet)
    record = {"schema_version": SCHEMA_VERSION, **manifest, "rows": table.height, "fingerprint": fingerprint(table)}
    write_json(folder / MANIFEST, record)
