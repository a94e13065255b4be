"""AUC against every pair counted, and by hand."""

import math

import pytest
import torch

from seqrec.evaluation.clicks import auc, gauc, log_loss, user_aucs


def counted(scores, clicked):
    """Share of the pairs of a clicked and an unclicked impression that are in order, ties half; None without pairs."""
    pairs = [
        (s, t) for s, c in zip(scores, clicked, strict=True) if c for t, d in zip(scores, clicked, strict=True) if not d
    ]
    return sum((s > t) + (s == t) / 2 for s, t in pairs) / len(pairs) if pairs else None


def impressions(n=400, n_users=25, n_scores=30):
    torch.manual_seed(0)
    users = 7 * torch.randint(n_users, (n,)) + 3
    return torch.randint(n_scores, (n,)) / 4 - 3, torch.rand(n) < users / users.max(), users


@pytest.mark.parametrize("n_scores", [1, 3, 30, 10**6])
@pytest.mark.parametrize("n", [2, 40, 400])
def test_every_pair_of_a_user_is_counted(n, n_scores):
    scores, clicked, users = impressions(n, n_scores=n_scores)
    wanted = []
    for user in users.unique():
        own = users == user
        value = counted(scores[own].tolist(), clicked[own].tolist())
        if value is not None:
            wanted.append((value, int(own.sum())))
    found = user_aucs(scores, clicked, users)
    assert found[0].tolist() == pytest.approx([value for value, _ in wanted])
    assert found[1].tolist() == [n_own for _, n_own in wanted]
    weighed = sum(value * n_own for value, n_own in wanted) / max(1, sum(n_own for _, n_own in wanted))
    assert gauc(scores, clicked, users) == pytest.approx(weighed if wanted else math.nan, nan_ok=True)
    everyone = counted(scores.tolist(), clicked.tolist())
    assert auc(scores, clicked) == pytest.approx(math.nan if everyone is None else everyone, nan_ok=True)


def test_a_table_of_three_users():
    scores = torch.tensor([0.9, 0.1, 0.5, 0.5, 0.2, 0.3, 0.7])
    clicked = torch.tensor([True, False, True, False, True, False, True])
    users = torch.tensor([4, 4, 9, 9, 9, 9, 1])  # 4 is in order, 9 has 1.5 of 4 pairs, 1 never declined anything
    aucs, shown = user_aucs(scores, clicked, users)
    assert aucs.tolist() == [1.0, 1.5 / 4]
    assert shown.tolist() == [2, 4]
    assert gauc(scores, clicked, users) == pytest.approx((2 * 1.0 + 4 * 1.5 / 4) / 6)
    assert auc(scores, clicked) == pytest.approx((3 + 2.5 + 1 + 3) / 12)


def test_any_increasing_change_of_scores_changes_nothing():
    scores, clicked, users = impressions(n_scores=10**6)
    assert gauc(scores.double() ** 3, clicked, users) == pytest.approx(gauc(scores.double(), clicked, users))


def test_log_loss_by_hand():
    logits, clicked = torch.tensor([0.0, math.log(3)]), torch.tensor([True, False])
    assert log_loss(logits, clicked) == pytest.approx((math.log(2) + math.log(4)) / 2)


def test_scores_that_are_not_finite_are_refused():
    with pytest.raises(FloatingPointError, match="1 of 2 scores"):
        auc(torch.tensor([math.nan, 1.0]), torch.tensor([True, False]))


def test_scikit_learn_agrees():
    metrics = pytest.importorskip("sklearn.metrics")
    scores, clicked, _ = impressions()
    assert auc(scores, clicked) == pytest.approx(metrics.roc_auc_score(clicked, scores))
    assert log_loss(scores, clicked) == pytest.approx(metrics.log_loss(clicked, scores.double().sigmoid()))


def test_ranks_beyond_what_single_precision_tells_apart_are_ranks():
    """Whoever comes behind sixteen million impressions of others still shares half ranks."""
    n = 2**24
    scores = torch.cat([torch.zeros(n), torch.tensor([0.5, 0.5, 0.5, 0.1])])
    clicked = torch.cat([torch.zeros(n, dtype=torch.bool), torch.tensor([True, False, False, False])])
    users = torch.cat([torch.zeros(n, dtype=torch.long), torch.ones(4, dtype=torch.long)])
    aucs, shown = user_aucs(scores, clicked, users)
    assert aucs.tolist() == [pytest.approx(2 / 3)]
    assert shown.tolist() == [4]
