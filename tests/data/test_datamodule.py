"""The data module answers before training begins, and its batches do not depend on how they are gathered."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from lightning import LightningModule, Trainer

from seqrec.batch import Batch
from seqrec.data.datamodule import SequenceDataModule
from seqrec.data.log import Log
from seqrec.data.protocol import GlobalTimeSplit, LeaveOneOut
from seqrec.data.supervision import EveryEvent, NewestEvent

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs/data"
CARDS = ROOT / "data/cards"


@pytest.fixture(scope="module")
def prepared(random_log, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("prepared")
    for name in ("items", "times", "offsets"):
        np.save(folder / f"{name}.npy", getattr(random_log, name))
    random_log.catalog.save(folder / "catalog.parquet")
    random_log.users.to_frame().write_parquet(folder / "users.parquet")
    (folder / "manifest.json").write_text(json.dumps({"schema_version": 1, "fingerprint": "abc"}))
    return str(folder)


def contents(batches) -> list[tuple]:
    return [(batch.users.tolist(), batch.history.items.tolist(), batch.targets.tolist()) for batch in batches]


def test_most_targets_left_out_as_seen_before_are_told_of_with_the_remedy(build_log, recwarn):
    def split_of(histories, **protocol):
        data = SequenceDataModule("log", protocol=LeaveOneOut(**protocol))
        data.log = build_log(histories, n_items=9)
        return data.split

    again = [[0, 1, 2, 0, 1], [3, 4, 3, 4], [5, 6, 7, 8]]
    with pytest.warns(UserWarning, match=r"Of 3 test targets 2 are items that their user had before.*seen-ranked"):
        assert len(split_of(again).test) == 1
    recwarn.clear()
    assert len(split_of(again, seen_is_excluded=False).test) == 3
    assert len(split_of([[0, 1, 2, 3], [3, 4, 3, 4], [5, 6, 7, 8]]).test) == 2
    assert not recwarn.list


def test_the_catalog_is_there_at_once_and_counts_training_alone(prepared, random_log):
    data = SequenceDataModule(prepared)
    split = LeaveOneOut().split(random_log)
    np.testing.assert_array_equal(data.catalog.counts, split.train.item_counts(random_log))
    assert data.catalog.counts.sum() < random_log.catalog.counts.sum()
    assert data.passport["dataset"] == "abc"
    assert data.log.items.base is not None


def test_what_is_known_of_each_test_target_is_counted_before_it(prepared, random_log):
    data = SequenceDataModule(prepared, max_length=3)
    counts = data.catalog.counts
    for user, target, history, popularity in data.test_targets.iter_rows():
        items = random_log.items[random_log.offsets[user] : random_log.offsets[user + 1]]
        assert target == items[-1]
        assert history == items.size - 1  # the whole past, however short the window
        assert popularity == counts[target]
    assert data.test_targets.height == len(data.split.test)


def test_the_order_does_not_depend_on_the_number_of_workers(prepared):
    alone, helped = (SequenceDataModule(prepared, num_workers=n).train_dataloader() for n in (0, 2))
    for epoch in (0, 1):
        for loader in (alone, helped):
            loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        assert contents(alone) == contents(helped)


def test_evaluation_asks_once_for_every_target(prepared):
    data = SequenceDataModule(prepared, evaluation_events_per_batch=500)
    for loader, part in ((data.val_dataloader(), data.split.validation), (data.test_dataloader(), data.split.test)):
        asked = [user for batch in loader for user in batch.users.tolist()]
        assert sorted(asked) == part.users.tolist()
        assert len(loader) > 1
        assert contents(loader) == contents(loader)


def test_everyone_is_who_has_three_events_with_all_that_they_have_whatever_the_protocol_ranks(build_log):
    data = SequenceDataModule("log", protocol=LeaveOneOut(seen_is_excluded=False), max_length=1)
    data.log = build_log([[0], [0, 1], [0, 1, 0], [3, 1, 2, 0]])
    found = {}
    for batch in data.everyone():
        assert batch.history.lengths.tolist() == [1] * len(batch.users)
        for place, (user, target) in enumerate(zip(batch.users.tolist(), batch.targets.tolist(), strict=True)):
            found[user] = batch.seen.items[batch.seen.owners == place].tolist(), target
    assert found == {2: ([0, 1], 0), 3: ([3, 1, 2], 0)}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_gathered_on_a_gpu_are_the_same(prepared):
    there = SequenceDataModule(prepared)
    there.trainer = Trainer(accelerator="gpu", devices=1, logger=False)
    batches = list(there.train_dataloader())
    assert all(batch.history.items.is_cuda and batch.targets.is_cuda for batch in batches)
    assert contents(batches) == contents(SequenceDataModule(prepared).train_dataloader())


def test_two_ranks_share_the_batches_of_one(prepared, monkeypatch):
    alone = list(SequenceDataModule(prepared).train_dataloader())
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    shares = []
    for rank in (0, 1):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        shares.append(list(SequenceDataModule(prepared).train_dataloader()))
    for whole, left, right in zip(alone, *shares, strict=True):
        assert sorted(whole.users.tolist()) == sorted(left.users.tolist() + right.users.tolist())


class Listening(LightningModule):
    """Learns nothing and writes down what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.heard: dict[int, list[list[int]]] = {}
        self.validated = 0

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        self.heard.setdefault(self.current_epoch, []).append(batch.users.tolist())
        return self.weight * batch.targets.numel()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.validated += batch.targets.numel()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_lightning_shuffles_every_epoch_and_validates_after_each(prepared):
    data = SequenceDataModule(prepared, events_per_batch=256)
    model = Listening()
    trainer = Trainer(
        max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(model, datamodule=data)
    epochs = [[user for users in model.heard[epoch] for user in users] for epoch in range(3)]
    assert len({tuple(users) for users in epochs}) == 3
    assert len({tuple(sorted(users)) for users in epochs}) == 1
    assert model.validated == 3 * len(data.split.validation)


def test_it_is_built_from_a_config(prepared):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(SequenceDataModule, "data")
    chosen = {
        "prepared": prepared,
        "protocol": {"class_path": "seqrec.data.protocol.GlobalTimeSplit", "init_args": {"test_days": 10}},
        "supervision": "seqrec.data.supervision.NewestEvent",
        "max_length": None,
    }
    data = parser.instantiate_classes(parser.parse_object({"data": chosen}))["data"]
    assert isinstance(data.protocol, GlobalTimeSplit)
    assert isinstance(data.supervision, NewestEvent)
    assert data.passport["parameters"]["test_days"] == 10


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_data_config_is_understood(config):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(SequenceDataModule, "data")
    data = parser.instantiate_classes(parser.parse_path(config))["data"]
    assert data.prepared.parent.as_posix() == "data/prepared"
    assert (CARDS / f"{data.prepared.name}.yaml").is_file()


def test_modules_do_not_share_their_defaults(prepared):
    first, second = SequenceDataModule(prepared), SequenceDataModule(prepared)
    assert first.protocol is not second.protocol
    assert first.views is not second.views
    assert isinstance(first.supervision, EveryEvent)


def test_a_missing_folder_is_named_with_the_command_that_makes_it():
    with pytest.raises(FileNotFoundError, match="Run `seqrec prepare beauty` first"):
        _ = SequenceDataModule("data/prepared/no/beauty").catalog


@pytest.mark.parametrize(
    ("argument", "value"), [("max_length", 0), ("events_per_batch", 0), ("seed", -1), ("num_workers", -1)]
)
def test_a_setting_out_of_range_is_named(prepared, argument, value):
    with pytest.raises(ValueError, match=f"{argument} is {value}"):
        SequenceDataModule(prepared, **{argument: value})


def test_a_part_without_targets_says_which_and_why(build_log):
    data = SequenceDataModule("short")
    data.log = build_log([[0, 1], [1, 0]])
    assert isinstance(data.log, Log)
    with pytest.raises(ValueError, match="The test part of short holds no target"):
        data.test_dataloader()
