"""Metrics against a table made by hand and against ranx."""

import json
import math
import os
import subprocess
import sys

import pytest
import torch

from seqrec.evaluation import metrics
from seqrec.ops.ranking import ranks_of_scores

# Five users, six items. The target's rivals that score at least as high are counted by hand.
SCORES = torch.tensor(
    [
        [9.0, 1.0, 2.0, 3.0, 4.0, 5.0],  # target 0: nothing is better: rank 0
        [9.0, 1.0, 2.0, 3.0, 4.0, 5.0],  # target 5: item 0 is better: rank 1
        [7.0, 7.0, 7.0, 1.0, 1.0, 1.0],  # target 1: items 0 and 2 tie and count against it: rank 2
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0],  # target 3: all tie: rank 5
        [5.0, 4.0, 3.0, 2.0, 1.0, 0.0],  # target 4: items 0 to 3 are better: rank 4
    ]
)
TARGETS = torch.tensor([0, 5, 1, 3, 4])
RANKS = torch.tensor([0, 1, 2, 5, 4])


def test_ties_count_against_the_target():
    assert ranks_of_scores(SCORES, TARGETS).tolist() == RANKS.tolist()


def test_the_table_of_five_users():
    assert metrics.recall(RANKS, 2).tolist() == [1, 1, 0, 0, 0]
    assert metrics.ndcg(RANKS, 3).tolist() == pytest.approx([1, 1 / math.log2(3), 0.5, 0, 0])
    assert metrics.ndcg(RANKS, 5).mean().item() == pytest.approx((1 + 1 / math.log2(3) + 0.5 + 1 / math.log2(6)) / 5)
    assert metrics.mrr(RANKS, 3).tolist() == pytest.approx([1, 1 / 2, 1 / 3, 0, 0])
    assert metrics.mrr(RANKS).mean().item() == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 6 + 1 / 5) / 5)


# In a process of its own: interpreted, what ranx would compile for a minute takes a moment.
BY_RANX = """
import json, ranx, sys
scores, targets, names = json.load(sys.stdin)
relevant = ranx.Qrels({f"u{user}": {f"i{target}": 1} for user, target in enumerate(targets)})
run = ranx.Run({f"u{user}": {f"i{item}": score for item, score in enumerate(row)} for user, row in enumerate(scores)})
print(json.dumps({name: float(value) for name, value in ranx.evaluate(relevant, run, names).items()}))
"""


def test_ranx_agrees():
    pytest.importorskip("ranx")
    scores = torch.rand(40, 30, generator=torch.Generator().manual_seed(1))
    targets = torch.arange(40) % 30
    ranks = ranks_of_scores(scores, targets)
    ours = {
        f"{name}@{k}": getattr(metrics, name)(ranks, k).mean().item()
        for name in ("recall", "ndcg", "mrr")
        for k in (1, 5, 10)
    }
    asked = json.dumps([scores.tolist(), targets.tolist(), list(ours)])
    interpreted = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    command = [sys.executable, "-c", BY_RANX]
    done = subprocess.run(command, input=asked, env=interpreted, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == pytest.approx(ours)


def test_coverage_counts_items_that_anyone_is_shown():
    lists = torch.tensor([[0, 1, 2], [0, 3, -1]])
    assert metrics.shown(lists, 2, n_items=8).tolist() == [2, 1, 0, 1, 0, 0, 0, 0]
    assert metrics.coverage(metrics.shown(lists, 2, n_items=8)) == 3 / 8
    assert metrics.coverage(metrics.shown(lists, 3, n_items=8)) == 4 / 8


def test_items_of_one_count_share_their_mean_popularity_rank():
    counts = torch.tensor([5, 9, 5, 1])
    assert metrics.popularity_ranks(counts).tolist() == [1.5, 0, 1.5, 3]
    shown = torch.tensor([0, 3, 1, 0])
    assert metrics.popularity_rank(shown, counts) == pytest.approx(1.5 / 4)
