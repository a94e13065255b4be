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
