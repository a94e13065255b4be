"""A shop that is attacked: its targets rise, and with LoRec they rise far less, at no cost to genuine users."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from lightning import Trainer, seed_everything

from seqrec.audit import figures
from seqrec.backbones.sasrec import SASRec
from seqrec.data.datamodule import SequenceDataModule
from seqrec.data.log import Log
from seqrec.data.poisoning.heuristic import Random
from seqrec.data.poisoning.known import KnownFraudsters
from seqrec.data.poisoning.poison import poisoned
from seqrec.data.prepare import prepare_log
from seqrec.data.simulated import SimulatedShop
from seqrec.embeddings.ids import IdEmbedding
from seqrec.evaluation.meter import Meter
from seqrec.evaluation.promotion import promotion
from seqrec.objectives.base import EqualWeights, Reweighter
from seqrec.objectives.lorec import LoRec
from seqrec.objectives.softmax import FullSoftmax
from seqrec.recommenders.sequential import SequentialRecommender
from seqrec.robustness import target_ranks
from seqrec.training.record import StepSeed
from seqrec.training.task import NextItemTask


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    """A thousand users, 3 % random fakes beside them, and text vectors that know the category of each item."""
    folder = tmp_path_factory.mktemp("shop")
    log = prepare_log(SimulatedShop(users=1000, items=500, mean_events=20.0), folder / "clean")
    poisoned(folder / "clean", folder / "attacked", Random(), budget=0.03)
    random = np.random.default_rng(0)
    leaves = log.catalog.table["categories"].list.get(1)
    centre = {leaf: random.standard_normal(16) for leaf in sorted(set(leaves))}
    vectors = [(centre[leaf] + 0.3 * random.standard_normal(16)).tolist() for leaf in leaves]
    pl.DataFrame({"item_id": log.catalog.ids, "vector": vectors}).write_parquet(folder / "vectors.parquet")
    return folder


def reached(prepared: Path, targets: list[int], reweighter: Reweighter) -> dict[str, float]:
    """What a small SASRec reaches after 14 epochs."""
    seed_everything(1, verbose=False)
    data = SequenceDataModule(str(prepared), fraudsters=KnownFraudsters(), seed=1)
    task = NextItemTask(
        data.catalog,
        lambda catalog: SequentialRecommender(
            catalog, lambda items: IdEmbedding(items, 32), SASRec(32, 1, 2, 0.1), dropout=0.1
        ),
        FullSoftmax(),
        reweighter=reweighter,
        learning_rate=0.005,
    )
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=14,
        callbacks=[StepSeed(1)],
        logger=False,
        limit_val_batches=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(task, datamodule=data)
    recommender, meter = task.recommender.eval(), Meter((10,))
    for batch in data.test_dataloader():
        meter.update(recommender.ranks(batch))
    return {**meter.compute(), **promotion(*target_ranks(recommender, data.test_dataloader(), targets))}


def test_lorec_holds_down_what_an_attack_pushes(shop):
    attacked = Log.open(shop / "attacked")
    targets = attacked.manifest["poison"]["target_rows"]
    lorec = LoRec(str(shop / "vectors.parquet"), "fit", active_from=4, period=1, late_period=1, batch_users=64)
    clean = reached(shop / "clean", targets, EqualWeights())
    undefended = reached(shop / "attacked", targets, EqualWeights())
    defended = reached(shop / "attacked", targets, lorec)
    assert undefended["t_hr@50"] > 1.5 * clean["t_hr@50"]
    assert undefended["t_rank"] < 0.8 * clean["t_rank"]
    assert defended["t_hr@50"] < 0.8 * undefended["t_hr@50"]
    assert defended["recall@10"] > 0.98 * undefended["recall@10"]
    found = figures(
        lorec.trail, torch.from_numpy(attacked.is_fake), torch.from_numpy(np.diff(attacked.offsets)), epochs=14
    )
    assert found["weight_of_fakes"] < 0.5
    assert found["weight_of_genuine"] > 0.8
    assert found["auc"] > 0.85
