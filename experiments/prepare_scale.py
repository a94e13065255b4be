"""Measures how long and with how much memory a large log in random order becomes ready arrays, ours and a peer's.

The log has the shape of MovieLens-20M: 139,000 users, 27,000 items, string ids, Zipf popularity, Parquet, rows in
random order. Every measurement is a process of its own: ``seconds`` counts all of it, ``work_seconds`` leaves out its
imports, and ``peak_gib`` is the largest resident size, interpreter included. Run it alone on the machine:

    python experiments/prepare_scale.py --scratch FOLDER --replay-python PEER/bin/python
    python experiments/prepare_scale.py --scratch FOLDER --rows 100000000 --users 900000 --items 200000
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).parent
OURS = """
import sys, time
from pathlib import Path
from seqrec.data.prepare import prepare_log
from seqrec.data.protocol import LeaveOneOut
from seqrec.data.sources import Table
begin = time.perf_counter()
core = int(sys.argv[3])
log = prepare_log(Table(sys.argv[1]), Path(sys.argv[2]), user_core=core, item_core=core, force=True)
split = LeaveOneOut().split(log)
print(len(log.items), "events,", len(split.test.users), "test targets")
print(time.perf_counter() - begin)
"""
BLOCK = 1_000_000  # rows of one Parquet row group


def main() -> None:
    arguments = parse()
    arguments.scratch.mkdir(parents=True, exist_ok=True)
    shape = {name: getattr(arguments, name) for name in ("rows", "users", "items")}
    log = arguments.scratch / f"log-{'-'.join(str(size) for size in shape.values())}.parquet"
    if not log.exists():
        generate(log, **shape, seed=arguments.seed)
    out = arguments.scratch / "prepared"
    commands = {
        "seqrec": [sys.executable, "-c", OURS, str(log), str(out), "0"],
        "seqrec, iterative 5-core": [sys.executable, "-c", OURS, str(log), str(out), "5"],
    }
    if arguments.replay_python is not None:
        commands["RePlay, polars"] = [arguments.replay_python, str(HERE / "peers" / "replay_prepare.py"), str(log)]
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    for turn in range(arguments.repeats):
        for name, command in commands.items():
            runs[name].append(measure(command, arguments.threads))
            print(f"{name}, run {turn + 1}: {runs[name][-1]}", flush=True)
    shutil.rmtree(out, ignore_errors=True)
    entry = {
        "shape": shape,
        "file_mib": round(log.stat().st_size / 2**20, 1),
        "threads": arguments.threads,
        "cpu": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "polars": pl.__version__,
        "median_seconds": medians(runs, "seconds"),
        "median_work_seconds": medians(runs, "work_seconds"),
        "largest_peak_gib": {name: max(run["peak_gib"] for run in some) for name, some in runs.items()},
        "runs": runs,
    }
    record(arguments.results, str(shape["rows"]), entry)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--scratch", type=Path, required=True, help="folder for the log (kept) and the arrays (removed)"
    )
    parser.add_argument("--rows", type=int, default=15_700_000)
    parser.add_argument("--users", type=int, default=139_000)
    parser.add_argument("--items", type=int, default=27_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each; they take turns")
    parser.add_argument("--threads", type=int, default=2, help="threads of polars, ours and theirs")
    parser.add_argument("--replay-python", help="interpreter of an environment with replay-rec[torch] 0.22")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "prepare_scale.json")
    return parser.parse_args()


def generate(path: Path, rows: int, users: int, items: int, seed: int) -> None:
    """Writes a log in random order: lognormal activity of users, Zipf popularity of items, five years, ratings."""
    random = np.random.default_rng(seed)
    activity = np.cumsum(random.lognormal(0.0, 1.2, users))
    demand = np.cumsum(1.0 / np.arange(1, items + 1) ** 0.9)
    user_ids = pa.array([f"user_{number:07d}" for number in random.permutation(users)])
    item_ids = pa.array([f"item_{number:06d}" for number in random.permutation(items)])
    temporary = path.with_suffix(".tmp")
    schema = pa.schema(
        {"user_id": pa.string(), "item_id": pa.string(), "timestamp": pa.int64(), "rating": pa.float32()}
    )
    with pq.ParquetWriter(temporary, schema) as writer:
        for size in blocks(rows):
            columns = {
                "user_id": user_ids.take(pa.array(drawn(activity, size, random))),
                "item_id": item_ids.take(pa.array(drawn(demand, size, random))),
                "timestamp": random.integers(1_420_000_000, 1_577_000_000, size),
                "rating": (random.integers(1, 11, size) / 2).astype(np.float32),
            }
            writer.write_table(pa.table(columns, schema=schema))
    temporary.replace(path)


def blocks(rows: int) -> Iterator[int]:
    while rows > 0:
        yield min(rows, BLOCK)
        rows -= BLOCK


def drawn(cumulative: np.ndarray, size: int, random: np.random.Generator) -> np.ndarray:
    """Places drawn in proportion to the steps of a cumulative sum."""
    return np.searchsorted(cumulative, random.random(size) * cumulative[-1], side="right")


def measure(command: list[str], threads: int) -> dict[str, float]:
    """Wall time and peak resident memory of a program whose last line of output is its own count of seconds."""
    environment = os.environ | {"POLARS_MAX_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    environment["PYTHONPATH"] = str(HERE.parent) if command[0] == sys.executable else ""
    begin = time.perf_counter()
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        *said, work = process.stdout.read().splitlines() or [""]
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - begin
    if process.returncode:
        raise SystemExit(f"{command[:2]} ended with {process.returncode}.")
    print(*said, sep="\n")
    scale = 1 if platform.system() == "Darwin" else 2**10  # ru_maxrss is in bytes there, in KiB elsewhere
    peak = usage.ru_maxrss * scale / 2**30
    return {"seconds": round(seconds, 2), "work_seconds": round(float(work), 2), "peak_gib": round(peak, 3)}


def medians(runs: dict[str, list[dict[str, float]]], figure: str) -> dict[str, float]:
    return {name: statistics.median(run[figure] for run in some) for name, some in runs.items()}


def record(path: Path, key: str, entry: dict[str, object]) -> None:
    """Puts one size into the results file, other sizes kept."""
    results = json.loads(path.read_text()) if path.exists() else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(results | {key: entry}, indent=2) + "\n")
    temporary.replace(path)


if __name__ == "__main__":
    main()
