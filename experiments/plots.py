"""Draws the figures in docs/ from what the other programs recorded."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib.ticker

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--docs", type=Path, default=DOCS)
    options = parser.parse_args()
    plt.rcParams["svg.hashsalt"] = "seqrec"  # the same figures, the same bytes
    training = json.loads((options.results / "backbone_speed.json").read_text())["amazon-beauty"]
    draw(
        options.docs / "time-per-event.svg",
        training["median_microseconds_per_event_there_and_back"],
        f"training, forward and backward, {training['threads']} CPU threads",
        "microseconds per event",
    )
    streaming = json.loads((options.results / "streaming_speed.json").read_text())["cpu"]
    milliseconds = streaming["median_milliseconds_of_one_history"]
    one_more = {
        name: {length: taken["one more event"] for length, taken in lengths.items()}
        for name, lengths in milliseconds.items()
    }
    draw(
        options.docs / "one-more-event.svg",
        one_more,
        f"reading one more event of a remembered history, {streaming['threads']} CPU threads",
        "milliseconds",
    )
    for found in sorted((options.results / "compressed").glob("*-sasrec-*")):
        draw_compressed(options.docs / f"compressed-{found.name}.svg", found, options.results)


def draw_compressed(out: Path, found: Path, results: Path) -> None:
    """What tokens cost and what they reach, between recent events alone and the whole history."""
    speed = json.loads((results / "compressed_speed.json").read_text())["cpu"]
    data, _, older, recent = found.name.rsplit("-", 3)
    taken = speed["figures"]["SASRec"][f"{older}/{recent}"]["median_milliseconds"]
    named = {"recent": "recent events alone", "whole": "whole history"}
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for part in sorted({path.name.rpartition("-seed")[0] for path in found.iterdir()}):
        reached = [
            json.loads(path.read_text())["metrics"]["ndcg@10"] for path in found.glob(f"{part}-seed*/result.json")
        ]
        name = named.get(part, part.replace("-", " "))
        spread = float(np.std(reached)) if len(reached) > 1 else 0.0
        axes.errorbar([taken[name]], [float(np.mean(reached))], [spread], marker="o", label=name)
    title = f"{data}: {older} older and {recent} recent events, SASRec of width {speed['dim']}"
    axes.set(xscale="log", xlabel=f"milliseconds of a request of {speed['users']} users", ylabel="NDCG@10", title=title)
    axes.get_xaxis().set_major_formatter(matplotlib.ticker.ScalarFormatter())
    axes.legend(fontsize="small")
    figure.savefig(out, metadata={"Date": None})
    print(out)


def draw(out: Path, lines: dict[str, dict[str, Any]], title: str, unit: str) -> None:
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    for name, values in lines.items():
        axes.plot([int(length) for length in values], list(values.values()), marker="o", label=name)
    axes.set(xscale="log", xlabel="events in a history", ylabel=unit, title=title, ylim=(0, None))
    axes.set_xticks([int(length) for length in next(iter(lines.values()))])
    axes.get_xaxis().set_major_formatter(matplotlib.ticker.ScalarFormatter())
    axes.minorticks_off()
    figure.legend(fontsize="small", loc="outside right center")
    figure.savefig(out, metadata={"Date": None})
    print(out)


if __name__ == "__main__":
    main()
