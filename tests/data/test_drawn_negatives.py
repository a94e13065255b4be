"""Negatives are never a user's own items, come as often as they should, and stand still for evaluation."""

import numpy as np
import pytest
import torch

from seqrec.data.batching import Rows
from seqrec.data.datamodule import SequenceDataModule
from seqrec.data.negatives import Negatives


def draws(log, n=1, exponent=0.0, users=(0,), repeats=1):
    negatives = Negatives(log, log.catalog, n, exponent)
    return negatives.draw(torch.tensor(users).repeat(repeats), torch.Generator().manual_seed(0))


def test_no_user_is_given_an_item_of_its_own(random_log):
    users = torch.arange(300)
    drawn = draws(random_log, n=40, exponent=1.0, users=users.tolist())
    assert drawn.shape == (300, 40)
    for user, negatives in zip(users.tolist(), drawn.tolist(), strict=True):
        assert not set(negatives) & set(random_log.items[slice(*random_log.offsets[user : user + 2])].tolist())


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_items_come_by_a_power_of_their_count(build_log, exponent):
    log = build_log([[0, 0], [1] * 9 + [2] * 4 + [4]], n_items=5)  # item 3 counts as seen once
    drawn = draws(log, n=4, exponent=exponent, users=(0,), repeats=5_000)
    shares = np.array([0, 9, 4, 1, 1]) ** exponent * (np.arange(5) > 0)
    assert (np.bincount(drawn.flatten(), minlength=5) / 20_000).tolist() == pytest.approx(
        (shares / shares.sum()).tolist(), abs=0.02
    )


def test_a_user_who_had_nearly_all_that_is_ever_drawn_still_gets_negatives(build_log):
    log = build_log([[0] * 1000, [1, 2]], n_items=4)
    drawn = draws(log, n=4, exponent=6.0, users=(0,), repeats=200)
    assert set(drawn.flatten().tolist()) == {1, 2, 3}


def test_what_is_left_to_such_a_user_comes_by_a_power_of_its_count_too(build_log):
    """Item 0 is drawn all but always, so what user 0 gets comes from what is left: counts 2, 1 and, never seen, 1."""
    log = build_log([[0] * 1000, [1, 1, 2]], n_items=4)
    drawn = draws(log, n=4, exponent=3.0, users=(0,), repeats=500)
    assert (np.bincount(drawn.flatten(), minlength=4) / 2_000).tolist() == pytest.approx([0, 0.8, 0.1, 0.1], abs=0.04)


def module(log, **settings):
    data = SequenceDataModule("log", negatives=lambda *known: Negatives(*known, n=3), **settings)
    data.log = log
    return data


def test_every_prediction_has_negatives_that_change_by_the_epoch(random_log):
    data = module(random_log)
    rows = np.arange(20)
    first, again, later = (data.training[Rows(epoch, 0, rows)] for epoch in (0, 0, 1))
    assert first.negatives.shape == (len(first.targets), 3)
    assert torch.equal(first.negatives, again.negatives)
    assert not torch.equal(first.negatives, later.negatives)
    owners = first.users[first.history.owners[first.predict_at]]
    for user, negatives in zip(owners.tolist(), first.negatives.tolist(), strict=True):
        assert not set(negatives) & set(random_log.items[slice(*random_log.offsets[user : user + 2])].tolist())


@pytest.mark.parametrize("part", ["val", "test"])
def test_those_of_evaluation_depend_on_neither_seed_nor_batches(random_log, part):
    def of_users(**settings):
        loader = getattr(module(random_log, **settings), f"{part}_dataloader")()
        return {
            user: row
            for batch in loader
            for user, row in zip(batch.users.tolist(), batch.negatives.tolist(), strict=True)
        }

    assert of_users() == of_users(seed=5, evaluation_events_per_batch=100)


def test_validation_and_test_have_negatives_of_their_own(random_log):
    data = module(random_log)
    validation, test = (
        torch.cat([batch.negatives for batch in loader]) for loader in (data.val_dataloader(), data.test_dataloader())
    )
    assert not torch.equal(validation, test)


def test_nobody_draws_unless_asked(random_log):
    data = SequenceDataModule("log")
    data.log = random_log
    assert data.training[Rows(0, 0, np.arange(3))].negatives is None
    assert next(iter(data.val_dataloader())).negatives is None


def test_what_cannot_be_drawn_is_refused(build_log):
    log = build_log([[0, 1], [0, 1, 2]])
    with pytest.raises(ValueError, match="had all 3 items"):
        Negatives(log, log.catalog)
    with pytest.raises(ValueError, match="n is 0"):
        Negatives(log, log.catalog, n=0)
