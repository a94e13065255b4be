"""Times the making of fake users by each attack that learns, in this process, and records the seconds.

See experiments/README.md for the command.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path

import torch
from prepare_scale import record

from seqrec.data.poisoning.dp import DP
from seqrec.data.poisoning.loki import LokiLike
from seqrec.data.poisoning.poison import poisoned
from seqrec.data.poisoning.rev import Rev

HERE = Path(__file__).parent
ATTACKS = {"DP": DP, "Rev": Rev, "LokiLike": LokiLike}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepared", type=Path, required=True, help="what `seqrec prepare amazon-beauty` made")
    parser.add_argument("--attack", choices=ATTACKS, required=True)
    parser.add_argument("--budget", type=float, default=0.01)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--results", type=Path, default=HERE / "results" / "poison_cost.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    began, worked = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        log = poisoned(options.prepared, Path(folder) / "poisoned", ATTACKS[options.attack](), options.budget)
        made = log.manifest["poison"]
    entry = {
        "seconds": round(time.perf_counter() - began, 1),
        "processor_seconds": round(time.process_time() - worked, 1),
        "threads": options.threads,
        "load_average": [round(each, 1) for each in os.getloadavg()],
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "budget": options.budget,
        "fake_users": made["fake_users"]["count"],
        "genuine_users": made["genuine_users"],
        "items": len(log.catalog),
        "settings": made["settings"],
        "torch": torch.__version__,
    }
    record(options.results, f"{options.prepared.name}, {options.attack}", entry)
    print(json.dumps(entry, indent=2))


if __name__ == "__main__":
    main()
