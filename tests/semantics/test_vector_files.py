"""Every form of a file of item vectors gives the same ids and numbers, and a wrong one is refused by name.

What Parquet files must look like is tried in tests/embeddings/test_pretrained.py.
"""

import json

import numpy as np
import polars as pl
import pytest
import torch

from seqrec.catalog import Catalog
from seqrec.embeddings.pretrained import TextTower
from seqrec.semantics.vector_files import read_vectors, vectors_of
from seqrec.semantics.vectors import training_of, write_vectors

IDS = ["b", "007", "a b\u2028c"]
NUMBERS = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)


def as_parquet(path, numbers):
    pl.DataFrame({"item_id": IDS, "vector": numbers}).write_parquet(path / "v.parquet")
    return path / "v.parquet"


def as_matrix(path, numbers):
    np.save(path / "v.npy", numbers)
    (path / "v.ids.txt").write_text("\n".join(IDS) + "\n", encoding="utf-8")
    return path / "v.npy"


def as_structure(path, numbers):
    rows = np.empty(3, dtype=[("item_id", "U9"), ("vector", numbers.dtype, 4)])
    rows["item_id"], rows["vector"] = IDS, numbers
    np.save(path / "v.npy", rows)
    return path / "v.npy"


def as_safetensors(path, numbers):
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file({"anything": torch.from_numpy(numbers)}, path / "v.safetensors", {"ids": json.dumps(IDS)})
    return path / "v.safetensors"


def as_folder(path, numbers):
    write_vectors(path / "v", pl.DataFrame({"item_id": IDS}), numbers, {"kind": "items"})
    return path / "v"


FORMS = [as_parquet, as_matrix, as_structure, as_safetensors, as_folder]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("precision", [np.float16, np.float32])
def test_every_form_is_read_alike(tmp_path, form, precision):
    ids, vectors = read_vectors(form(tmp_path, NUMBERS.astype(precision)))
    assert ids == IDS
    assert vectors.dtype == precision
    assert np.array_equal(vectors, NUMBERS.astype(precision))


@pytest.mark.parametrize("form", FORMS)
def test_a_text_tower_reads_every_form(tmp_path, form):
    catalog = Catalog(pl.DataFrame({"item_id": IDS[::-1], "count": [1] * 3}))
    tower = TextTower(catalog, 2, str(form(tmp_path, NUMBERS)))
    assert torch.equal(tower.texts.vectors, torch.from_numpy(NUMBERS[::-1].copy()))


def test_a_text_tower_reads_no_texts_that_quote_what_it_is_not_trained_on(tmp_path):
    catalog = Catalog(pl.DataFrame({"item_id": IDS, "count": [4, 2, 1]}))
    record = {"kind": "items", "quotes": 5, "training": training_of(catalog)}
    write_vectors(tmp_path / "v", pl.DataFrame({"item_id": IDS}), NUMBERS, record)
    TextTower(catalog, 2, str(tmp_path / "v"))
    with pytest.raises(ValueError, match="quote histories of another training part"):
        TextTower(catalog.with_counts(np.array([4, 2, 0])), 2, str(tmp_path / "v"))


def test_a_mark_of_the_byte_order_is_no_part_of_an_id(tmp_path):
    path = as_matrix(tmp_path, NUMBERS)
    (tmp_path / "v.ids.txt").write_text("\n".join(IDS), encoding="utf-8-sig")
    assert read_vectors(path)[0] == IDS


@pytest.mark.parametrize("form", ["parquet", "npy", "safetensors"])
def test_ids_with_a_point_are_refused(tmp_path, form):
    if form == "parquet":
        pl.DataFrame({"item_id": [1.0, 2.0, 3.0], "vector": NUMBERS}).write_parquet(tmp_path / "v.parquet")
    elif form == "npy":
        rows = np.zeros(3, dtype=[("item_id", "f8"), ("vector", "f4", 4)])
        rows["item_id"] = [1.0, 2.0, 3.0]
        np.save(tmp_path / "v.npy", rows)
    else:
        safetensors = pytest.importorskip("safetensors.torch")
        told = {"ids": json.dumps([1.0, 2.0, 3.0])}
        safetensors.save_file({"anything": torch.from_numpy(NUMBERS)}, tmp_path / "v.safetensors", told)
    with pytest.raises(ValueError, match=r"with a point; write .* as text or as whole numbers"):
        read_vectors(tmp_path / f"v.{form}")


def test_brain_floats_become_single(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    numbers = torch.from_numpy(NUMBERS).bfloat16()
    safetensors.save_file({"v": numbers}, tmp_path / "v.safetensors", {"ids": json.dumps(IDS)})
    assert np.array_equal(read_vectors(tmp_path / "v.safetensors")[1], numbers.float().numpy())


def test_vectors_are_asked_for_by_raw_id(tmp_path):
    path = as_matrix(tmp_path, NUMBERS)
    assert np.array_equal(vectors_of(path, ["007", "b", "007"]), NUMBERS[[1, 0, 1]])
    with pytest.raises(ValueError, match=r"v\.npy has no vector for 2 of 3 items: x, y; add them"):
        vectors_of(path, ["x", "b", "y"])


def matrix_without_ids(path):
    as_matrix(path, NUMBERS)
    (path / "v.ids.txt").unlink()


def matrix_with_fewer_ids(path):
    as_matrix(path, NUMBERS)
    (path / "v.ids.txt").write_text("a\nb\n")


def one_number_each(path):
    as_matrix(path, NUMBERS[:, 0])


def not_numpy(path):
    (path / "v.npy").write_text("hello")


def an_id_twice(path):
    as_matrix(path, NUMBERS)
    (path / "v.ids.txt").write_text("a\nb\na\n")


def no_numbers(path):
    as_matrix(path, NUMBERS[:, :0])


def endless(path):
    as_matrix(path, np.where(NUMBERS[1, 2] == NUMBERS, np.inf, NUMBERS))


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (matrix_without_ids, r"v\.ids\.txt does not exist"),
        (matrix_with_fewer_ids, "3 vectors and 2 ids"),
        (one_number_each, r"found float32 of the shape \(3,\)"),
        (not_numpy, "found something else"),
        (an_id_twice, "has 2 vectors of the item a"),
        (no_numbers, "3 vectors without a number in them"),
        (endless, "not finite, first in the vector of 007"),
    ],
)
def test_a_numpy_file_that_cannot_be_used_is_refused_by_name(tmp_path, write, words):
    write(tmp_path)
    with pytest.raises(ValueError, match=words):
        read_vectors(tmp_path / "v.npy")


def test_safetensors_without_ids_or_with_two_tensors_are_refused(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    numbers = torch.from_numpy(NUMBERS)
    safetensors.save_file({"v": numbers}, tmp_path / "v.safetensors")
    with pytest.raises(ValueError, match="in its metadata ids"):
        read_vectors(tmp_path / "v.safetensors")
    two = {"v": numbers, "w": numbers.clone()}
    safetensors.save_file(two, tmp_path / "v.safetensors", {"ids": json.dumps(IDS)})
    with pytest.raises(ValueError, match="must hold one matrix"):
        read_vectors(tmp_path / "v.safetensors")


def test_a_folder_of_histories_has_no_item_vectors(tmp_path):
    ids = pl.DataFrame({"user_id": ["u"] * 3, "n_events": [1, 2, 3]})
    write_vectors(tmp_path / "v", ids, NUMBERS, {"kind": "histories"})
    with pytest.raises(ValueError, match="vectors of histories; name vectors of items"):
        read_vectors(tmp_path / "v")


def test_a_file_that_is_not_there_is_named_with_what_would_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.parquet does not exist; name a file of item vectors"):
        read_vectors(tmp_path / "nowhere.parquet")
