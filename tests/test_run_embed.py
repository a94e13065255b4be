"""`seqrec embed` and `seqrec neighbours`: a folder that others read, of the right rows, with its record."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from seqrec.cli import main
from seqrec.data.log import Log
from seqrec.data.prepare import prepare, prepare_log
from seqrec.data.protocol import LeaveOneOut
from seqrec.data.simulated import SimulatedShop
from seqrec.data.supervision import EveryPrefix
from seqrec.semantics.neighbours import Neighbours
from seqrec.semantics.vector_files import read_vectors
from seqrec.semantics.vectors import Vectors

HASHING = "--encoder=seqrec.semantics.encoders.HashingEncoder"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("embed") / "shop"
    prepare_log(SimulatedShop(users=40, items=50, mean_events=12.0), folder)
    return folder


def run(folder: Path, prepared: Path, *words: str, out: str = "out") -> Vectors:
    given = [f"--data={prepared}", f"--out={folder / out}", f"--store={folder / 'store'}"]
    assert main([*words[:2], *given, *words[2:]]) == 0
    return Vectors.open(folder / out)


def test_items_stand_in_the_order_of_the_catalog(prepared, tmp_path, capsys):
    made = run(tmp_path, prepared, "embed", "items", HASHING, "--encoder.dim=32")
    log = Log.open(prepared)
    assert made.ids["item_id"].to_list() == log.catalog.ids.to_list()
    assert made.vectors.shape == (len(log.catalog), 32)
    wanted = {"kind": "items", "text_source": "template", "dataset": log.manifest["fingerprint"], "limit": None}
    assert wanted.items() <= made.manifest.items()
    assert {"encoder", "pooling", "prompt_version", "target_hash", "fingerprint"} <= made.manifest.keys()
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["ids.parquet", "manifest.json", "vectors.npy"]
    assert "of texts by template" in capsys.readouterr().out


def test_a_try_does_not_take_the_place_of_all_vectors(prepared, tmp_path, capsys):
    whole = run(tmp_path, prepared, "embed", "items", HASHING)
    given = [f"--data={prepared}", f"--out={tmp_path / 'out'}", f"--store={tmp_path / 'store'}", HASHING, "--limit=3"]
    assert main(["embed", "items", *given]) == 2
    assert "holds vectors that were made without --limit; try with another --out" in capsys.readouterr().err
    assert len(Vectors.open(tmp_path / "out")) == len(whole)


def test_vectors_of_histories_do_not_take_the_place_of_those_of_items(prepared, tmp_path, capsys):
    whole = run(tmp_path, prepared, "embed", "items", HASHING)
    given = [f"--data={prepared}", f"--out={tmp_path / 'out'}", f"--store={tmp_path / 'store'}", HASHING]
    assert main(["embed", "histories", *given]) == 2
    assert "holds vectors of items, and these are of histories; choose" in " ".join(capsys.readouterr().err.split())
    assert len(Vectors.open(tmp_path / "out")) == len(whole)


@pytest.mark.parametrize(("kind", "encoder"), [("items", "VectorFile"), ("histories", "MeanOfItems")])
def test_a_dry_run_says_that_a_file_is_not_there(prepared, tmp_path, capsys, kind, encoder):
    told = [f"--encoder=seqrec.semantics.encoders.{encoder}", f"--encoder.path={tmp_path / 'nowhere.npy'}"]
    assert main(["embed", kind, f"--data={prepared}", f"--out={tmp_path / 'out'}", *told, "--dry_run=true"]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_a_store_is_no_file(prepared, tmp_path, capsys):
    (tmp_path / "file").touch()
    given = [f"--data={prepared}", f"--out={tmp_path / 'out'}", f"--store={tmp_path / 'file'}", HASHING]
    assert main(["embed", "items", *given]) == 2
    assert "is a file, and a store is a folder; name another --store" in " ".join(capsys.readouterr().err.split())


def test_what_an_encoder_lacks_is_named_as_it_must_be_given(prepared, tmp_path, capsys):
    encoder = "--encoder=seqrec.semantics.encoders.MeanOfItems"
    assert main(["embed", "histories", f"--data={prepared}", f"--out={tmp_path / 'out'}", encoder]) == 2
    assert "needs encoder.path; give --encoder.path" in capsys.readouterr().err


def test_texts_that_are_raw_ids_are_told_of(tmp_path, capsys):
    lines = [f"u{user},i{(user + step) % 9},{step}" for user in range(12) for step in range(5)]
    (tmp_path / "log.csv").write_text("\n".join(["user_id,item_id,timestamp", *lines]))
    prepare(str(tmp_path / "log.csv"), out=tmp_path / "data", user_core=0, item_core=0)
    run(tmp_path, tmp_path / "data", "embed", "items", HASHING)
    assert "warning: No item of this data set has a title or categories" in capsys.readouterr().err


def test_histories_are_the_training_prefixes_of_the_default_protocol(prepared, tmp_path):
    made = run(tmp_path, prepared, "embed", "histories", HASHING)
    log = Log.open(prepared)
    split = LeaveOneOut().split(log)
    rows = EveryPrefix().rows(split.train, None)
    assert made.ids["user_id"].to_list() == [log.users[user] for user in rows.users.tolist()]
    assert made.ids["n_events"].to_list() == (rows.lengths - 1).tolist()
    assert made.manifest["target_hash"] == split.passport["target_hash"]
    assert (made.manifest["pool"], made.manifest["leaky"]) == ("training", False)
    few = run(tmp_path, prepared, "embed", "histories", HASHING, "--limit=5", out="few")
    assert few.ids.equals(made.ids.head(5))
    assert np.array_equal(few.vectors, made.vectors[:5])


def test_written_texts_are_embedded_and_named(prepared, tmp_path, service, capsys):
    writer = ["--writer=seqrec.semantics.writers.ChatWriter", f"--writer.service.base_url={service.url}"]
    given = [f"--data={prepared}", f"--out={tmp_path / 'texts'}", f"--store={tmp_path / 'store'}"]
    assert main(["describe", "items", *given, *writer, "--writer.service.model=small"]) == 0
    hosted = ["--encoder=seqrec.semantics.hosted.HostedEncoder", f"--encoder.service.base_url={service.url}"]
    hosted += ["--encoder.service.model=vectors", f"--texts={tmp_path / 'texts'}"]
    made = run(tmp_path, prepared, "embed", "items", *hosted)
    embedded = [text for each in service.asked if each["path"].endswith("embeddings") for text in each["body"]["input"]]
    assert all(text.startswith("Written of") for text in embedded)
    assert made.manifest["text_source"] == "LLM small"
    assert made.manifest["prompt_version"].startswith("items-1@")
    assert made.manifest["encoder"]["model"] == "vectors"
    before = len(service.asked)
    again = run(tmp_path, prepared, "embed", "items", *hosted)
    assert len(service.asked) == before
    assert again.manifest["fingerprint"] == made.manifest["fingerprint"]
    # Texts of other things, or of fewer, are refused.
    assert main(["describe", "items", *given, "--limit=3"]) == 0
    place = [f"--data={prepared}", f"--out={tmp_path / 'out'}", f"--texts={tmp_path / 'texts'}"]
    assert main(["embed", "items", *place, HASHING]) == 2
    assert "has no text for" in capsys.readouterr().err
    assert main(["embed", "histories", *place, f"--out={tmp_path / 'histories'}", HASHING]) == 2
    assert "name texts on the histories" in capsys.readouterr().err


def test_texts_that_quote_histories_serve_their_own_protocol_alone(prepared, tmp_path, service, capsys):
    """What one protocol trains on, another may test on."""
    later = "--protocol=seqrec.data.protocol.GlobalTimeSplit"
    given = [f"--data={prepared}", f"--out={tmp_path / 'texts'}", f"--store={tmp_path / 'store'}"]
    writer = ["--writer=seqrec.semantics.writers.ChatWriter", f"--writer.service.base_url={service.url}"]
    writer += ["--writer.service.model=small"]
    texts = f"--texts={tmp_path / 'texts'}"
    place = [f"--data={prepared}", f"--out={tmp_path / 'other'}", f"--store={tmp_path / 'store'}"]
    assert main(["describe", "items", *given, *writer]) == 0
    run(tmp_path, prepared, "embed", "items", HASHING, texts)
    assert main(["embed", "items", *place, HASHING, texts, later]) == 2
    assert "quote histories of another training part" in capsys.readouterr().err
    # Vectors that are made of such vectors know where they come from.
    by_path = f"--encoder.path={tmp_path / 'out'}"
    for kind, encoder, out in (("items", "VectorFile", "copies"), ("histories", "MeanOfItems", "means")):
        named = f"--encoder=seqrec.semantics.encoders.{encoder}"
        assert run(tmp_path, prepared, "embed", kind, named, by_path, out=out).manifest["quotes"] == 5
        assert main(["embed", kind, *place, named, by_path, later]) == 2
        assert "quote histories of another training part" in capsys.readouterr().err
    # A text that quotes nobody serves everyone.
    for nobody in ([*writer, "--quotes=0"], []):
        assert main(["describe", "items", *given, *nobody]) == 0
        run(tmp_path, prepared, "embed", "items", HASHING, texts, later)


def test_a_file_of_item_vectors_becomes_items_and_means_of_histories(prepared, tmp_path):
    log = Log.open(prepared)
    numbers = np.random.default_rng(0).normal(size=(len(log.catalog), 6)).astype(np.float32)
    pl.DataFrame({"item_id": log.catalog.ids, "vector": numbers}).reverse().write_parquet(tmp_path / "v.parquet")
    by_path = f"--encoder.path={tmp_path / 'v.parquet'}"
    items = run(tmp_path, prepared, "embed", "items", "--encoder=seqrec.semantics.encoders.VectorFile", by_path)
    assert np.array_equal(items.vectors, numbers)
    assert np.array_equal(read_vectors(tmp_path / "out")[1], numbers)
    mean, folder = "--encoder=seqrec.semantics.encoders.MeanOfItems", f"--encoder.path={tmp_path / 'out'}"
    made = run(tmp_path, prepared, "embed", "histories", mean, folder, "--encoder.half=false", out="means")
    users = {raw: user for user, raw in enumerate(log.users)}
    for (user, n_events), vector in list(zip(made.ids.rows(), made.vectors, strict=True))[::17]:
        start = int(log.offsets[users[user]])
        np.testing.assert_allclose(vector, numbers[log.items[start : start + n_events][-20:]].mean(0), atol=1e-5)
    assert made.manifest["encoder"]["name"] == "mean of item vectors"
    assert (made.manifest["text_source"], made.manifest["window"]) == ("none", None)


def test_items_whose_texts_cannot_be_told_apart_are_counted(prepared, tmp_path, capsys):
    log = Log.open(prepared)
    numbers = np.eye(len(log.catalog), dtype=np.float32)
    numbers[3] = numbers[8] = numbers[5]
    numbers[1] = numbers[2]
    pl.DataFrame({"item_id": log.catalog.ids, "vector": numbers}).write_parquet(tmp_path / "v.parquet")
    by_path = ("--encoder=seqrec.semantics.encoders.VectorFile", f"--encoder.path={tmp_path / 'v.parquet'}")
    assert run(tmp_path, prepared, "embed", "items", *by_path).manifest["alike"] == 5
    assert "; 5 equal another and cannot be told apart by text." in capsys.readouterr().out


def test_a_window_is_refused_where_no_text_is_read(prepared, tmp_path, capsys):
    assert run(tmp_path, prepared, "embed", "histories", HASHING, "--window=5").manifest["window"] == 5
    mean = ["--encoder=seqrec.semantics.encoders.MeanOfItems", "--encoder.path=v.parquet", "--window=5"]
    assert main(["embed", "histories", f"--data={prepared}", f"--out={tmp_path / 'means'}", *mean]) == 2
    said = capsys.readouterr().err
    assert "--window 5" in said
    assert "MeanOfItems reads no texts; leave it out, or set MeanOfItems' own option newest" in said


def test_neighbours_of_a_history_are_of_other_users(prepared, tmp_path, capsys):
    made = run(tmp_path, prepared, "embed", "histories", HASHING)
    assert main(["neighbours", f"--vectors={tmp_path / 'out'}", "-k", "7"]) == 0
    assert "7 neighbours of each of" in capsys.readouterr().out
    found = Neighbours.open(tmp_path / "out")
    users = made.ids["user_id"].to_numpy()
    assert found.rows.shape == (len(made), 7)
    assert (found.rows >= 0).all()
    assert not (users[found.rows] == users[:, None]).any()
    assert found.manifest["fingerprint"] == made.manifest["fingerprint"]
    # Without the groups, most have a prefix of the same user among the nearest: the exclusion does something.
    unit = made.vectors.astype(np.float32)
    cosines = unit @ unit.T - 9 * np.eye(len(unit))
    assert (users[cosines.argmax(1)] == users).mean() > 0.3


def test_as_in_the_released_code_neighbours_may_be_of_the_same_user_and_are_called_leaky(prepared, tmp_path, capsys):
    made = run(tmp_path, prepared, "embed", "histories", HASHING, "--pool=official")
    asked = ["neighbours", f"--vectors={tmp_path / 'out'}", "-k", "7", "--same_user=true"]
    assert main(asked) == 0
    assert "leaky: neighbours may be of the same user" in capsys.readouterr().out
    found, users = Neighbours.open(tmp_path / "out"), made.ids["user_id"].to_numpy()
    assert (found.rows != np.arange(len(made))[:, None]).all()
    assert (users[found.rows[:, 0]] == users).mean() > 0.3
    assert (found.manifest["groups"], found.manifest["same_user"]) == (None, True)
    run(tmp_path, prepared, "embed", "items", HASHING, out="items")
    assert main(["neighbours", f"--vectors={tmp_path / 'items'}", "--same_user=true"]) == 2
    assert "belong to no user; leave --same_user out" in capsys.readouterr().err


def test_neighbours_of_items_leave_out_the_item_alone_and_new_vectors_forget_them(prepared, tmp_path):
    made = run(tmp_path, prepared, "embed", "items", HASHING)
    assert main(["neighbours", f"--vectors={tmp_path / 'out'}", "-k", str(len(made))]) == 0
    rows = Neighbours.open(tmp_path / "out").rows
    for row, found in enumerate(rows.tolist()):
        assert sorted(found[:-1]) == [other for other in range(len(made)) if other != row]
        assert found[-1] == -1
    run(tmp_path, prepared, "embed", "items", HASHING, "--encoder.dim=8")
    with pytest.raises(FileNotFoundError, match="seqrec neighbours"):
        Neighbours.open(tmp_path / "out")


def test_the_leaky_pool_says_so_everywhere(prepared, tmp_path, capsys):
    made = run(tmp_path, prepared, "embed", "histories", HASHING, "--pool=official")
    assert main(["neighbours", f"--vectors={tmp_path / 'out'}", "-k", "3"]) == 0
    assert made.manifest["leaky"] is True
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2
    assert all("leaky" in line for line in said)


def test_a_folder_of_something_else_is_not_overwritten(prepared, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    assert main(["embed", "items", f"--data={prepared}", f"--out={tmp_path / 'out'}", HASHING]) == 2
    assert "holds something else than this command writes" in capsys.readouterr().err
    assert (tmp_path / "out" / "thesis.txt").read_text() == "mine"
    mean = ["--encoder=seqrec.semantics.encoders.MeanOfItems", "--encoder.path=v.parquet", "--texts=texts"]
    assert main(["embed", "items", f"--data={prepared}", f"--out={tmp_path / 'other'}", *mean]) == 2
    assert "MeanOfItems reads no texts" in capsys.readouterr().err


@pytest.mark.real
def test_means_of_the_real_vectors_of_amazon_beauty(real_data, tmp_path):
    raw, prepared = real_data / "amazon-beauty", tmp_path / "prepared"
    assert main(["prepare", "amazon-beauty", f"--raw={raw}", f"--out={prepared}"]) == 0
    mean = ["--encoder=seqrec.semantics.encoders.MeanOfItems", f"--encoder.path={raw / 'minilm.parquet'}"]
    made = run(tmp_path, prepared, "embed", "histories", *mean)
    assert made.vectors.shape == (131_413, 384)
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["rows"] == 131_413
