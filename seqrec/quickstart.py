"""The whole journey on a simulated shop: prepare, fit, test beside popularity and the oracle, export, recommend."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from seqrec.cli import main
from seqrec.data.card import Card
from seqrec.data.log import Log
from seqrec.data.simulated import SimulatedShop
from seqrec.evaluation.meter import Meter

SHOP = "simulated-shop"
PREPARED, RUNS, BUNDLE = Path("data/prepared") / SHOP, Path("runs/quickstart"), Path("bundles/quickstart")
MODELS = {"popularity": "popularity", "markov": "first-order Markov", "sasrec": "SASRec"}
LEARNS = ["--trainer.max_epochs=25", "--early_stopping.patience=5", "--model.learning_rate=0.003"]
SHOWN = {"recall@10": "Recall@10", "ndcg@10": "NDCG@10", "mrr@10": "MRR@10"}


def quickstart() -> int:
    """Run every step with the commands that a user would type; returns the exit status."""
    console = Console()
    steps = [["prepare", SHOP]]
    for model in MODELS:
        stack = ["--config=configs/data/shop.yaml", f"--config=configs/model/{model}.yaml"]
        training = LEARNS if model == "sasrec" else []
        quiet = ["--trainer.enable_model_summary=false"]
        steps.append(["fit", *stack, *training, *quiet, f"--run={RUNS / model}"])
        steps.append(["test", f"--run={RUNS / model}", "--verbose=false"])
    steps.append(["export", f"--run={RUNS / 'sasrec'}", f"--out={BUNDLE}"])
    for step in steps:
        if failed := _do(console, step):
            return failed
    console.print(_comparison())
    history = _a_history(Log.open(PREPARED))
    console.print("[bold]A customer bought, oldest first:[/bold]")
    for raw, title in history:
        console.print(f"  {raw}  {title}", highlight=False)
    return _do(
        console, ["recommend", f"--bundle={BUNDLE}", f"--history={','.join(raw for raw, _ in history)}", "-k=10"]
    )


def _do(console: Console, arguments: list[str]) -> int:
    console.rule(f"[bold]seqrec {arguments[0]}", align="left")
    console.print("seqrec " + " ".join(arguments), style="dim", highlight=False, soft_wrap=True)
    return main(arguments)


def _comparison() -> Table:
    results = {
        title: json.loads((RUNS / model / "result.json").read_text())["metrics"] for model, title in MODELS.items()
    }
    results["the oracle (best possible)"] = best = _oracle()
    table = Table("model", *SHOWN.values(), "share of the oracle's NDCG@10", title="Test, full ranking, leave-one-out")
    for title, metrics in results.items():
        share = metrics["ndcg@10"] / best["ndcg@10"]
        table.add_row(title, *(f"{metrics[name]:.4f}" for name in SHOWN), f"{share:.0%}")
    return table


def _oracle() -> dict[str, float]:
    """Metrics of the ranking by the true next-item distribution of the shop on the card."""
    shop = Card.load(SHOP).source()
    assert isinstance(shop, SimulatedShop)
    meter = Meter((10,))
    meter.update(torch.from_numpy(shop.oracle_ranks()["rank"].to_numpy().astype("int64")))
    return meter.compute()


def _a_history(log: Log, user: int = 7, newest: int = 6) -> list[tuple[str, str]]:
    """Raw ids and titles of one user's newest events."""
    rows = log.items[log.offsets[user] : log.offsets[user + 1]][-newest:].tolist()
    return [(log.catalog.ids[row], log.catalog.titles[row]) for row in rows]


if __name__ == "__main__":
    sys.exit(quickstart())
