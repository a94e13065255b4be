"""Detection by hand, and the area under the curve against scikit-learn's."""

import math

import pytest
import torch

from seqrec.evaluation import detection


def test_precision_and_recall_by_hand():
    is_fake = torch.tensor([True, True, False, False, True])
    flagged = torch.tensor([True, False, True, False, False])
    assert detection.precision(flagged, is_fake) == pytest.approx(1 / 2)
    assert detection.recall(flagged, is_fake) == pytest.approx(1 / 3)


def test_what_cannot_be_said_is_not_a_number():
    nobody = torch.zeros(3, dtype=torch.bool)
    assert math.isnan(detection.precision(nobody, ~nobody))
    assert math.isnan(detection.recall(~nobody, nobody))
    assert math.isnan(detection.auc(torch.rand(3), nobody))


def test_the_area_is_that_of_another_program_with_ties():
    metrics = pytest.importorskip("sklearn.metrics")
    generator = torch.Generator().manual_seed(0)
    suspicion = torch.randint(0, 9, (200,), generator=generator).float()
    is_fake = torch.rand(200, generator=generator) < 0.1 + 0.05 * suspicion
    wanted = metrics.roc_auc_score(is_fake.numpy(), suspicion.numpy())
    assert detection.auc(suspicion, is_fake) == pytest.approx(wanted)
    assert detection.auc(-suspicion, is_fake) == pytest.approx(1 - wanted)


def test_what_length_alone_gives_away_counts_for_nothing_within_a_length():
    lengths = torch.tensor([1, 1, 2, 2, 2, 2, 3])
    is_fake = torch.tensor([False, False, True, True, False, False, True])
    assert detection.auc(lengths.float(), is_fake) == pytest.approx((2 * (2 + 1) + 4) / 12)
    assert detection.auc_within(lengths.float(), is_fake, lengths) == 0.5  # nobody else has three events
    assert detection.auc_within(torch.tensor([9.0, 9, 5, 1, 4, 0, 9]), is_fake, lengths) == pytest.approx((1 + 0.5) / 2)
    assert math.isnan(detection.auc_within(lengths.float(), is_fake, torch.arange(7)))


def test_each_fake_counts_the_same_in_the_area_within_lengths():
    """One length with two fakes who stand out, and one with a fake whom all others exceed, however many they are."""
    lengths = torch.tensor([1, 1, 1] + [2] * 11)
    is_fake = torch.tensor([True, True, False, True] + [False] * 10)
    suspicion = torch.tensor([1.0, 1, 0, 0] + [1.0] * 10)
    assert detection.auc_within(suspicion, is_fake, lengths) == pytest.approx(2 / 3)
