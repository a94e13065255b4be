"""A bundle opens without the training code, and answers any number of threads alike."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import polars as pl
import pytest
import torch

from seqrec.catalog import Catalog
from seqrec.export.bundle import build_recommender, write_bundle
from seqrec.export.index_kinds import IndexKind
from seqrec.export.retriever import Retriever

pytest.importorskip("faiss")

N, DIM = 1500, 16
EMBEDDING = {"class_path": "seqrec.embeddings.ids.IdEmbedding", "init_args": {"dim": DIM, "init_std": 1.0}}
BACKBONES = ("sasrec.SASRec", "mamba4rec.Mamba4Rec", "gru4rec.GRU4Rec")

LOAD = """
import sys, time
began = time.perf_counter()
from seqrec.export.retriever import Retriever
imported = time.perf_counter() - began
retriever = Retriever.load(sys.argv[1])
assert len(retriever.recommend(["0001"], 5)) == 5
strangers = ("lightning", "pytorch_lightning", "tensorboard", "onnx", "onnxruntime", "huggingface_hub",
             "seqrec.training", "seqrec.objectives", "seqrec.data.datamodule", "seqrec.data.log", "seqrec.cli")
print(sorted(name for name in strangers if name in sys.modules), round(imported, 2))
"""


def written(folder, backbone="sasrec.SASRec", index=IndexKind.flat):
    recipe = {
        "class_path": "seqrec.recommenders.sequential.SequentialRecommender",
        "init_args": {
            "embedding": EMBEDDING,
            "backbone": {"class_path": f"seqrec.backbones.{backbone}", "init_args": {"dim": DIM}},
        },
    }
    catalog = Catalog(pl.DataFrame({"item_id": [f"{row:04d}" for row in range(N)], "count": [1] * N}))
    torch.manual_seed(0)
    write_bundle(build_recommender(recipe, catalog), folder, recipe=recipe, config={}, max_length=30, index=index)
    return folder


def test_a_bundle_is_opened_without_the_training_code(tmp_path):
    asked = [sys.executable, "-c", LOAD, str(written(tmp_path / "bundle"))]
    found = subprocess.run(asked, capture_output=True, text=True, check=True)
    strangers, seconds = found.stdout.strip().rsplit(" ", 1)
    assert strangers == "[]"
    print(f"imported in {seconds} s")  # how fast is measured by experiments/large_bundle.py, not asserted


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("index", [IndexKind.flat, IndexKind.hnsw])
def test_many_threads_get_the_same_answers(tmp_path, backbone, index):
    retriever = Retriever.load(written(tmp_path / "bundle", backbone, index))
    histories = [[f"{(place * step) % N:04d}" for place in range(1, 2 + step % 25)] for step in range(1, 60)]

    def answers(place):
        history = histories[place % len(histories)]
        deny = [f"{place % 7:04d}"] if place % 3 == 0 else ()
        return retriever.recommend(history, 10, deny=deny), retriever.similar(history[0], 5)

    places = range(120)
    alone = [answers(place) for place in places]
    with ThreadPoolExecutor(16) as threads:
        together = list(threads.map(answers, places))
    assert together == alone
