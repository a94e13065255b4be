"""Times whole training epochs and full-ranking evaluation of SASRec, beside other libraries on the same file.

Every library runs in a process of its own, one after the other. See experiments/README.md for the commands.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psutil
import torch
from device import add_device, machine, now, results_of
from lightning import Callback, Trainer, seed_everything

from seqrec.backbones.base import Backbone
from seqrec.backbones.sasrec import SASRec
from seqrec.data.datamodule import SequenceDataModule
from seqrec.embeddings.ids import IdEmbedding
from seqrec.objectives.softmax import FullSoftmax
from seqrec.positions.base import InputPosition
from seqrec.positions.learned import LearnedPosition
from seqrec.recommenders.sequential import SequentialRecommender
from seqrec.training.task import NextItemTask

HERE = Path(__file__).parent
DIM, LAYERS, HEADS, DROPOUT = 64, 2, 2, 0.2
PRECISIONS = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16}


def main() -> None:
    options = arguments()
    if options.ours_only:
        print(json.dumps(ours(options)))
        return
    figures: dict[str, Any] = {
        "seqrec": child([sys.executable, __file__, *sys.argv[1:], "--ours-only"]),
        **peers(options),
    }
    for figure in figures.values():
        for what in ("epoch", "eval"):
            figure[f"{what}_median"] = statistics.median(figure[f"{what}_seconds"])
    own = figures["seqrec"]
    ratios = {
        name: {what: round(figure[f"{what}_median"] / own[f"{what}_median"], 2) for what in ("epoch", "eval")}
        for name, figure in figures.items()
        if name != "seqrec"
    }
    result = {
        "data": options.name,
        "machine": machine(options.device),
        "settings": {"dim": DIM, "layers": LAYERS, "heads": HEADS, "dropout": DROPOUT, "length": options.length},
        "times_faster": ratios,
        "figures": figures,
    }
    save(options.out or results_of("throughput", options.device), options.name, result)
    print(json.dumps({"data": options.name, "times_faster": ratios, "seqrec": own}, indent=2))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True, help="name of the row in the result file")
    parser.add_argument("--interactions", type=Path, required=True, help="Parquet file that the peers read")
    parser.add_argument("--prepared", type=Path, required=True, help="the same interactions after `seqrec prepare`")
    parser.add_argument("--length", type=int, default=50, help="events per history that a model reads")
    parser.add_argument("--epochs", type=int, default=3, help="our epochs on the clock, after one that warms up")
    parser.add_argument("--replay-epochs", type=int, default=3, help="epochs of RePlay on the clock, after one")
    parser.add_argument("--rectools-epochs", type=int, default=3, help="epochs of RecTools on the clock, after one")
    parser.add_argument("--evaluations", type=int, default=3, help="evaluations on the clock, after one that warms up")
    parser.add_argument("--events-per-batch", type=int, default=2048)
    parser.add_argument("--precision", choices=PRECISIONS, default="bf16-mixed")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--users", type=int, default=0, help="peers take only the first N users: a trial, no result")
    parser.add_argument("--replay-python", type=Path, help="interpreter of the environment with RePlay")
    parser.add_argument("--rectools-python", type=Path, help="interpreter of the environment with RecTools")
    add_device(parser)
    parser.add_argument("--out", type=Path, help="default: results/throughput.json, of a GPU throughput-cuda.json")
    parser.add_argument("--ours-only", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.device != "cpu" and (options.replay_python or options.rectools_python):
        parser.error("peers are timed on the CPU alone: leave out their interpreters, or --device cuda")
    return options


class Clock(Callback):
    """Seconds of every training epoch, without validation."""

    def __init__(self, device: str) -> None:
        self.seconds: list[float] = []
        self._device = device

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self._began = now(self._device)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.seconds.append(now(self._device) - self._began)


def ours(options: argparse.Namespace) -> dict[str, Any]:
    """Our own figures, taken in this process."""
    torch.set_num_threads(options.threads)
    seed_everything(0, verbose=False)
    before = psutil.Process().memory_info().rss
    data = SequenceDataModule(
        str(options.prepared), max_length=options.length, events_per_batch=options.events_per_batch
    )
    task = task_of(
        data, SASRec(DIM, n_layers=LAYERS, n_heads=HEADS, dropout=DROPOUT), LearnedPosition(DIM, options.length)
    )
    epoch_seconds = epochs(task, data, options.precision, 1 + options.epochs, options.device)[1:]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    judge = Trainer(
        accelerator=options.device, devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    eval_seconds = []
    for _ in range(1 + options.evaluations):
        began = now(options.device)
        judge.validate(task, datamodule=data, verbose=False)
        eval_seconds.append(now(options.device) - began)
    rates = {name: product_rate(kind, options.device) for name, kind in PRECISIONS.items()}
    operations = operations_of_epoch(data, task)
    epoch = statistics.median(epoch_seconds)
    return {
        "epoch_seconds": epoch_seconds,
        "eval_seconds": eval_seconds[1:],
        "precision": options.precision,
        "events_per_batch": options.events_per_batch,
        "threads": torch.get_num_threads(),
        "operations_per_epoch": operations,
        "product_rate": rates,
        "share_of_product_rate": operations / epoch / rates[options.precision],
        "peak_bytes": peak,
        "peak_bytes_beyond_start": peak - before,
        **({} if options.device == "cpu" else {"peak_bytes_of_gpu": torch.cuda.max_memory_allocated()}),
    }


def task_of(data: SequenceDataModule, backbone: Backbone, position: InputPosition | None = None) -> NextItemTask:
    """Free vectors of the items around a backbone, with the full softmax."""
    return NextItemTask(
        data.catalog,
        lambda catalog: SequentialRecommender(
            catalog, lambda items: IdEmbedding(items, DIM), backbone, position=position, dropout=DROPOUT
        ),
        FullSoftmax(),
    )


def epochs(task: NextItemTask, data: SequenceDataModule, precision: str, n: int, device: str = "cpu") -> list[float]:
    """Seconds of every epoch."""
    clock = Clock(device)
    trainer = Trainer(
        accelerator=device,
        devices=1,
        precision=precision,  # type: ignore[arg-type]
        max_epochs=n,
        callbacks=[clock],
        logger=False,
        limit_val_batches=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(task, datamodule=data)
    return clock.seconds


def operations_of_epoch(data: SequenceDataModule, task: NextItemTask) -> float:
    """Additions and multiplications of an epoch's matrix products, forward and backward, counted on paper.

    Softmax: 3 products of 2·M·N·D. Linear maps: 3 times 2 per event and weight. Attention: 3 times 2·L²·D per layer
    for a history of L events, of which each reads half on average.
    """
    lengths = np.asarray(data.training.input_lengths, dtype=np.float64)
    events = lengths.sum()
    backbone = task.recommender.backbone
    weights = sum(part.weight.numel() for part in backbone.modules() if isinstance(part, torch.nn.Linear))  # type: ignore[union-attr]
    softmax = 2 * events * len(data.catalog) * DIM
    attention = 2 * (lengths**2).sum() * DIM * LAYERS
    return float(3 * (softmax + 2 * events * weights + attention))


def product_rate(kind: torch.dtype, device: str, width: int = 2048, repeats: int = 7) -> float:
    """Operations per second of a square matrix product on this machine: the median of some."""
    left, right = (torch.randn(width, width).to(device, kind) for _ in range(2))
    seconds = []
    for _ in range(repeats + 1):
        began = now(device)
        torch.mm(left, right)
        seconds.append(now(device) - began)
    return 2 * width**3 / statistics.median(seconds[1:])


def peers(options: argparse.Namespace) -> dict[str, Any]:
    """Figures of the other libraries; RecTools' environment may lack a Parquet reader, so it is given CSV."""
    common = ["--length", options.length, "--evaluations", options.evaluations]
    common += ["--users", options.users, "--threads", options.threads]
    figures = {}
    if options.replay_python:
        script = HERE / "peers" / "replay_epoch.py"
        figures["replay"] = child(
            [options.replay_python, script, options.interactions.resolve(), *common, "--epochs", options.replay_epochs]
        )
    if options.rectools_python:
        with tempfile.TemporaryDirectory() as folder:
            csv = Path(folder) / "interactions.csv"
            pl.scan_parquet(options.interactions).select("user_id", "item_id", "timestamp").sink_csv(csv)
            script = HERE / "peers" / "rectools_epoch.py"
            figures["rectools"] = child(
                [options.rectools_python, script, csv, *common, "--epochs", options.rectools_epochs]
            )
    return figures


def child(command: list[Any]) -> dict[str, Any]:
    """Run a command and read the JSON object in its last line."""
    print("running", Path(command[1]).name, *command[-1:], file=sys.stderr)
    done = subprocess.run([str(each) for each in command], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def save(path: Path, name: str, result: dict[str, Any]) -> None:
    """Put one row beside the others in the result file."""
    rows = json.loads(path.read_text()) if path.is_file() else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    fresh.write_text(json.dumps({**rows, name: result}, indent=2) + "\n")
    fresh.replace(path)


if __name__ == "__main__":
    main()
