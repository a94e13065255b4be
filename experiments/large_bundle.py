"""What a bundle of a million items costs: recall and speed of its index, load time and memory.

    python experiments/large_bundle.py --items 1000000

The catalogue is simulated: keys in clusters of uneven size, as trained keys are; queries are what the model makes of
short histories. Each query is asked alone, on as many threads as OMP_NUM_THREADS says, as a service asks. Times per
query and request are the processor's, so run it with one thread.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
import torch
from jsonargparse import auto_cli

from seqrec.catalog import Catalog
from seqrec.export.bundle import build_recommender, write_bundle
from seqrec.export.index import faiss
from seqrec.export.index_kinds import IndexKind, load_index
from seqrec.export.samples import some_histories
from seqrec.ops import ranking

HERE = Path(__file__).parent
_LOAD = """
import json, sys, time
import psutil
began = time.perf_counter()
from seqrec.export.retriever import Retriever
imported, imported_processor = time.perf_counter(), time.process_time()
memory = psutil.Process().memory_info
before = memory().rss
retriever = Retriever.load(sys.argv[1])
loaded, loaded_processor = time.perf_counter(), time.process_time()
holds = memory().rss
ids = retriever.catalog.ids[:20].to_list()
first = time.perf_counter()
retriever.recommend(ids, 10)
times = []
for shift in range(50):
    start = time.process_time()
    retriever.recommend(ids[shift % 10 :], 10)
    times.append(time.process_time() - start)
filtered = time.process_time()
retriever.recommend(ids, 10, deny=ids[:3])
print(json.dumps({
    "import_seconds": round(imported - began, 2),
    "import_processor_seconds": round(imported_processor, 2),
    "load_seconds": round(loaded - imported, 2),
    "load_processor_seconds": round(loaded_processor - imported_processor, 2),
    "memory_of_imports_mb": before >> 20,
    "memory_when_loaded_mb": holds >> 20,
    "request_ms": round(1e3 * sorted(times)[25], 2),
    "filtered_request_ms": round(1e3 * (time.process_time() - filtered), 2),
}))
"""


def measure(items: int = 1_000_000, dim: int = 64, index: IndexKind = IndexKind.auto, queries: int = 200) -> None:
    """Write a bundle of so many items, load it in a process of its own, and keep what was measured.

    Args:
        items: size of the simulated catalogue.
        dim: width of the keys.
        index: how the best items are found.
        queries: how many are asked, other ones than those that the index was tuned with.
    """
    recipe = {
        "class_path": "seqrec.recommenders.sequential.SequentialRecommender",
        "init_args": {
            "embedding": {"class_path": "seqrec.embeddings.ids.IdEmbedding", "init_args": {"dim": dim}},
            "backbone": {"class_path": "seqrec.backbones.gru4rec.GRU4Rec", "init_args": {"dim": dim}},
            "scorer": {"class_path": "seqrec.scorers.Cosine"},
        },
    }
    draw = np.random.default_rng(0)
    counts = (1e5 / np.arange(1, items + 1)).astype(np.int64) + 1
    catalog = Catalog(pl.DataFrame({"item_id": [f"item {row}" for row in range(items)], "count": counts}))
    torch.manual_seed(0)
    recommender = build_recommender(recipe, catalog).eval()
    with torch.no_grad():
        recommender.embedding.table.weight.copy_(torch.from_numpy(_clustered(draw, items, dim)))
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        began = time.perf_counter()
        write_bundle(recommender, bundle, recipe=recipe, config={}, max_length=50, index=index)
        written = time.perf_counter() - began
        files = {path.name: path.stat().st_size for path in sorted(bundle.iterdir())}
        report = json.loads((bundle / "manifest.json").read_text())["index"]
        searched = _search(recommender, bundle, report, queries)
        loaded = subprocess.run(
            [sys.executable, "-c", _LOAD, str(bundle)], check=True, capture_output=True, text=True
        ).stdout
    result = {
        "items": items,
        "dim": dim,
        "write_seconds": round(written, 1),
        "bytes": files,
        "index": report,
        "search": searched,
        "load": json.loads(loaded),
        "threads": int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)),
        "load_average": [round(each, 1) for each in os.getloadavg()],
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "versions": {"torch": torch.__version__, "faiss": faiss().__version__},
        "peak_memory_of_writing_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    out = HERE / "results" / "large_bundle.json"
    out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def _clustered(draw: np.random.Generator, items: int, dim: int) -> np.ndarray:
    """Vectors around centres, popular centres having more."""
    n_centres = max(10, items // 500)
    shares = 1 / np.arange(1, n_centres + 1) ** 0.5
    own = draw.choice(n_centres, items, p=shares / shares.sum())
    centres = draw.standard_normal((n_centres, dim), dtype=np.float32)
    return centres[own] + 0.5 * draw.standard_normal((items, dim), dtype=np.float32)


@torch.no_grad()
def _search(recommender, bundle: Path, report: dict, n: int) -> dict:
    """Recall@100 and seconds per query of the index that was written, beside an exact search of the same queries."""
    width = recommender.item_keys(torch.zeros(1, dtype=torch.long)).shape[1]
    index = load_index(bundle, len(recommender.catalog), width, report)
    histories = some_histories(recommender, 50, n, seed=1)
    queries = recommender.queries(histories, histories.newest)

    def quickly(query):
        rows, _ = index.search(query, report["overfetch"] * 132)
        return ranking.best_candidates(query, index.keys, rows, 100)[0]

    def exactly(query):
        return torch.from_numpy(index.flat.search(query.numpy(), 100)[1])

    found, quick_seconds = _timed(quickly, queries)
    exact, exact_seconds = _timed(exactly, queries)
    began = time.process_time()
    index.flat.search(queries.numpy(), 100)
    together = (time.process_time() - began) / n
    return {
        "queries": n,
        "k": 100,
        "recall": round(float((found[:, :, None] == exact[:, None, :]).any(2).float().mean()), 4),
        "ms": round(1e3 * quick_seconds, 3),
        "exact_ms": round(1e3 * exact_seconds, 3),
        "times_as_fast": round(exact_seconds / quick_seconds, 1),
        "exact_ms_in_one_batch": round(1e3 * together, 3),
    }


def _timed(search, queries):
    """What each query finds, asked alone, and the median of the processor's seconds, which a busy machine spares."""
    rows, seconds = [], []
    for query in queries:
        began = time.process_time()
        rows.append(search(query[None]))
        seconds.append(time.process_time() - began)
    return torch.cat(rows), float(np.median(seconds))


if __name__ == "__main__":
    auto_cli(measure)
