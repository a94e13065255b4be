"""Trains click models that differ in their positions alone, and compares the AUC of the same users.

Every model attends from a candidate to a history (DIN). The best epoch on validation gAUC is tested once. A run that is
done is not repeated. See experiments/README.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from lightning import Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from seqrec.catalog import Catalog
from seqrec.data.datamodule import SequenceDataModule
from seqrec.data.log import Log
from seqrec.data.negatives import Negatives
from seqrec.data.protocol import RatioByUser
from seqrec.data.supervision import EveryPrefix
from seqrec.embeddings.ids import IdEmbedding
from seqrec.evaluation.clicks import user_aucs
from seqrec.nn.target_attention import TargetAttention
from seqrec.positions.contextual import CAPE, CoPE
from seqrec.positions.learned import LearnedPosition
from seqrec.positions.relative import RelativeBias
from seqrec.positions.rotary import RotaryPosition
from seqrec.recommenders.click import ClickModel
from seqrec.training.click_task import ClickTask
from seqrec.training.record import commit, write
from seqrec.training.schedule import Cosine

HERE = Path(__file__).parent
DIM, LENGTH = 32, 50
SETTINGS = {
    "dim": DIM,
    "max_length": LENGTH,
    "attention_hidden": [16],
    "hidden": [64, 32],
    "position_dim": 16,
    "init_std": 0.1,
    "learning_rate": 8e-3,
    "schedule": "Cosine",
    "events_per_batch": 128 * LENGTH,
    "steps_per_epoch": 300,
    "max_epochs": 10,
    "patience": 3,
    "validation_share": 0.02,
    "test_share": 0.1,
    "n_negatives": 4,
    "exponent": 1.0,
    "evaluation_seed": 0,
}
CONTEXTUAL = {"max_length": LENGTH, "position_dim": SETTINGS["position_dim"]}
INSIDE = {
    "RoPE": RotaryPosition,
    "relative": partial(RelativeBias, max_length=LENGTH),
    "CoPE": partial(CoPE, **CONTEXTUAL),
    "CAPE": partial(CAPE, **CONTEXTUAL),
}
POSITIONS = ("none", "learned", "RoPE", "CoPE", "CAPE", "relative")
CLAIMED = (("none", "RoPE"), ("RoPE", "CAPE"), ("none", "CAPE"))
OTHERS = (("none", "learned"), ("learned", "CAPE"), ("none", "CoPE"), ("CoPE", "CAPE"), ("relative", "CAPE"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepared", type=Path, default=Path("data/prepared/ml-1m"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=HERE / "results" / "click_ranking")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for seed in options.seeds:
        for position in POSITIONS:
            kept = file_of(options, position, seed)
            if kept.is_file():
                demand_same(kept, options.prepared)
            else:
                write(kept, json.dumps(trained(options.prepared, position, seed)) + "\n")
    show(
        {
            position: [json.loads(file_of(options, position, s).read_text()) for s in options.seeds]
            for position in POSITIONS
        }
    )


def demand_same(kept: Path, prepared: Path) -> None:
    """Raise unless a run that is done was made with these data and settings."""
    made, data = json.loads(kept.read_text()), Log.open(prepared).manifest["fingerprint"]
    found = [name for name, value in SETTINGS.items() if made["settings"].get(name) != value]
    found += [] if made["passport"]["dataset"] == data else ["the data"]
    if found:
        raise SystemExit(f"{kept} was made with other settings ({', '.join(found)}); choose other --results.")


def file_of(options: argparse.Namespace, position: str, seed: int) -> Path:
    return options.results / options.prepared.name / f"{position.lower()}-seed{seed}.json"


def model(position: str, catalog: Catalog) -> ClickModel:
    return ClickModel(
        catalog,
        lambda catalog: IdEmbedding(catalog, DIM, SETTINGS["init_std"]),
        TargetAttention(DIM, SETTINGS["attention_hidden"], INSIDE.get(position)),
        LearnedPosition(DIM, LENGTH, SETTINGS["init_std"]) if position == "learned" else None,
        hidden=SETTINGS["hidden"],
    )


def trained(prepared: Path, position: str, seed: int) -> dict[str, object]:
    """The result of one run: trained, and tested at its best epoch on validation."""
    began = time.perf_counter()
    seed_everything(seed, verbose=False)
    data = SequenceDataModule(
        str(prepared),
        RatioByUser(SETTINGS["validation_share"], SETTINGS["test_share"]),
        EveryPrefix(),
        LENGTH,
        SETTINGS["events_per_batch"],
        negatives=partial(
            Negatives, n=SETTINGS["n_negatives"], exponent=SETTINGS["exponent"], seed=SETTINGS["evaluation_seed"]
        ),
        mixes_lengths=True,
        seed=seed,
    )
    task = ClickTask(data.catalog, partial(model, position), SETTINGS["learning_rate"], schedule=Cosine())
    with tempfile.TemporaryDirectory() as folder:
        best = ModelCheckpoint(folder, monitor="val/gauc", mode="max")
        trainer = Trainer(
            max_epochs=SETTINGS["max_epochs"],
            limit_train_batches=SETTINGS["steps_per_epoch"],
            callbacks=[best, EarlyStopping("val/gauc", patience=SETTINGS["patience"], mode="max")],
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            default_root_dir=folder,
        )
        trainer.fit(task, datamodule=data)
        epochs = trainer.current_epoch
        trainer.test(task, datamodule=data, ckpt_path=best.best_model_path, weights_only=True, verbose=False)
    aucs, shown = user_aucs(*task.impressions)
    print(f"{position}, seed {seed}: test gAUC {task.metrics['gauc']:.4f} after {epochs} epochs", flush=True)
    return {
        "position": position,
        "seed": seed,
        "metrics": task.metrics,
        "validation_gauc": float(best.best_model_score or 0),
        "epochs": epochs,
        "settings": SETTINGS,
        "passport": data.passport,
        "parameters": sum(weight.numel() for weight in task.parameters()),
        "wall_seconds": round(time.perf_counter() - began, 1),
        "torch": torch.__version__,
        "commit": commit(),
        "user_aucs": [round(value, 4) for value in aucs.tolist()],
        "user_impressions": shown.tolist(),
    }


def show(results: dict[str, list[dict]]) -> None:
    """Prints mean and deviation over seeds, and the differences that matter with their intervals."""
    print("| position | gAUC | AUC | log loss |\n|---|---|---|---|")
    for position, runs in results.items():
        cells = []
        for name in ("gauc", "auc", "log_loss"):
            values = [run["metrics"][name] for run in runs]
            spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.4f}{spread}")
        print(f"| {position} | {' | '.join(cells)} |")
    print("\n| gAUC of | less that of | difference | 95 % over users | by seed |\n|---|---|---|---|---|")
    for worse, better in (*CLAIMED, *OTHERS):
        difference, low, high = compared(results[better], results[worse])
        gauc = [[run["metrics"]["gauc"] for run in results[position]] for position in (better, worse)]
        by_seed = ", ".join(f"{b - w:+.4f}" for b, w in zip(*gauc, strict=True))
        print(f"| {better} | {worse} | {difference:+.4f} | {low:+.4f} to {high:+.4f} | {by_seed} |")


def compared(better: list[dict], worse: list[dict], repeats: int = 2000) -> tuple[float, float, float]:
    """Difference of gAUC, mean over seeds, and the bounds that hold 95 % of it when users are drawn anew.

    The same users are drawn for both; training is not repeated, so what seeds change is not in the interval.
    """
    shown = np.array(better[0]["user_impressions"])
    assert all(run["user_impressions"] == better[0]["user_impressions"] for run in (*better, *worse))
    by_user = [np.mean([run["user_aucs"] for run in runs], axis=0) for runs in (better, worse)]
    gains = (by_user[0] - by_user[1]) * shown
    generator = np.random.default_rng(0)
    drawn = (generator.integers(len(shown), size=len(shown)) for _ in range(repeats))
    low, high = np.quantile([gains[users].sum() / shown[users].sum() for users in drawn], [0.025, 0.975])
    return float(gains.sum() / shown.sum()), float(low), float(high)


if __name__ == "__main__":
    main()
