"""Loads the real service with a real load generator, beside a plain loop that answers one request at a time.

The service runs as `seqrec serve` in a process of its own on loopback. wrk asks it on 1, 16 and 64 connections at once,
each of which sends its next request when the last is answered. See experiments/README.md for the command.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import requests
import torch
from prepare_scale import record

from seqrec.export.retriever import Retriever

HERE = Path(__file__).parent
CLIENTS = (1, 16, 64)
# Every answer that is not 200 counts as an error, and so does every connection that breaks.
SCRIPT = """
local bodies, n = {}, 0
for line in io.lines("%s") do bodies[#bodies + 1] = line end
request = function()
  n = n %% #bodies + 1
  return wrk.format("POST", "/recommend", {["Content-Type"] = "application/json"}, bodies[n])
end
done = function(summary, latency)
  local e = summary.errors
  local ms = function(share) return latency:percentile(share) / 1000 end
  io.write(string.format("TOLD %%f %%f %%f %%d %%d %%d\\n", ms(50), ms(99),
    latency.max / 1000, summary.requests, summary.duration, e.connect + e.read + e.write + e.status + e.timeout))
end
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True, help="folder that `seqrec export` wrote")
    parser.add_argument("--seconds", type=int, default=60, help="of load for each number of clients")
    parser.add_argument("--threads", type=int, default=1, help="that the model may use, here and in the loop")
    parser.add_argument("--name", default="cpu", help="under which the figures are kept")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "service.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        histories = some_histories(options.bundle, 2_000)
        script = written(Path(scratch), histories)
        entry = {
            "bundle": options.bundle.name,
            "seconds": options.seconds,
            "threads": options.threads,
            "cores": os.cpu_count(),
            "torch": torch.__version__,
            "plain_loop": plain_loop(options.bundle, histories, options.threads, min(options.seconds, 10)),
            "clients": loaded(options.bundle, Path(scratch), script, options.seconds, options.threads),
        }
    record(options.results, options.name, entry)
    print(json.dumps(entry, indent=2))


def some_histories(bundle: Path, n: int) -> list[list[str]]:
    """Random items, as many as a person of Amazon Beauty has: 2 to 20, most have few."""
    draw, ids = random.Random(0), Retriever.load(bundle).catalog.ids.to_list()
    return [draw.choices(ids, k=min(20, 2 + int(draw.expovariate(1 / 6)))) for _ in range(n)]


def written(scratch: Path, histories: list[list[str]]) -> Path:
    bodies, script = scratch / "bodies.txt", scratch / "load.lua"
    bodies.write_text("\n".join(json.dumps({"histories": [history]}) for history in histories))
    script.write_text(SCRIPT % bodies)
    return script


def plain_loop(bundle: Path, histories: list[list[str]], threads: int, seconds: float) -> dict[str, float]:
    """The same model asked by a loop in the same process, one history after the other, without HTTP."""
    torch.set_num_threads(threads)
    retriever = Retriever.load(bundle)
    taken: list[float] = []
    with others() as busy:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            began = time.perf_counter()
            retriever.recommend(histories[len(taken) % len(histories)])
            taken.append(time.perf_counter() - began)
    taken.sort()
    return {
        "p50_ms": 1000 * taken[len(taken) // 2],
        "p99_ms": 1000 * taken[int(0.99 * len(taken))],
        "requests_per_second": len(taken) / sum(taken),
        **busy,
    }


def loaded(bundle: Path, scratch: Path, script: Path, seconds: int, threads: int) -> dict[int, dict[str, float]]:
    figures = {}
    with service(bundle, scratch, threads) as (process, url):
        generate(script, url, 16, 3)  # warm
        for clients in CLIENTS:
            before, batches = process.memory_info().rss, batched(url)
            spent = sum(process.cpu_times()[:2])
            with others(process) as busy:
                told = generate(script, url, clients, seconds)
            after = batched(url)
            figures[clients] = {
                **told,
                "requests_per_batch": (after[0] - batches[0]) / max(after[1] - batches[1], 1),
                "cpu_ms_per_request": 1000 * (sum(process.cpu_times()[:2]) - spent) / max(told["requests"], 1),
                "memory_before_mb": before / 2**20,
                "memory_after_mb": process.memory_info().rss / 2**20,
                **busy,
            }
            print(clients, figures[clients], file=sys.stderr)
    return figures


@contextmanager
def service(bundle: Path, scratch: Path, threads: int) -> Iterator[tuple[psutil.Process, str]]:
    said = scratch / "service.log"
    options = [f"--bundle={bundle}", "--port=0", f"--threads={threads}", f"--store={scratch / 'events.sqlite'}"]
    with said.open("w") as file:
        program = subprocess.Popen([sys.executable, "-m", "seqrec.cli", "serve", *options], stdout=file, stderr=file)
    try:
        while not (found := re.search(r"running on (http://\S+)", said.read_text())):
            if program.poll() is not None:
                raise SystemExit(said.read_text())
            time.sleep(0.1)
        yield psutil.Process(program.pid), found.group(1)
    finally:
        program.terminate()
        program.wait()


def generate(script: Path, url: str, clients: int, seconds: int) -> dict[str, float]:
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", "10s", "-s", str(script), url]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    numbers = re.search(r"TOLD (.*)", done.stdout)
    assert numbers, done.stdout
    p50, p99, longest, requested, microseconds, errors = map(float, numbers.group(1).split())
    return {
        "p50_ms": p50,
        "p99_ms": p99,
        "max_ms": longest,
        "requests_per_second": 1e6 * requested / microseconds,
        "requests": int(requested),
        "errors": int(errors),
    }


def batched(url: str) -> tuple[float, float]:
    """Requests that models answered so far, and in how many batches."""
    told = requests.get(f"{url}/metrics", timeout=10).text
    values = [re.search(rf"^seqrec_batch_requests_{name} (\S+)", told, re.MULTILINE) for name in ("sum", "count")]
    return tuple(float(found.group(1)) if found else 0.0 for found in values)  # type: ignore[return-value]


@contextmanager
def others(*served: psutil.Process) -> Iterator[dict[str, float]]:
    """Fills in how many cores other programs kept busy meanwhile: neither the service, nor wrk, nor this one."""
    found: dict[str, float] = {}
    began, busy = time.perf_counter(), _busy()
    own = sum(sum(process.cpu_times()[:4]) for process in (*served, psutil.Process()))
    yield found
    spent = sum(sum(process.cpu_times()[:4]) for process in (*served, psutil.Process())) - own
    found["cores_busy_with_other_programs"] = (_busy() - busy - spent) / (time.perf_counter() - began)


def _busy() -> float:
    times = psutil.cpu_times()
    return sum(times) - times.idle - times.iowait - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)


if __name__ == "__main__":
    main()
