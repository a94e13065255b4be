"""A card says where a data set comes from, under which terms, how it is read and what the literature counted."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from seqrec.data.errors import InputError, nearest
from seqrec.data.sources import Source, Table, scan

_REQUIRED = ("name", "source", "licence", "citation", "columns", "counts")


@dataclass(frozen=True)
class Card:
    """What is known of one data set.

    Attributes:
        name: what the command line calls it.
        reader: the source of the original files: ``class_path`` and ``init_args`` (without ``path``).
        licence: the terms of use in a sentence; shown before a download.
        citation: the paper to cite.
        columns: what each column of the log means in the original.
        counts: users, items and interactions in the literature, and ``where`` they stand; ``None`` where unknown.
        url: address of the original file, or ``None`` where it must be fetched by hand.
        items_url: address of the file about the items, where it is a second one.
        homepage: page of the data set.
        sha256: checksum of the file at ``url``, or ``None`` when unknown.
        preparation: usual parameters of preparation, such as ``user_core``, ``item_core`` and ``min_rating``.
    """

    name: str
    reader: dict[str, Any]
    licence: str
    citation: str
    columns: dict[str, str]
    counts: dict[str, Any]
    url: str | None = None
    items_url: str | None = None
    homepage: str | None = None
    sha256: str | None = None
    preparation: dict[str, Any] | None = None

    @classmethod
    def load(cls, name_or_path: str | Path) -> Card:
        """Read the card of this name, or at this path (ending in .yaml).

        Raises:
            InputError: there is no such card, or it lacks or misspells a key.
        """
        path = Path(name_or_path)
        if path.suffix not in (".yaml", ".yml"):
            if str(name_or_path) not in known():
                raise InputError(
                    f"There is no data card '{name_or_path}' ({nearest(str(name_or_path), known())}); "
                    "give one of these names or the path of your own card."
                )
            path = _folder() / f"{name_or_path}.yaml"
        if not path.is_file():
            raise InputError(f"{path} does not exist; give the name or the path of a data card.")
        return cls._parse(path)

    @classmethod
    def _parse(cls, path: Path) -> Card:
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{path} is not readable YAML ({reason}); repair it.") from error
        if not isinstance(content, dict):
            raise InputError(f"{path} is not a mapping of keys; write a card with {', '.join(_REQUIRED)}.")
        keys = ["source" if field.name == "reader" else field.name for field in fields(cls)]
        for key in content:
            if key not in keys:
                raise InputError(f"{path} has the unknown key '{key}' ({nearest(str(key), keys)}); correct it.")
        for key in _REQUIRED:
            if key not in content:
                raise InputError(f"{path} has no '{key}'; add it.")
        if "class_path" not in content["source"]:
            raise InputError(f"{path} names no source.class_path; name one, such as seqrec.data.sources.Table.")
        return cls(reader=content.pop("source"), **content)

    def source(self, raw: Path | None = None) -> Source:
        """The source that reads ``raw``: the columns of a folder's ``interactions.parquet``, else the original files.

        Args:
            raw: the file or folder of the original, or a folder with ``interactions.parquet`` (columns user_id,
                item_id, timestamp and perhaps rating) and perhaps ``items.parquet`` (item_id and any of title, text and
                categories or genres). A source that makes its own data needs none.

        Raises:
            InputError: the card names a class that does not exist or arguments it does not have, or needs ``raw``.
        """
        if raw is not None and (raw / "interactions.parquet").is_file():
            return _ready_table(raw)
        module_name, _, class_name = self.reader["class_path"].rpartition(".")
        try:
            module = importlib.import_module(module_name)
        except (ImportError, ValueError) as error:
            raise InputError(
                f"The card '{self.name}' names module '{module_name}', which cannot be imported; correct it."
            ) from error
        if not hasattr(module, class_name):
            near = nearest(class_name, (name for name in vars(module) if name[0].isupper()))
            raise InputError(f"The card '{self.name}' names '{class_name}', not in {module_name} ({near}); correct it.")
        kind, arguments = getattr(module, class_name), dict(self.reader.get("init_args") or {})
        if "path" in inspect.signature(kind).parameters:
            if raw is None:
                where = self.url or self.homepage
                fetched = f"; fetch them from {where} and pass" if where else " and names no url; pass them with"
                raise InputError(f"The card '{self.name}' needs raw files{fetched} --raw.")
            arguments["path"] = raw
        try:
            return kind(**arguments)
        except TypeError as error:
            raise InputError(f"The card '{self.name}' has wrong source.init_args ({error}); correct them.") from error


def known() -> list[str]:
    """Names of the cards that come with seqrec."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def _folder() -> Path:
    """Where the cards lie: beside this file once installed, in ``data/cards`` of a checkout."""
    installed = Path(__file__).parent / "cards"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "data" / "cards"


def _ready_table(raw: Path) -> Table:
    path = raw / "interactions.parquet"
    table, _ = scan(path, [])
    rating = "rating" if "rating" in table.collect_schema().names() else None
    about: dict[str, str] = {}
    if (raw / "items.parquet").is_file():
        present = scan(raw / "items.parquet", [])[0].collect_schema().names()
        about = {name: name for name in ("title", "text") if name in present}
        about |= dict([("categories", name) for name in ("categories", "genres") if name in present][:1])
    return Table(raw, rating=rating, **about)
