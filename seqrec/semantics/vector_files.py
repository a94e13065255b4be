"""Plain files of item vectors keyed by raw id: Parquet, NumPy, safetensors, or a folder that ``seqrec embed`` wrote."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Float

from seqrec.semantics.vectors import Vectors

_NAMED = 5


def read_vectors(path: Path) -> tuple[list[str], Float[np.ndarray, "V T"]]:
    """Raw ids and vectors of a file, or of a folder of item vectors that ``seqrec embed items`` wrote.

    ``NAME.parquet``: the columns ``item_id`` and ``vector``, a list of numbers; lines without a vector are left out.
    ``NAME.npy``: a matrix with one vector per row, and beside it ``NAME.ids.txt``, one raw id per line (UTF-8); or a
    structured array with the fields ``item_id`` and ``vector``.
    ``NAME.safetensors``: one matrix, any name, and in the metadata ``ids``, a JSON list of raw ids in row order.
    A file with any other ending is read as Parquet. Half precision stays half, all else becomes float32.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: the file is not in one of these forms, an id comes twice, vectors differ in length or have no
            numbers, or a number is not finite.
        ModuleNotFoundError: the file is safetensors, whose package is not installed.
    """
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist; name a file of item vectors (Parquet, npy, safetensors) or a folder of "
            "`seqrec embed items`."
        )
    if path.is_dir():
        ids, vectors = _from_folder(path)
    else:
        ids, vectors = _READERS.get(path.suffix, _from_parquet)(path)
    if len(ids) != len(vectors):
        raise ValueError(f"{path} has {len(vectors):,} vectors and {len(ids):,} ids; give each vector one id.")
    name, lines = Counter(ids).most_common(1)[0] if ids else ("", 0)
    if lines > 1:
        raise ValueError(f"{path} has {lines} vectors of the item {name}; leave one line for each item_id.")
    if ids and not vectors.shape[1]:
        raise ValueError(f"{path} has {len(ids):,} vectors without a number in them; make them anew.")
    vectors = vectors if vectors.dtype == np.float16 else vectors.astype(np.float32, copy=False)
    broken = np.flatnonzero(~np.isfinite(vectors).all(1))
    if broken.size:
        raise ValueError(
            f"{path} has numbers that are not finite, first in the vector of {ids[broken[0]]}; correct them."
        )
    return ids, vectors


def vectors_of(path: Path, wanted: Iterable[str]) -> Float[np.ndarray, "N T"]:
    """The vectors of these raw ids, in their order.

    Raises:
        ValueError: the file is not as ``read_vectors`` wants it, or lacks some of them.
    """
    ids, vectors = read_vectors(path)
    place_of, wanted = {raw: place for place, raw in enumerate(ids)}, list(wanted)
    lacking = [raw for raw in wanted if raw not in place_of]
    if lacking:
        more = f" and {len(lacking) - _NAMED:,} more" if len(lacking) > _NAMED else ""
        raise ValueError(
            f"{path} has no vector for {len(lacking):,} of {len(wanted):,} items: {', '.join(lacking[:_NAMED])}{more}; "
            "add them by raw id."
        )
    return vectors[[place_of[raw] for raw in wanted]]


def _from_folder(path: Path) -> tuple[list[str], Float[np.ndarray, "V T"]]:
    made = Vectors.open(path)
    if made.manifest["kind"] != "items":
        raise ValueError(f"{path} holds vectors of {made.manifest['kind']}; name vectors of items.")
    return made.ids["item_id"].to_list(), np.array(made.vectors)


def _from_numpy(path: Path) -> tuple[list[str], Float[np.ndarray, "V T"]]:
    beside = path.with_suffix(".ids.txt")
    wanted = (
        f"{path} must hold a matrix of numbers with its ids in {beside.name}, one per line, or a structured array with "
        "the fields item_id and vector"
    )
    try:
        array = np.load(path, allow_pickle=False)
        if array.dtype.names is None:
            text = beside.read_text(encoding="utf-8-sig").removesuffix("\n")
            ids = text.split("\n") if text else []
        else:
            ids, array = [_text(raw) for raw in array["item_id"].tolist()], array["vector"]
    except FileNotFoundError as error:
        raise ValueError(f"{wanted}; {beside if path.is_file() else path} does not exist.") from error
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{wanted}; found something else ({error}).") from error
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        raise ValueError(f"{wanted}; found {array.dtype} of the shape {array.shape}.")
    return ids, array


def _text(raw: Any) -> str:
    if isinstance(raw, float):
        raise ValueError(f"the item_id {raw} is a number with a point; write ids as text or as whole numbers")
    return raw.decode() if isinstance(raw, bytes) else str(raw)


def _from_safetensors(path: Path) -> tuple[list[str], Float[np.ndarray, "V T"]]:
    try:
        import safetensors
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{path} needs safetensors, which is not installed. Run `pip install 'seqrec[llm]'`."
        ) from error
    wanted = f"{path} must hold one matrix, and in its metadata ids, a JSON list of raw ids"
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            (name,) = file.keys()
            tensor, ids = file.get_tensor(name), json.loads(file.metadata()["ids"])
            ids = [_text(raw) for raw in ids] if isinstance(ids, list) else ids
            vectors = (tensor if str(tensor.dtype) == "torch.float16" else tensor.float()).numpy()
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, OSError) as error:
        raise ValueError(f"{wanted}; found something else ({type(error).__name__}: {error}).") from error
    if vectors.ndim != 2 or not isinstance(ids, list):
        raise ValueError(f"{wanted}; found the shape {vectors.shape}.")
    return ids, vectors


def _from_parquet(path: Path) -> tuple[list[str], Float[np.ndarray, "V T"]]:
    found = "something else"
    try:
        found = ", ".join(f"{field.name} ({field.type})" for field in pq.read_schema(path))
        table = pq.read_table(path, columns=["item_id", "vector"]).drop_null()
        if pa.types.is_floating(table["item_id"].type):
            found += ", where ids are numbers with a point; write them as text or as whole numbers"
            raise pa.ArrowTypeError(found)
        ids = table["item_id"].cast("string").to_pylist()
        lists = table["vector"].combine_chunks()
        lengths = sorted(pc.list_value_length(lists).unique().to_pylist())  # pyright: ignore[reportAttributeAccessIssue]
        flat = lists.flatten()
        numbers = flat.cast(flat.type if pa.types.is_float16(flat.type) else "float").to_numpy(zero_copy_only=False)
    except pa.ArrowException as error:
        raise ValueError(
            f"{path} must be a Parquet file with the columns item_id and vector, a list of numbers; found {found}."
        ) from error
    if len(lengths) > 1:
        raise ValueError(f"{path} has vectors of {lengths[0]} to {lengths[-1]} numbers; give all the same length.")
    return ids, numbers.reshape(len(ids), lengths[0] if lengths else 0)


_READERS = {".npy": _from_numpy, ".safetensors": _from_safetensors}
