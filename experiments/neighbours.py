"""Times the exact search for the 20 nearest neighbours of 200,000 prefixes with 384 numbers each, users kept apart.

The prefixes are the training prefixes of a prepared data set, each the mean of the text vectors of its newest 20 items.
A sample is compared with a search through everything. The same search is timed on random vectors without any structure,
fewer of them, where no bound saves work. Run it alone on the machine:

    OMP_NUM_THREADS=2 python experiments/neighbours.py --prepared data/prepared/yelp --vectors minilm.parquet
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from seqrec.data.log import Log
from seqrec.data.prefixes import Granularity, Pool
from seqrec.run_subjects import histories_of, split_of
from seqrec.semantics.encoders import MeanOfItems
from seqrec.semantics.neighbours import nearest
from seqrec.semantics.writers import Work

K, SAMPLE, RANDOM = 20, 1000, 20_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prepared", type=Path, required=True, help="prepared data set")
    parser.add_argument("--vectors", type=Path, required=True, help="text vectors of its items")
    parser.add_argument("--rows", type=int, default=200_000, help="how many prefixes")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "neighbours.json")
    options = parser.parse_args()
    vectors, users = prefixes(options.prepared, options.vectors, options.rows)
    begun, waited = time.perf_counter(), time.process_time()
    rows = nearest(vectors, K, users)
    seconds, processor = time.perf_counter() - begun, time.process_time() - waited
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    noise = np.random.default_rng(0).normal(size=(RANDOM, vectors.shape[1])).astype(np.float32)
    begun = time.perf_counter()
    nearest(noise, K)
    unstructured = time.perf_counter() - begun
    result = {
        "data": options.prepared.name,
        "prefixes": len(vectors),
        "dim": vectors.shape[1],
        "k": K,
        "seconds": round(seconds, 1),
        "processor_seconds": round(processor, 1),
        "peak_gib": round(peak, 2),
        "largest_difference_of_a_kth_cosine": difference(vectors, users, rows),
        "sample": SAMPLE,
        "random_vectors": {"rows": RANDOM, "seconds": round(unstructured, 1)},
        "machine": {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "system": platform.machine()},
        "load_when_done": os.getloadavg()[0],
    }
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def prefixes(prepared: Path, items: Path, n_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean vectors of prefixes and the users that they belong to."""
    log = Log.open(prepared)
    histories = histories_of(log, split_of(log, None)[0], Pool.training, Granularity.prefix, 20, n_rows)
    with tempfile.TemporaryDirectory() as store:
        vectors, _ = MeanOfItems(items).vectors(histories, list, Work(Path(store)))
    return vectors, histories.ids["user_id"].rank("dense").to_numpy().astype(np.int64)


def difference(vectors: np.ndarray, users: np.ndarray, rows: np.ndarray) -> float:
    """How much a k-th cosine of a sample falls short of, or exceeds, that of a search through everything."""
    sample = np.random.default_rng(0).choice(len(vectors), SAMPLE, replace=False)
    unit = torch.nn.functional.normalize(torch.from_numpy(vectors.astype(np.float32)), dim=1)
    cosines = unit[sample] @ unit.T
    cosines[torch.from_numpy(users[sample, None] == users)] = -2
    best = cosines.topk(K, dim=1).values
    found = cosines.gather(1, torch.from_numpy(rows[sample].astype(np.int64)))
    return float((best - found).abs().max())


if __name__ == "__main__":
    main()
