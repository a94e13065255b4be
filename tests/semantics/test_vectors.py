"""Vectors on disk come back as they were, or not at all."""

import json

import numpy as np
import polars as pl
import pytest

from seqrec.semantics.vectors import Vectors, write_vectors

ITEMS = pl.DataFrame({"item_id": ["a", "007", "ß"]})
HISTORIES = pl.DataFrame({"user_id": ["u", "u", "v"], "n_events": [1, 2, 1]})
NUMBERS = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)


@pytest.mark.parametrize(("kind", "ids"), [("items", ITEMS), ("histories", HISTORIES)])
@pytest.mark.parametrize("precision", [np.float16, np.float32])
def test_what_was_written_comes_back_memory_mapped(tmp_path, kind, ids, precision):
    write_vectors(tmp_path / "out", ids, NUMBERS.astype(precision), {"kind": kind, "pooling": "mean"})
    made = Vectors.open(tmp_path / "out")
    assert made.ids.equals(ids)
    assert isinstance(made.vectors, np.memmap)
    assert made.vectors.dtype == precision
    assert np.array_equal(made.vectors, NUMBERS.astype(precision))
    assert (made.manifest["kind"], made.manifest["pooling"]) == (kind, "mean")
    assert (len(made), made.manifest["rows"], made.manifest["dim"]) == (3, 3, 4)
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["ids.parquet", "manifest.json", "vectors.npy"]


def test_the_fingerprint_tells_ids_and_numbers_apart(tmp_path):
    def fingerprint(ids, numbers):
        write_vectors(tmp_path / "out", ids, numbers, {"kind": "items"})
        return Vectors.open(tmp_path / "out").manifest["fingerprint"]

    moved = pl.DataFrame({"item_id": ["a0", "07", "ß"]})  # the same letters in the same order
    prints = [fingerprint(ITEMS, NUMBERS), fingerprint(moved, NUMBERS), fingerprint(ITEMS, NUMBERS[::-1])]
    assert len(set(prints)) == 3
    assert fingerprint(ITEMS, NUMBERS) == prints[0]


@pytest.mark.parametrize("name", ["ids.parquet", "vectors.npy"])
@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "empty", "unreadable"])
def test_a_damaged_file_is_refused(tmp_path, name, damage):
    write_vectors(tmp_path, ITEMS, NUMBERS, {"kind": "items"})
    content = bytearray((tmp_path / name).read_bytes())
    if damage == "gone":
        (tmp_path / name).unlink()
    elif damage == "cut":
        (tmp_path / name).write_bytes(content[:-5])
    elif damage == "empty":
        (tmp_path / name).write_bytes(b"")
    elif damage == "unreadable" and name == "vectors.npy":  # a header that ends too late
        (tmp_path / name).write_bytes(content.replace(b"}", b"(", 1))
    elif damage == "unreadable":
        pl.DataFrame({"item_id": ["a", None, "ß"]}).write_parquet(tmp_path / name)
    else:
        content[-1 if name == "vectors.npy" else content.index(b"007")] ^= 1
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match="not what was written there"):
        Vectors.open(tmp_path)


def test_a_folder_without_a_manifest_was_not_finished(tmp_path):
    write_vectors(tmp_path, ITEMS, NUMBERS, {"kind": "items"})
    (tmp_path / "manifest.json").rename(tmp_path / "other.json")
    with pytest.raises(FileNotFoundError, match="Run `seqrec embed` first"):
        Vectors.open(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match="is broken"):
        Vectors.open(tmp_path)
    for part in ({"schema_version": 1}, {"kind": "items", "fingerprint": "abc"}):
        (tmp_path / "manifest.json").write_text(json.dumps(part))
        with pytest.raises(ValueError, match="holds no vectors of texts"):
            Vectors.open(tmp_path)


def test_a_file_at_which_the_reader_panics_is_refused(tmp_path, monkeypatch):
    write_vectors(tmp_path, ITEMS, NUMBERS, {"kind": "items"})

    def panic(path):
        raise pl.exceptions.PanicException("assertion failed")

    monkeypatch.setattr(pl, "read_parquet", panic)
    with pytest.raises(ValueError, match="not what was written there"):
        Vectors.open(tmp_path)


@pytest.mark.parametrize(
    ("ids", "numbers", "words"),
    [
        (HISTORIES, NUMBERS, "need the columns"),
        (ITEMS, NUMBERS[:2], "3 ids and 2 vectors"),
        (ITEMS, NUMBERS.astype(np.float64), "vectors of float64"),
        (pl.DataFrame({"item_id": ["a", "b", "a"]}), NUMBERS, r"\('a',\) comes more than once"),
        (ITEMS, np.where(np.arange(3)[:, None] == 1, np.nan, NUMBERS).astype(np.float32), r"\('007',\) has numbers"),
    ],
)
def test_what_does_not_belong_together_is_refused(tmp_path, ids, numbers, words):
    with pytest.raises(ValueError, match=words):
        write_vectors(tmp_path, ids, numbers, {"kind": "items"})
