"""A click model learns what follows what, and what would read its own answers is refused."""

from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import polars as pl
import pytest
import torch
from lightning import Trainer

from seqrec.backbones.bert4rec import BERT4Rec
from seqrec.backbones.sasrec import SASRec
from seqrec.batch import Batch
from seqrec.catalog import Catalog
from seqrec.data.datamodule import SequenceDataModule
from seqrec.data.log import Log
from seqrec.data.negatives import Negatives
from seqrec.data.supervision import EveryEvent, MaskedEvents
from seqrec.embeddings.ids import IdEmbedding
from seqrec.nn.target_attention import TargetAttention
from seqrec.positions.time import TimeGap
from seqrec.positions.time_bias import TimeBias
from seqrec.recommenders.click import ClickModel
from seqrec.sequences import Sequences
from seqrec.training.click_task import ClickTask
from seqrec.training.schedule import Cosine

DIM, ITEMS = 8, 30


def catalog_of_items(first=0):
    return Catalog(pl.DataFrame({"item_id": [str(first + row) for row in range(ITEMS)], "count": [1] * ITEMS}))


def task(learning_rate=0.01, **arguments):
    torch.manual_seed(0)
    catalog = catalog_of_items()

    def build(catalog):
        return ClickModel(
            catalog, lambda catalog: IdEmbedding(catalog, DIM, 0.3), TargetAttention(DIM, (16,)), **arguments
        )

    return ClickTask(catalog, build, learning_rate)


def circle():
    """Everyone walks a stretch of the same circle of items."""
    generator = np.random.default_rng(0)
    lengths, starts = generator.integers(4, 12, 200), generator.integers(0, ITEMS, 200)
    items = np.concatenate([(start + np.arange(n)) % ITEMS for start, n in zip(starts, lengths, strict=True)])
    table = pl.DataFrame({"item_id": [str(row) for row in range(ITEMS)], "count": np.bincount(items)})
    offsets = np.append(0, np.cumsum(lengths))
    users = pl.Series("user_id", [str(row) for row in range(200)])
    return Log(items.astype(np.int32), np.arange(len(items)), offsets, Catalog(table), users, {})


def test_it_learns_what_follows_what():
    data = SequenceDataModule("circle", max_length=5, events_per_batch=64, negatives=Negatives)
    data.log = circle()
    trainer = Trainer(
        max_epochs=15, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False,
    )  # fmt: skip
    made = task()
    (before,) = trainer.validate(made, datamodule=data, verbose=False)
    trainer.fit(made, datamodule=data)
    (after,) = trainer.test(made, datamodule=data, verbose=False)
    assert before["val/gauc"] < 0.7
    assert after["test/gauc"] > 0.9
    assert after["test/auc"] > 0.9
    assert after["test/log_loss"] < before["val/log_loss"]
    scores, clicked, users = made.impressions
    assert clicked.sum() * 5 == len(scores) == len(users) == 5 * 200


def test_the_loss_is_that_of_every_candidate():
    made, history = task(), Sequences.pack([[0, 1], [2]])
    batch = Batch(torch.arange(2), history, history.newest, torch.tensor([3, 4]), negatives=torch.tensor([[5], [6]]))
    made.log = lambda *_, **__: None
    logits = made.model(history, history.newest, torch.tensor([[3, 5], [4, 6]]))
    by_hand = -(logits[:, 0].sigmoid().log() + (1 - logits[:, 1].sigmoid()).log()).mean() / 2
    torch.testing.assert_close(made.training_step(batch, 0), by_hand)


@pytest.mark.parametrize(
    ("arguments", "data", "remedy"),
    [
        ({}, {"supervision": MaskedEvents()}, "EveryPrefix"),
        ({"backbone": BERT4Rec(DIM)}, {"supervision": EveryEvent()}, "EveryPrefix"),
        ({"position": TimeGap(DIM)}, {"has_clock": False}, "another position"),
        ({"backbone": SASRec(DIM, position=TimeBias)}, {}, "which a click model is not told"),
        ({}, {}, "trainer.devices to 1"),
    ],
)
def test_what_would_mean_nothing_is_refused(arguments, data, remedy):
    made = task(**arguments)
    known = SimpleNamespace(**{"supervision": EveryEvent(), "has_clock": True, **data})
    made._trainer = SimpleNamespace(datamodule=known, world_size=2)
    with pytest.raises(ValueError, match=remedy):
        made.on_fit_start()


def test_weights_of_other_items_are_refused():
    checkpoint = {}
    task().on_save_checkpoint(checkpoint)
    task().on_load_checkpoint(checkpoint)
    other = ClickTask(catalog_of_items(first=1), lambda catalog: task().model)
    with pytest.raises(ValueError, match="trained on other items"):
        other.on_load_checkpoint(checkpoint)


def test_a_batch_without_negatives_says_what_to_do():
    history = Sequences.pack([[0, 1]])
    with pytest.raises(ValueError, match=r"seqrec\.data\.negatives\.Negatives"):
        task()._logits(Batch(torch.arange(1), history, history.newest, torch.tensor([3])))


def test_a_learning_rate_that_cannot_learn_is_refused():
    with pytest.raises(ValueError, match="above 0"):
        task(learning_rate=0.0)


def test_its_optimizer_goes_by_what_it_is_told():
    model = task().model
    made = ClickTask(catalog_of_items(), lambda catalog: model, 0.25, weight_decay=0.5, schedule=Cosine(warmup_steps=4))
    made._trainer = Mock(spec=Trainer, estimated_stepping_batches=10, gradient_clip_val=None, precision="32-true")
    (group,) = made.configure_optimizers()["optimizer"].param_groups
    assert (group["lr"], group["weight_decay"]) == (0.05, 0.5)
