"""Times the selective scan, forward and backward, beside a plain loop under autograd and mambapy's parallel scan.

See experiments/README.md for the command. Run it alone on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from prepare_scale import record
from timing import in_turn
from torch import Tensor

from seqrec.ops.dispatch import using
from seqrec.ops.scan import selective_scan

HERE = Path(__file__).parent
CHANNELS, STATES = 128, 32
LENGTHS = (50, 200, 1000, 2000)
EVENTS = 8000  # where few long histories stand for many short ones


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mambapy-python", help="interpreter of an environment with mambapy 1.2")
    parser.add_argument("--repeats", type=int, default=25)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--results", type=Path, default=HERE / "results" / "scan_speed.json")
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory_of:
        print(json.dumps(memory(options.memory_of)))
        return
    # First, while this process is small: a child's peak begins at what its parent held.
    alone = [sys.executable, __file__, "--memory-of", "2000"]
    held = json.loads(subprocess.run(alone, check=True, stdout=subprocess.PIPE, text=True).stdout)
    histories, length = 64, 50
    problem = inputs([length] * histories)
    ways: dict[str, Callable[[], object]] = {
        "seqrec": lambda: backward(selective_scan(**problem)[0], problem),
        "seqrec without numba": lambda: stepwise(problem),
        "loop under autograd": lambda: backward(loop(**problem, histories=histories), problem),
        "one exponential of each element": exponentials(histories * length),
    }
    medians = {name: statistics.median(each) for name, each in in_turn(ways, options.repeats).items()}
    if options.mambapy_python:
        shape = {"histories": histories, "length": length, "channels": CHANNELS, "states": STATES}
        settings = shape | {"repeats": options.repeats, "threads": options.threads}
        arguments = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
        command = [options.mambapy_python, HERE / "peers" / "mambapy_scan.py", *arguments]
        said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        medians["mambapy"] = statistics.median(json.loads(said.splitlines()[-1])["seconds"])
    slow = {"reference, one history after the other": lambda: backward(selective_scan.reference(**problem)[0], problem)}
    medians |= {name: statistics.median(each) for name, each in in_turn(slow, 3).items()}
    by_length = per_event(dict.fromkeys(LENGTHS, histories), max(3, options.repeats // 4))
    few_by_length = per_event({length: EVENTS // length for length in LENGTHS}, max(3, options.repeats // 2))
    entry = {
        "shape": {"histories": 64, "length": 50, "channels": CHANNELS, "states": STATES},
        "threads": options.threads,
        "torch": torch.__version__,
        "median_seconds": medians,
        "times_faster": {name: value / medians["seqrec"] for name, value in medians.items() if name != "seqrec"},
        "seconds_per_event_of_64_histories_by_length": medians_of(by_length),
        "seconds_per_event_of_8000_events_by_length": medians_of(few_by_length),
        "longest_times_length_of_64_histories": longest_times(by_length),
        "longest_times_length_of_8000_events": longest_times(few_by_length),
        "memory_at_length_2000": held,
    }
    record(options.results, "cpu", entry)
    print(json.dumps(entry, indent=2))


def inputs(lengths: list[int]) -> dict[str, Tensor]:
    torch.manual_seed(0)
    total = sum(lengths)
    made = {
        "u": torch.randn(total, CHANNELS),
        "delta": torch.rand(total, CHANNELS),
        "decay": -torch.arange(1.0, STATES + 1).repeat(CHANNELS, 1),
        "b": torch.randn(total, STATES),
        "c": torch.randn(total, STATES),
    }
    made = {name: values.requires_grad_() for name, values in made.items()}
    return {**made, "offsets": torch.tensor([0, *lengths]).cumsum(0)}


def loop(u: Tensor, delta: Tensor, decay: Tensor, b: Tensor, c: Tensor, offsets: Tensor, histories: int) -> Tensor:
    """The recurrence as one would first write it: one step after the other, all histories at once, no padding."""
    u, delta, b, c = (x.unflatten(0, (histories, -1)) for x in (u, delta, b, c))
    state, read = u.new_zeros(histories, *decay.shape), []
    for t in range(u.shape[1]):
        state = torch.exp(delta[:, t, :, None] * decay) * state + (delta[:, t] * u[:, t])[:, :, None] * b[:, t, None]
        read.append((state @ c[:, t, :, None]).squeeze(2))
    return torch.stack(read, 1)


def stepwise(problem: dict[str, Tensor]) -> None:
    with using("stepwise"):
        backward(selective_scan(**problem)[0], problem)


def backward(y: Tensor, problem: dict[str, Tensor]) -> None:
    torch.autograd.grad(y.sum(), [values for values in problem.values() if values.requires_grad])


def exponentials(events: int) -> Callable[[], object]:
    values = -torch.rand(events, CHANNELS, STATES)
    out = torch.empty_like(values)
    return lambda: torch.exp(values, out=out)


def per_event(counts: dict[int, int], repeats: int) -> dict[int, list[float]]:
    """Seconds per event, forward and backward, in every round by length of histories, of which there are so many."""
    ways = {}
    for length, count in counts.items():
        some = inputs([length] * count)
        ways[length] = lambda some=some: backward(selective_scan(**some)[0], some)
    taken = in_turn(ways, repeats)
    return {length: [each / (length * count) for each in taken[length]] for length, count in counts.items()}


def medians_of(rounds: dict[int, list[float]]) -> dict[int, float]:
    return {length: statistics.median(each) for length, each in rounds.items()}


def longest_times(rounds: dict[int, list[float]]) -> dict[int, float]:
    """What an event of the longest histories costs beside one of each length, by the median of the rounds' ratios."""
    pairs = {length: zip(rounds[max(rounds)], own, strict=True) for length, own in rounds.items()}
    return {length: statistics.median(longest / each for longest, each in both) for length, both in pairs.items()}


def memory(length: int) -> dict[str, float]:
    """Peak memory of 64 histories, forward and backward, beyond what was held before, beside inputs and states."""
    problem = inputs([length] * 64)
    small = inputs([2, 2])
    backward(selective_scan(**small)[0], small)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    backward(selective_scan(**problem)[0], problem)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    held = sum(values.nbytes for values in problem.values())
    return {
        "beyond_inputs_bytes": peak - before,
        "inputs_bytes": held,
        "states_bytes": 4 * 64 * length * CHANNELS * STATES,
    }


if __name__ == "__main__":
    main()
