"""Items that are added, blocked and removed after training, and a folder that is whole at every moment."""

import errno
import fcntl
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
import onnxruntime
import polars as pl
import pytest
import torch

from seqrec.catalog import Catalog
from seqrec.cli import main
from seqrec.data.errors import InputError
from seqrec.export import bundle as reading
from seqrec.export import changes
from seqrec.export.bundle import build_recommender, write_bundle
from seqrec.export.changes import add_items, block_items, remove_items
from seqrec.export.index_kinds import IndexKind
from seqrec.export.programs import Format
from seqrec.export.retriever import Retriever
from seqrec.export.users import remember_users
from seqrec.sequences import Sequences

pytest.importorskip("faiss")

N, DIM, TEXT = 80, 8, 6


def recipe(embedding):
    return {
        "class_path": "seqrec.recommenders.sequential.SequentialRecommender",
        "init_args": {
            "embedding": embedding,
            "backbone": {"class_path": "seqrec.backbones.gru4rec.GRU4Rec", "init_args": {"dim": DIM}},
        },
    }


def texts(n, seed=0):
    return np.random.default_rng(seed).standard_normal((n, TEXT)).astype(np.float32)


def new_items(path, n=3, width=TEXT, **columns):
    vectors = texts(n, seed=1)[:, :width].tolist()
    table = {"item_id": [f"new {row}" for row in range(n)], "vector": vectors, **columns}
    pl.DataFrame(table).write_parquet(path)
    return path


@pytest.fixture
def bundle(tmp_path):
    """A model that reads texts, with a user whom it remembers; its file of vectors is gone."""
    return written(tmp_path)


def written(tmp_path, formats=()):
    ids = [f"{row:03d}" for row in range(N)]
    catalog = Catalog(
        pl.DataFrame(
            {"item_id": ids, "title": [f"thing {raw}" for raw in ids], "count": [1] * N, "categories": [["old"]] * N}
        )
    )
    vectors = tmp_path / "vectors.parquet"
    pl.DataFrame({"item_id": ids, "vector": texts(N).tolist()}).write_parquet(vectors)
    tower = {"class_path": "seqrec.embeddings.pretrained.TextTower", "init_args": {"vectors": str(vectors), "dim": DIM}}
    torch.manual_seed(0)
    recommender = build_recommender(recipe(tower), catalog).eval()
    past = Sequences.pack([[1, 2, 3]])
    users = remember_users(recommender, [(["ann"], past, past)], recipe(tower))
    write_bundle(
        recommender,
        tmp_path / "bundle",
        recipe=recipe(tower),
        config={},
        max_length=20,
        users=users,
        formats=formats,
    )
    vectors.unlink()
    return tmp_path / "bundle"


def ids_of(answer):
    return [item.item_id for item in answer]


def test_added_items_are_recommended_and_read_in_histories(bundle, tmp_path, capsys):
    before = Retriever.load(bundle)
    assert main(["add-items", "--bundle", str(bundle), str(new_items(tmp_path / "new.parquet"))]) == 0
    assert "3 items added, 83 in all" in capsys.readouterr().out
    retriever = Retriever.load(bundle)
    # A key and an input are what the tower makes of the text, and those of the others are what they were.
    expected = before.recommender.embedding.vectors_of(torch.from_numpy(texts(3, seed=1)))
    torch.testing.assert_close(retriever.index.keys[N:], expected)
    torch.testing.assert_close(retriever.recommender.embedding(torch.tensor([N, N + 2])), expected[[0, 2]])
    assert torch.equal(retriever.index.keys[:N], before.index.keys)
    assert set(ids_of(retriever.recommend(["001"], N + 3))) >= {"new 0", "new 1", "new 2"}
    kept = [raw for raw in ids_of(retriever.recommend(["001"], N + 3)) if not raw.startswith("new")]
    assert kept == ids_of(before.recommend(["001"], N + 3))
    assert ids_of(retriever.recommend(["001", "new 1"], 20)) != ids_of(retriever.recommend(["001", "new 2"], 20))
    assert "new 1" not in ids_of(retriever.recommend(["new 1"], N + 3))
    assert "item 83" not in (bundle / "README.md").read_text()
    assert "3 were added later" in (bundle / "README.md").read_text()


def test_items_are_added_again_and_memories_and_programs_go_on(tmp_path):
    bundle = written(tmp_path, (Format.onnx,))
    add_items(
        bundle, new_items(tmp_path / "new.parquet", title=["a", "b", None], categories=[["fresh"], ["old"], None])
    )
    pl.DataFrame({"item_id": ["late"], "vector": texts(1, seed=2).tolist()}).write_parquet(tmp_path / "late.parquet")
    add_items(bundle, tmp_path / "late.parquet")
    retriever = Retriever.load(bundle)
    assert len(retriever.catalog) == N + 4
    assert retriever.catalog.titles[-4:].to_list() == ["a", "b", "new 2", "late"]
    assert ids_of(retriever.recommend(["001"], 5, categories=["fresh"])) == ["new 0"]
    assert "late" in ids_of(retriever.recommend_user("ann", ["new 1"], N + 4))
    session = onnxruntime.InferenceSession(bundle / "encoder.onnx")
    history = Sequences.pack([[3, N, N + 3]])
    (found,) = session.run(None, {"rows": history.items.numpy()})
    with torch.no_grad():
        expected = retriever.recommender.queries(history, history.newest)[0]
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-4)


def test_categories_in_one_string_are_divided_as_in_preparation(bundle, tmp_path):
    add_items(bundle, new_items(tmp_path / "new.parquet", categories=["fresh | old|", "", None]))
    retriever = Retriever.load(bundle)
    assert retriever.catalog.table["categories"][-3:].to_list() == [["fresh", "old"], [], None]
    assert ids_of(retriever.recommend(["001"], 5, categories=["fresh"])) == ["new 0"]


def test_a_quick_index_takes_new_items_too(tmp_path, bundle):
    opened = Retriever.load(bundle)
    described = recipe(
        {"class_path": "seqrec.embeddings.pretrained.TextTower", "init_args": {"vectors": "gone", "dim": DIM}}
    )
    folder = tmp_path / "quick"
    write_bundle(opened.recommender, folder, recipe=described, config={}, max_length=20, index=IndexKind.ivf)
    add_items(folder, new_items(tmp_path / "new.parquet"))
    retriever = Retriever.load(folder)
    assert retriever.index.quick.ntotal == N + 3
    assert set(ids_of(retriever.recommend(["001"], N + 3))) >= {"new 0", "new 1", "new 2"}


def test_a_model_that_knows_items_by_training_alone_says_why_not(tmp_path, capsys):
    catalog = Catalog(pl.DataFrame({"item_id": ["a", "b"], "count": [1, 1]}))
    described = recipe({"class_path": "seqrec.embeddings.ids.IdEmbedding", "init_args": {"dim": DIM}})
    folder = tmp_path / "ids"
    write_bundle(build_recommender(described, catalog), folder, recipe=described, config={}, max_length=20)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert main(["add-items", f"--bundle={folder}", str(new_items(tmp_path / "new.parquet"))]) == 2
    assert "IdEmbedding knows an item only by its training" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_files_of_new_items_that_cannot_be_used_are_refused(bundle, tmp_path):
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    path = tmp_path / "new.parquet"
    with pytest.raises(InputError, match="does not exist"):
        add_items(bundle, path)
    with pytest.raises(InputError, match="vectors of 4 numbers, the model was trained on vectors of 6"):
        add_items(bundle, new_items(path, width=4))
    for table, complaint in (
        ({"item": ["x"], "vector": [[0.0] * TEXT]}, "no column item_id"),
        ({"item_id": ["001"], "vector": [[0.0] * TEXT]}, "'001', which is in the bundle or was"),
        ({"item_id": ["x", "x"], "vector": [[0.0] * TEXT] * 2}, "'x' twice"),
        ({"item_id": ["x"], "vector": ["text"]}, "list of numbers"),
        ({"item_id": ["x", "y"], "vector": [[0.0] * TEXT, None]}, "for every item"),
        ({"item_id": ["x"], "vector": [[float("nan")] * TEXT]}, "finite"),
        ({"item_id": ["x"], "vector": [[0.0] * TEXT], "title": [7]}, "a text in the column title; found Int64"),
        ({"item_id": ["x"], "vector": [[0.0] * TEXT], "categories": [[7]]}, "a list of words in the column categories"),
        ({"item_id": ["x"], "vector": [[0.0] * TEXT], "categories": [7]}, "a list of words in the column categories"),
    ):
        pl.DataFrame(table).write_parquet(path)
        with pytest.raises(InputError, match=complaint):
            add_items(bundle, path)
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before


def test_blocked_items_never_come_until_they_are_allowed_again(bundle):
    best = ids_of(Retriever.load(bundle).recommend(["001"], 3))
    block_items(bundle, f"{best[0]},{best[1]}")
    retriever = Retriever.load(bundle)
    assert retriever.blocked == set(best[:2])
    assert ids_of(retriever.recommend(["001"], 1)) == [best[2]]
    assert not set(best[:2]) & set(ids_of(retriever.recommend_user("ann", k=N)))
    block_items(bundle, best[0], undo=True)
    assert ids_of(Retriever.load(bundle).recommend(["001"], 2)) == [best[0], best[2]]
    with pytest.raises(InputError, match="'nonsense' is not an item of"):
        block_items(bundle, "nonsense")


def test_removed_items_are_gone_for_good(bundle, tmp_path):
    add_items(bundle, new_items(tmp_path / "new.parquet"))
    block_items(bundle, "002,005")
    remove_items(bundle, "005,new 1")
    retriever = Retriever.load(bundle)
    assert retriever.blocked == {"002"}
    assert not {"002", "005", "new 1"} & set(ids_of(retriever.recommend(["001"], N + 3)))
    with pytest.warns(UserWarning, match="skipped: 005"):
        answer = retriever.recommend(["001", "005"])
    assert answer == retriever.recommend(["001"])
    with pytest.raises(InputError, match="'new 1' is not in the catalog"):
        retriever.similar("new 1")
    with pytest.raises(InputError, match="which is in the bundle or was"):
        add_items(bundle, tmp_path / "new.parquet")


def test_a_change_that_fails_leaves_the_bundle_as_it_was(bundle, monkeypatch):
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("seqrec.export.changes.write_manifest", full)
    with pytest.raises(InputError, match="No space left"):
        block_items(bundle, "001")
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before
    assert Retriever.load(bundle).blocked == set()


@pytest.mark.parametrize("other", ["block", "export"])
def test_who_changes_a_bundle_waits_for_who_began_before(bundle, monkeypatch, other):
    write_manifest, began, goes_on = changes.write_manifest, threading.Event(), threading.Event()

    def slowly(*told):
        began.set()
        goes_on.wait(20)
        write_manifest(*told)

    def export():
        described = recipe({"class_path": "seqrec.embeddings.ids.IdEmbedding", "init_args": {"dim": DIM}})
        catalog = Retriever.load(bundle).catalog
        write_bundle(build_recommender(described, catalog), bundle, recipe=described, config={}, max_length=20)

    monkeypatch.setattr(changes, "write_manifest", slowly)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(block_items, bundle, "001")
        assert began.wait(20)
        second = pool.submit(export) if other == "export" else pool.submit(block_items, bundle, "002")
        assert not wait([second], timeout=1).done
        goes_on.set()
        first.result(), second.result()
    assert Retriever.load(bundle).blocked == ({"001"} if other == "export" else {"001", "002"})


def test_a_folder_that_is_no_bundle_is_left_alone(tmp_path):
    with pytest.raises(InputError, match="is not a bundle"):
        block_items(tmp_path / "some" / "typo", "001")
    assert not list(tmp_path.iterdir())


def test_what_was_withdrawn_stays_so_when_the_bundle_is_exported_again(tmp_path):
    bundle = written(tmp_path)
    block_items(bundle, "003,004,005")
    remove_items(bundle, "006,007")
    catalog = Catalog(Retriever.load(bundle).catalog.table.filter(~pl.col("item_id").is_in(["005", "007"])))
    described = recipe({"class_path": "seqrec.embeddings.ids.IdEmbedding", "init_args": {"dim": DIM}})
    for _ in range(2):
        write_bundle(build_recommender(described, catalog), bundle, recipe=described, config={}, max_length=20)
        retriever = Retriever.load(bundle)
        assert retriever.blocked == {"003", "004"}
        assert not {"003", "004", "006"} & set(ids_of(retriever.recommend(["001"], N)))
        assert retriever.rows(["003", "006"])[1] == ["006"]
    block_items(bundle, "003,004", undo=True)
    (bundle / "withdrawn.json").write_text("{")
    with pytest.raises(InputError, match="nobody knows which items are blocked"):
        write_bundle(build_recommender(described, catalog), bundle, recipe=described, config={}, max_length=20)


EMBEDDINGS = ("TextTower", "FrozenText", "TextInitialised")


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_a_bundle_is_read_whatever_became_of_the_file_of_vectors(tmp_path, name):
    ids = [f"{row:03d}" for row in range(N)]
    catalog = Catalog(pl.DataFrame({"item_id": ids, "title": ids, "count": [1] * N}))
    path = tmp_path / "vectors.parquet"

    def vectors(n, width):
        numbers = np.random.default_rng(0).standard_normal((n, width)).astype(np.float32)
        pl.DataFrame({"item_id": ids[:n], "vector": numbers.tolist()}).write_parquet(path)

    vectors(N, 12)
    described = recipe({"class_path": f"seqrec.embeddings.pretrained.{name}", "init_args": {"vectors": str(path)}})
    described["init_args"]["embedding"]["init_args"]["dim"] = DIM
    write_bundle(build_recommender(described, catalog), tmp_path / "bundle", recipe=described, config={}, max_length=20)
    wanted = Retriever.load(tmp_path / "bundle").recommend(["001"], 20)
    for n, width in ((N, 16), (N - 1, 12)):  # another encoder; an item is gone
        vectors(n, width)
        assert Retriever.load(tmp_path / "bundle").recommend(["001"], 20) == wanted


def test_where_there_are_no_locks_nobody_changes_a_bundle(bundle, monkeypatch):
    """A lock that the system does not know would outlive who had it."""

    def refuse(descriptor, operation):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(InputError, match="could not be locked"):
        block_items(bundle, "002")


def test_a_bundle_behind_a_link_is_changed_where_it_lies(bundle, tmp_path):
    link = tmp_path / "current"
    link.symlink_to(bundle)
    block_items(link, "001")
    assert link.is_symlink()
    assert Retriever.load(bundle).blocked == Retriever.load(link).blocked == {"001"}
    assert {path.name for path in tmp_path.iterdir()} == {"bundle", ".bundle.lock", "current"}


def test_a_bundle_whose_change_was_killed_midway_comes_back_with_what_it_had_blocked(bundle):
    block_items(bundle, "001")
    nobody = subprocess.Popen([sys.executable, "-c", ""])
    nobody.wait()
    bundle.rename(bundle.with_name(f"bundle.old-{nobody.pid}"))
    block_items(bundle, "002")
    assert Retriever.load(bundle).blocked == {"001", "002"}
    assert {path.name for path in bundle.parent.iterdir()} == {"bundle", ".bundle.lock"}


@pytest.mark.parametrize("pid", [os.getpid(), os.getppid()], ids=["one's own", "that of another"])
def test_what_someone_killed_under_a_number_that_is_in_use_left_behind_is_taken_up(bundle, pid):
    block_items(bundle, "001")
    bundle.rename(bundle.with_name(f"bundle.old-{pid}"))
    bundle.with_name(f"bundle.tmp-{pid}").mkdir()
    block_items(bundle, "002")
    assert Retriever.load(bundle).blocked == {"001", "002"}
    assert {path.name for path in bundle.parent.iterdir()} == {"bundle", ".bundle.lock"}


def test_a_bundle_that_cannot_take_its_place_leaves_the_older_one_there(bundle, monkeypatch):
    rename = Path.rename

    def refused(path, target):
        if ".tmp-" in path.name:
            raise OSError(errno.ENOTEMPTY, "Directory not empty")
        return rename(path, target)

    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(InputError, match="could not be written"):
        block_items(bundle, "001")
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before


@pytest.mark.parametrize("when", ["while its files are compared", "between two renames"])
def test_a_bundle_that_is_replaced_while_it_is_read_is_read_again(bundle, monkeypatch, when):
    compared, calls = reading.read_manifest, []

    def replaced(folder):
        if not calls:
            calls.append(folder)
            if when == "between two renames":
                raise InputError("not there for a moment")
            block_items(bundle, "001")
            raise InputError("index.faiss differs from what was exported.")
        return compared(folder)

    if when == "between two renames":
        fields = iter([None])
        now = reading._fields_now
        monkeypatch.setattr(reading, "_fields_now", lambda folder: next(fields, 0) if not calls else now(folder))
    monkeypatch.setattr(reading, "read_manifest", replaced)
    assert Retriever.load(bundle).blocked == (set() if when == "between two renames" else {"001"})


def test_a_file_that_is_broken_is_still_named(bundle):
    (bundle / "catalog.parquet").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"catalog.parquet differs from what was exported"):
        Retriever.load(bundle)
