"""A bundle answers what its recommender answers, and refuses to open when anything in it has changed."""

import json
import sys

import polars as pl
import pytest
import torch

from seqrec.catalog import Catalog
from seqrec.data.errors import InputError
from seqrec.export import bundle
from seqrec.export.bundle import build_recommender, read_bundle, write_bundle
from seqrec.export.index_kinds import INDEX
from seqrec.export.manifest import MANIFEST, SCHEMA_VERSION
from seqrec.export.retriever import Retriever

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
    with pytest.raises(InputError, match="was not written by seqrec"):
        written(tmp_path / "mine", shop(40))
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_a_missing_faiss_is_named_with_its_remedy(small, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'seqrec\[cpu\]'"):
        read_bundle(small)


def test_a_recommender_without_keys_is_refused():
    with pytest.raises(InputError, match="Popularity"):
        bundle.build_recommender({"class_path": "seqrec.recommenders.popularity.Popularity"}, shop(5))
