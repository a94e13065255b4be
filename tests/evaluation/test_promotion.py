"""Target metrics by hand: three users, two targets."""

import math

import pytest
import torch

from seqrec.evaluation.promotion import promotion


def test_by_hand_each_target_counts_the_same_however_many_users_lack_it():
    # The first target: ranks 0 and 3 for the two who lack it. The second: rank 1 for the only one who lacks it.
    ranks = torch.tensor([[0, 3, 0], [0, 0, 1]])
    lacks = torch.tensor([[True, True, False], [False, False, True]])
    found = promotion(ranks, lacks, cutoffs=(1, 2))
    assert found["t_hr@1"] == pytest.approx((1 / 2 + 0) / 2)
    assert found["t_hr@2"] == pytest.approx((1 / 2 + 1) / 2)
    assert found["t_ndcg@2"] == pytest.approx((1 / 2 + 1 / math.log2(3)) / 2)
    assert found["t_rank"] == pytest.approx(((1 + 4) / 2 + 2) / 2)


def test_a_target_that_everyone_has_is_left_out_and_only_such_are_refused():
    ranks, lacks = torch.tensor([[0], [5]]), torch.tensor([[True], [False]])
    assert promotion(ranks, lacks)["t_rank"] == 1.0
    with pytest.raises(ValueError, match="other targets"):
        promotion(ranks, torch.zeros_like(lacks))
