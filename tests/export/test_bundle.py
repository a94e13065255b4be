"""A bundle answers what its recommender answers, and refuses to open when anything in it has changed."""

import json
import random
import shutil
import sys
from dataclasses import replace

import polars as pl
import pytest
import torch
from safetensors.torch import save_file

from seqrec.catalog import Catalog
from seqrec.data.errors import InputError
from seqrec.data.log import Log
from seqrec.data.prepare import prepare_log
from seqrec.data.simulated import SimulatedShop
from seqrec.export import bundle
from seqrec.export.bundle import build_recommender, read_bundle, write_bundle
from seqrec.export.index_kinds import INDEX, KEYS, IndexKind
from seqrec.export.manifest import MANIFEST, SCHEMA_VERSION, write_manifest
from seqrec.export.programs import Format
from seqrec.export.retriever import Retriever
from seqrec.export.users import fingerprint, remember_users
from seqrec.sequences import Sequences

pytest.importorskip("faiss")

RECIPE = {
    "class_path": "seqrec.recommenders.sequential.SequentialRecommender",
    "init_args": {
        "embedding": {"class_path": "seqrec.embeddings.ids.IdEmbedding", "init_args": {"dim": 16}},
        "backbone": {"class_path": "seqrec.backbones.sasrec.SASRec", "init_args": {"dim": 16, "n_heads": 2}},
        "position": {
            "class_path": "seqrec.positions.learned.LearnedPosition",
            "init_args": {"dim": 16, "max_length": 20},
        },
    },
}

GATED = {
    "class_path": "seqrec.recommenders.sequential.SequentialRecommender",
    "init_args": {
        "embedding": {"class_path": "seqrec.embeddings.ids.IdEmbedding", "init_args": {"dim": 8}},
        "backbone": {"class_path": "seqrec.backbones.gru4rec.GRU4Rec", "init_args": {"dim": 8}},
    },
}


def shop(n_items):
    ids = [f"{place:03d}" for place in range(n_items)]
    titles = [f"thing {raw}" for raw in ids]
    return Catalog(pl.DataFrame({"item_id": ids, "title": titles, "count": [1] * n_items}))


def written(folder, catalog, max_length=20):
    torch.manual_seed(0)
    recommender = build_recommender(RECIPE, catalog).eval()
    write_bundle(
        recommender, folder, recipe=RECIPE, config={"seed": 0}, max_length=max_length, metrics={"ndcg@10": 0.1}
    )
    return recommender


@pytest.fixture
def small(tmp_path):
    written(tmp_path / "bundle", shop(60))
    return tmp_path / "bundle"


def test_a_bundle_brings_back_the_same_weights_keys_and_catalog(tmp_path):
    recommender = written(tmp_path / "bundle", shop(60))
    found = read_bundle(tmp_path / "bundle")
    assert found.recommender.catalog.fingerprint == recommender.catalog.fingerprint
    assert found.manifest["metrics"] == {"ndcg@10": 0.1}
    assert found.max_length == 20
    assert torch.equal(found.index.keys, recommender.item_keys())
    for name, weight in recommender.state_dict().items():
        assert torch.equal(found.recommender.state_dict()[name], weight)


@pytest.mark.parametrize("name", [INDEX, bundle.WEIGHTS, bundle.RECIPE, bundle.CATALOG, MANIFEST, "README.md"])
def test_a_changed_byte_and_a_missing_file_are_refused_by_name(small, name):
    content = bytearray((small / name).read_bytes())
    content[len(content) // 2] ^= 1
    (small / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        read_bundle(small)
    (small / name).unlink()
    with pytest.raises(InputError, match=name):
        read_bundle(small)


def test_whoever_may_read_the_manifest_may_read_every_file(small):
    assert len({path.stat().st_mode for path in small.iterdir()}) == 1


def test_a_newer_schema_is_refused(small):
    manifest = json.loads((small / MANIFEST).read_text())
    (small / MANIFEST).write_text(json.dumps(manifest | {"schema_version": SCHEMA_VERSION + 1}))
    with pytest.raises(
        InputError, match=rf"manifest\.json has schema version {SCHEMA_VERSION + 1}, this seqrec reads up to"
    ):
        read_bundle(small)


def test_an_older_bundle_is_replaced_and_other_folders_are_not(tmp_path, small):
    written(small, shop(40))
    assert len(Retriever.load(small).catalog) == 40
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="holds something else than this command writes"):
        written(tmp_path / "mine", shop(40))
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_data_sets_and_bundles_do_not_replace_each_other_although_both_have_a_manifest(tmp_path, small):
    prepare_log(SimulatedShop(users=40, items=50, mean_events=8.0), tmp_path / "data")
    with pytest.raises(InputError, match=r"data holds something else than this command writes \(encoder.yaml is not"):
        written(tmp_path / "data", shop(40))
    with pytest.raises(InputError, match=r"holds something else than this command writes \(offsets.npy is not there"):
        prepare_log(SimulatedShop(users=40, items=50, mean_events=8.0), small)
    assert Log.open(tmp_path / "data").items.size
    assert read_bundle(small)


def test_a_missing_faiss_is_named_with_its_remedy(small, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'seqrec\[cpu\]'"):
        read_bundle(small)


def test_a_recommender_without_keys_is_refused():
    with pytest.raises(InputError, match="Popularity"):
        bundle.build_recommender({"class_path": "seqrec.recommenders.popularity.Popularity"}, shop(5))


def test_two_hundred_changes_of_one_byte_are_all_refused(tmp_path):
    torch.manual_seed(0)
    recommender = build_recommender(RECIPE, shop(60)).eval()
    window = Sequences.pack([[1, 2]])
    users = remember_users(build_recommender(GATED, shop(60)).eval(), [(["ann"], window, window)], GATED)
    write_bundle(
        recommender,
        tmp_path / "bundle",
        recipe=RECIPE,
        config={},
        max_length=20,
        users=replace(users, fingerprint=fingerprint(recommender, RECIPE)),
        index=IndexKind.ivf,
        formats=(Format.torch,),
    )
    read_bundle(tmp_path / "bundle")
    draw = random.Random(0)
    files = sorted((tmp_path / "bundle").iterdir())
    assert {path.name for path in files} >= {"keys.safetensors", "users.safetensors", "encoder.pt2", "README.md"}
    for turn in range(200):
        path = files[turn % len(files)]
        content = bytearray(path.read_bytes())
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        before = path.read_bytes()
        path.write_bytes(content)
        with pytest.raises(InputError, match=path.name):
            read_bundle(tmp_path / "bundle")
        path.write_bytes(before)
    read_bundle(tmp_path / "bundle")


def test_no_file_of_a_bundle_is_a_pickle(small):
    for path in small.iterdir():
        start = path.read_bytes()[:2]
        assert start not in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"), path.name


@pytest.mark.parametrize("name", [INDEX, bundle.WEIGHTS, bundle.CATALOG])
def test_a_file_of_another_bundle_is_refused_by_name_even_with_a_new_seal(tmp_path, small, name):
    written(tmp_path / "other", shop(61))
    shutil.copy(tmp_path / "other" / name, small / name)
    with pytest.raises(InputError, match=rf"{name} differs from what was exported"):
        read_bundle(small)
    fields = json.loads((small / MANIFEST).read_text())
    files = fields.pop("files")
    write_manifest(small, {key: fields[key] for key in fields if key != "checksum"}, files)
    with pytest.raises((InputError, RuntimeError), match=f"{name}|size mismatch"):
        read_bundle(small)


def test_an_older_schema_is_refused(small):
    manifest = json.loads((small / MANIFEST).read_text())
    (small / MANIFEST).write_text(json.dumps(manifest | {"schema_version": 1}))
    with pytest.raises(InputError, match=r"schema version 1, which this seqrec does not read any more"):
        read_bundle(small)


def test_an_export_that_fails_leaves_the_older_bundle_as_it_was(small, monkeypatch):
    before = {path.name: path.read_bytes() for path in small.iterdir()}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundle, "write_manifest", full)
    with pytest.raises(InputError, match="No space left"):
        written(small, shop(40))
    assert {path.name: path.read_bytes() for path in small.iterdir()} == before
    assert {path.name for path in small.parent.iterdir()} == {"bundle", ".bundle.lock"}


def test_the_card_says_what_is_known(tmp_path):
    recommender = build_recommender(RECIPE, shop(60)).eval()
    about = {"model": "SASRec", "data": "shop", "licence": "For research only.", "passport": {"kind": "LeaveOneOut"}}
    rest = {"recipe": RECIPE, "config": {}, "max_length": 20}
    write_bundle(recommender, tmp_path / "known", metrics={"ndcg@10": 0.12345}, about=about, **rest)
    said = (tmp_path / "known" / "README.md").read_text()
    for words in ("# SASRec, trained on shop", "| ndcg@10 | 0.1235 |", "- kind: LeaveOneOut", "For research only."):
        assert words in said
    assert "newest 20 events" in said
    assert "60 items in training" in said
    write_bundle(recommender, tmp_path / "unknown", **rest)
    said = (tmp_path / "unknown" / "README.md").read_text()
    for words in ("there are no figures", "Nobody recorded a protocol", "ask before you share"):
        assert words in said


@pytest.mark.parametrize("times", [1, 3])
def test_a_bundle_that_is_replaced_while_it_is_read_is_never_half_of_each(small, monkeypatch, times):
    load_index, replaced = bundle.load_index, []

    def replacing(*asked):
        if len(replaced) < times:
            replaced.append(build_recommender(RECIPE, shop(60)))
            write_bundle(replaced[-1], small, recipe=RECIPE, config={}, max_length=20)
        return load_index(*asked)

    monkeypatch.setattr(bundle, "load_index", replacing)
    if times == 3:
        with pytest.raises(InputError, match="was replaced 3 times while it was read"):
            read_bundle(small)
        return
    found = read_bundle(small)
    assert torch.equal(found.index.keys, replaced[-1].item_keys())
    assert torch.equal(found.index.keys, found.recommender.item_keys())


def test_a_file_that_the_seal_does_not_name_is_not_read(small):
    keys = read_bundle(small).index.keys.clone()
    save_file({"keys": torch.randn_like(keys)}, small / KEYS)
    assert torch.equal(read_bundle(small).index.keys, keys)
