"""A text tower reads the vector of the right item, trains what should be trained and opens without its file."""

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from seqrec.catalog import Catalog
from seqrec.embeddings.pretrained import TextTower
from seqrec.embeddings.reduction import PCA
from seqrec.embeddings.texts import Missing, TextTable
from seqrec.semantics.vector_files import read_vectors

IDS = ["a", "b", "c", "007"]
CATALOG = Catalog(pl.DataFrame({"item_id": IDS, "count": [1] * 4}))
VECTORS = dict(zip([*IDS, "elsewhere"], np.random.default_rng(0).normal(size=(5, 6)).tolist(), strict=True))


HALF = pa.float16()


def written(path, vectors, kind=HALF):
    """A file of these vectors, in this order."""
    columns = {"item_id": list(vectors), "vector": pa.array(vectors.values(), pa.list_(kind)), "text": list(vectors)}
    pq.write_table(pa.table(columns), path)
    return str(path)


@pytest.fixture
def file(tmp_path):
    return written(tmp_path / "vectors.parquet", VECTORS)


def tower(path, **arguments):
    torch.manual_seed(0)
    return TextTower(CATALOG, dim=3, vectors=path, hidden_dim=5, **arguments)


def test_raw_ids_say_whose_a_vector_is_and_the_order_of_lines_nothing(tmp_path, file):
    shuffled = {raw: VECTORS[raw] for raw in ("c", "elsewhere", "007", "b", "a")}
    one, other = tower(file).eval(), tower(written(tmp_path / "shuffled.parquet", shuffled)).eval()
    torch.testing.assert_close(one.texts.vectors, torch.tensor([VECTORS[raw] for raw in IDS], dtype=torch.float16))
    assert torch.equal(one(), other())


def test_rows_are_looked_up_in_any_shape_and_none_is_the_whole_catalog(file):
    made = tower(file).eval()
    assert made().shape == (4, 3)
    rows = torch.tensor([[3, 0], [3, 2]])
    torch.testing.assert_close(made(rows), made()[rows])
    assert made(torch.tensor([], dtype=torch.long)).shape == (0, 3)


def test_the_tower_is_trained_and_the_vectors_are_not(file):
    made = tower(file)
    before = made.texts.vectors.clone()
    trained = dict(made.named_parameters())
    assert set(trained) == {"widen.weight", "widen.bias", "narrow.weight", "narrow.bias"}
    optimiser = torch.optim.AdamW(made.parameters(), weight_decay=0.1)
    made(torch.tensor([0, 3])).square().sum().backward()
    assert all(weight.grad.abs().sum() > 0 for weight in trained.values())
    optimiser.step()
    assert torch.equal(made.texts.vectors, before)


def test_dropout_is_for_training_alone(file):
    made = tower(file, dropout=0.5)
    assert not torch.equal(made(), made())
    made.eval()
    assert torch.equal(made(), made())


def test_a_tower_drops_between_its_two_maps(file, monkeypatch):
    monkeypatch.setattr("seqrec.embeddings.pretrained.drop", lambda x, share: (x / (1 - share)).tanh())
    made = tower(file, dropout=0.3)
    texts = torch.nn.functional.layer_norm(made.texts().float(), (6,))
    between = torch.nn.functional.gelu(texts @ made.widen.weight.T + made.widen.bias)
    for hidden, trains in ((between, False), ((between / 0.7).tanh(), True)):
        expected = hidden @ made.narrow.weight.T + made.narrow.bias
        torch.testing.assert_close(made.train(trains)(), expected)


def test_a_rescaled_and_shifted_vector_is_read_alike(tmp_path, file):
    moved = {raw: [3 * number + 1 for number in vector] for raw, vector in VECTORS.items()}
    other = tower(written(tmp_path / "moved.parquet", moved, pa.float64())).eval()
    torch.testing.assert_close(other(), tower(file).eval()(), atol=2e-3, rtol=0)


def test_half_precision_stays_half_and_all_else_is_single(tmp_path, file):
    assert tower(file).texts.vectors.dtype == torch.float16
    for kind in (pa.float32(), pa.float64()):
        assert tower(written(tmp_path / "other.parquet", VECTORS, kind)).texts.vectors.dtype == torch.float32


def test_numbers_may_be_ids_and_lists_may_be_of_a_fixed_size(tmp_path):
    vectors = pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2))
    pq.write_table(pa.table({"item_id": [7, 5], "vector": vectors}), tmp_path / "numbers.parquet")
    ids, found = read_vectors(tmp_path / "numbers.parquet")
    assert ids == ["7", "5"]
    assert found.tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_items_without_a_vector_are_counted_and_named(tmp_path):
    some = written(tmp_path / "some.parquet", {"b": VECTORS["b"], "a": None})
    with pytest.raises(ValueError, match=r"some\.parquet has no vector for 3 of the 4 items .*: a, c, 007; add them"):
        tower(some)


def test_items_without_a_vector_get_zeros_or_the_mean_where_it_is_asked_for(tmp_path):
    some = written(tmp_path / "some.parquet", {raw: VECTORS[raw] for raw in ("b", "007", "elsewhere")}, pa.float32())
    known = torch.tensor([VECTORS["b"], VECTORS["007"]])
    zero, mean = (tower(some, missing=missing).texts.vectors for missing in (Missing.zero, Missing.mean))
    for vectors in (zero, mean):
        torch.testing.assert_close(vectors[[1, 3]], known)
    assert (zero[[0, 2]] == 0).all()
    torch.testing.assert_close(mean[[0, 2]], known.mean(0).expand(2, -1))


@pytest.mark.parametrize("missing", [Missing.zero, Missing.mean])
@pytest.mark.parametrize("whitens", [False, True])
def test_components_are_those_of_the_items_that_have_a_vector_and_the_others_stand_in_their_middle(
    tmp_path, missing, whitens
):
    ids = [str(row) for row in range(30)]
    numbers = np.random.default_rng(1).normal(3, 1, size=(30, 6)).astype(np.float32)
    some = written(tmp_path / "some.parquet", dict(zip(ids[:20], numbers[:20].tolist(), strict=True)), pa.float32())
    everyone, described = (Catalog(pl.DataFrame({"item_id": ids[:n], "count": [1] * n})) for n in (30, 20))
    whole = TextTable(everyone, Path(some), PCA(4, whitens), missing).vectors
    torch.testing.assert_close(whole[:20], TextTable(described, Path(some), PCA(4, whitens)).vectors)
    torch.testing.assert_close(whole[20:], torch.zeros(10, 4), atol=1e-5, rtol=0)


def test_a_file_of_other_items_is_refused_whatever_is_missing(tmp_path):
    others = written(tmp_path / "others.parquet", {str(place): [1.0, 2.0] for place in range(9)})
    for missing in Missing:
        with pytest.raises(ValueError, match="no vector for 4 of the 4 items"):
            tower(others, missing=missing)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"asin": ["a"], "vector": [[1.0]]}, r"item_id and vector.*; found asin \(string\), vector"),
        ({"item_id": ["a"], "text": ["thing"]}, r"item_id and vector.*; found item_id \(string\), text"),
        ({"item_id": ["a"], "vector": ["thing"]}, r"a list of numbers; found .*vector \(string\)"),
        ({"item_id": ["a"], "vector": [["thing"]]}, r"a list of numbers; found .*vector \(list<element: string>\)"),
        ({"item_id": ["a", "b", "b"], "vector": [[1.0]] * 3}, "has 2 vectors of the item b"),
        ({"item_id": ["a", "b"], "vector": [[1.0], [1.0, 2.0]]}, "vectors of 1 to 2 numbers"),
        ({"item_id": ["a", "b"], "vector": [[1.0], [float("nan")]]}, "not finite, first in the vector of b"),
        ({"item_id": ["a", "b"], "vector": [[1.0], [None]]}, "not finite, first in the vector of b"),
        ({"item_id": [], "vector": pa.array([], pa.list_(pa.float32()))}, "no vector for 4 of the 4 items"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_by_name(tmp_path, columns, words):
    pq.write_table(pa.table(columns), tmp_path / "wrong.parquet")
    with pytest.raises(ValueError, match=rf"wrong\.parquet .*{words}"):
        tower(str(tmp_path / "wrong.parquet"))


def test_a_file_that_is_no_parquet_is_refused_by_name(tmp_path):
    (tmp_path / "wrong.parquet").write_text("a,1.0,2.0\n")
    with pytest.raises(ValueError, match=r"wrong\.parquet must be a Parquet file .*; found something else"):
        tower(str(tmp_path / "wrong.parquet"))


def test_weights_bring_the_vectors_where_the_file_is_absent(tmp_path, file):
    stored = tower(file).eval()
    opened = tower(str(tmp_path / "absent.parquet")).eval()
    opened.load_state_dict(stored.state_dict())
    assert opened.texts.vectors.dtype == torch.float16
    assert torch.equal(opened(), stored())


def test_without_file_and_weights_the_first_use_names_the_file(tmp_path):
    made = tower(str(tmp_path / "absent.parquet"))
    with pytest.raises(FileNotFoundError, match=r"absent\.parquet does not exist"):
        made(torch.tensor([0]))


def test_weights_of_another_number_of_items_are_refused_with_and_without_the_file(tmp_path, file):
    fewer = Catalog(CATALOG.table[:3])
    for path in (file, str(tmp_path / "absent.parquet")):
        with pytest.raises(RuntimeError, match=r"size mismatch for .*vectors"):
            TextTower(fewer, 3, path, hidden_dim=5).load_state_dict(tower(file).state_dict())


@pytest.mark.parametrize("arguments", [{"hidden_dim": 0}, {"dropout": 1.0}])
def test_settings_out_of_range_are_refused(file, arguments):
    ((name, value),) = arguments.items()
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        TextTower(CATALOG, 3, file, **arguments)
