"""A prepared data set on disk: every history laid end to end, memory-mapped, with its raw ids beside it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Bool, Int

from seqrec.catalog import Catalog

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Log:
    """All interactions of a data set, grouped by user, oldest first within a user.

    Attributes:
        items: catalog row of every event (int32).
        times: when it happened, in seconds since 1970 (int64), or its place in the history where no clock was kept.
        offsets: user ``u`` owns events ``offsets[u]`` up to ``offsets[u + 1]`` (int64).
        catalog: the items, counted over the whole log, fake users left out.
        users: raw user ids (String) in row order.
        manifest: how the folder was made: parameters, counts, fingerprint, schema version.
    """

    items: Int[np.ndarray, "E"]
    times: Int[np.ndarray, "E"]
    offsets: Int[np.ndarray, "bounds"]
    catalog: Catalog
    users: pl.Series
    manifest: dict[str, Any]

    @property
    def is_fake(self) -> Bool[np.ndarray, "U"]:
        """Which users were made up by ``seqrec poison``, as the manifest marks them.

        Training reads them like all others; they are never evaluated, and the training counts of items leave them out.
        """
        marked = self.manifest.get("poison", {}).get("fake_users", {"first": 0, "count": 0})
        users = np.arange(len(self.offsets) - 1)
        return (users >= marked["first"]) & (users < marked["first"] + marked["count"])

    @classmethod
    def open(cls, folder: str | Path) -> Log:
        """Memory-map a folder that ``seqrec prepare`` wrote.

        Raises:
            FileNotFoundError: there is no such folder, or it is not a prepared data set.
            ValueError: it was written by a newer seqrec, or one of its files is not whole.
        """
        folder = Path(folder)
        if not (folder / "manifest.json").is_file():
            raise FileNotFoundError(f"{folder} is not a prepared data set. Run `seqrec prepare {folder.name}` first.")
        manifest = json.loads((folder / "manifest.json").read_text())
        if manifest["schema_version"] > SCHEMA_VERSION:
            raise ValueError(
                f"{folder} has schema version {manifest['schema_version']}, this seqrec reads up to {SCHEMA_VERSION}. "
                f"Update seqrec, or run `seqrec prepare {folder.name} --force`."
            )
        for name, size in manifest.get("files", {}).items():
            found = (folder / name).stat().st_size if (folder / name).is_file() else 0
            if found != size:
                raise ValueError(
                    f"{folder / name} is not whole ({found:,} of {size:,} bytes). "
                    "Run the `seqrec prepare` that wrote it again."
                )
        items, times, offsets = (
            np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("items", "times", "offsets")
        )
        users = pl.read_parquet(folder / "users.parquet")["user_id"]
        return cls(items, times, offsets, Catalog.load(folder / "catalog.parquet"), users, manifest)
