"""The defences beside LoRec: who is dropped, and what a worst step does to the loss."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from torch.nn import functional as F

from seqrec.audience import Audience
from seqrec.batch import Batch
from seqrec.catalog import Catalog
from seqrec.objectives.adversarial import AdversarialPerturbation
from seqrec.objectives.isolation import FEATURES, IsolationForest, profile_statistics
from seqrec.objectives.softmax import FullSoftmax
from seqrec.objectives.text_detector import TextDetector
from seqrec.recommenders.base import Encoded
from seqrec.sequences import Sequences

N_ITEMS, N_USERS, N_FAKES = 40, 100, 5
CATALOG = Catalog(pl.DataFrame({"item_id": [f"i{row}" for row in range(N_ITEMS)], "count": [1] * N_ITEMS}))


@pytest.fixture
def audience() -> Audience:
    """Users who keep to one half of the items; the last five, and the known fraudsters, take from both."""
    random = np.random.default_rng(0)

    def loyal():
        return (random.choice(20, 10, replace=False) + 20 * random.integers(2)).tolist()

    def mixed():
        return random.choice(N_ITEMS, 30, replace=False).tolist()

    users = Sequences.pack([loyal() for _ in range(N_USERS - N_FAKES)] + [mixed() for _ in range(N_FAKES)])
    return Audience(CATALOG, N_USERS, torch.arange(N_USERS), users, Sequences.pack([mixed() for _ in range(20)]))


def test_texts_give_away_who_mixes_what_others_do_not(audience, tmp_path):
    sides = [[1.0 if row < 20 else -1.0, 0.5] for row in range(N_ITEMS)]
    pl.DataFrame({"item_id": CATALOG.ids, "vector": sides}).write_parquet(tmp_path / "vectors.parquet")
    detector = TextDetector(str(tmp_path / "vectors.parquet"), hidden_dim=16, batch_users=10)
    detector.begin(lambda: audience)
    assert detector.weights[-N_FAKES:].tolist() == [0.0] * N_FAKES
    assert detector.weights[:-N_FAKES].tolist() == [1.0] * (N_USERS - N_FAKES)


def test_who_is_scored_beside_whom_says_nothing_of_a_user(audience, tmp_path):
    """Among genuine users alone, of two kinds, the one kind must not look fake because the other looks even less so."""
    sides = [[1.0 if row < 20 else -1.0, 0.5] for row in range(N_ITEMS)]
    pl.DataFrame({"item_id": CATALOG.ids, "vector": sides}).write_parquet(tmp_path / "vectors.parquet")
    loyal = torch.arange(N_USERS - N_FAKES)
    genuine = replace(audience, users=loyal, histories=audience.histories.chosen(loyal))
    detector = TextDetector(str(tmp_path / "vectors.parquet"), hidden_dim=16, batch_users=10)
    detector.begin(lambda: genuine)
    assert detector.weights.tolist() == [1.0] * N_USERS


def test_a_forest_drops_the_share_that_it_is_told_and_the_odd_ones_first(audience):
    forest = IsolationForest(share=0.05)
    forest.begin(lambda: audience)
    assert torch.nonzero(forest.weights == 0).squeeze(1).tolist() == list(range(N_USERS - N_FAKES, N_USERS))


def test_the_statistics_of_a_profile_by_hand():
    found = profile_statistics(Sequences.pack([[0, 1, 0], [0, 1], [2]]), n_items=3)
    named = dict(zip(FEATURES, found.T, strict=True))
    assert named["events"].tolist() == pytest.approx(np.log1p([3, 2, 1]).tolist())
    popularity = np.log1p([3, 2, 1])  # of items 0, 1 and 2
    assert named["mean popularity"].tolist() == pytest.approx(
        [(2 * popularity[0] + popularity[1]) / 3, popularity[:2].mean(), popularity[2]]
    )
    assert named["share of known transitions"].tolist() == [0.5, 1.0, 0.0]  # 0 to 1 occurs twice, 1 to 0 once
    assert named["share of repeats"].tolist() == pytest.approx([1 / 3, 0, 0])
    assert named["spread of popularity"].tolist() == pytest.approx(
        [(popularity[0] - popularity[1]) * 2**0.5 / 3, (popularity[0] - popularity[1]) / 2, 0]
    )
    assert named["share of unpopular items"].tolist() == [0, 0, 1]  # than the median, which is item 1
    assert named["share of popular items"].tolist() == pytest.approx([2 / 3, 1 / 2, 0])  # above the 95th percentile
    all_alike = dict(zip(FEATURES, profile_statistics(Sequences.pack([[0, 1], [1, 0]]), n_items=2).T, strict=True))
    assert not all_alike["share of unpopular items"].any()
    assert not all_alike["share of popular items"].any()


def test_the_worst_step_raises_the_loss_more_than_a_random_one_of_the_same_length():
    torch.manual_seed(0)
    history = Sequences.pack([[0, 1], [2]])
    batch = Batch(torch.arange(2), history, torch.arange(3), torch.tensor([1, 2, 3]))
    queries, table = torch.randn(3, 4), torch.randn(6, 4)

    counts = torch.ones(6).long()

    def encoded(queries, table):
        return Encoded(batch, queries, queries, lambda rows: table if rows is None else table[rows], counts)

    plain = FullSoftmax()(encoded(queries, table)).mean()
    worst = AdversarialPerturbation(epsilon=0.1)(encoded(queries, table))
    steps = [0.1 * F.normalize(torch.randn_like(part), dim=1) for part in (queries, table)]
    by_chance = FullSoftmax()(encoded(queries + steps[0], table + steps[1])).mean()
    assert worst > plain
    assert worst > by_chance
    leaves = [part.clone().requires_grad_() for part in (queries, table)]
    slopes = torch.autograd.grad(F.cross_entropy(leaves[0] @ leaves[1].T, batch.targets), leaves)
    moved = [  # each query and each key by as much
        part + 0.1 * slope / slope.norm(dim=1, keepdim=True)
        for part, slope in zip((queries, table), slopes, strict=True)
    ]
    torch.testing.assert_close(worst, F.cross_entropy(moved[0] @ moved[1].T, batch.targets))
    halved = AdversarialPerturbation(epsilon=0.1)(encoded(queries.bfloat16(), table))
    exact = AdversarialPerturbation(epsilon=0.1)(encoded(queries.bfloat16().float(), table))
    torch.testing.assert_close(halved, exact, rtol=1e-5, atol=1e-5)
    hardly = AdversarialPerturbation(epsilon=1e-6)(encoded(queries, table))
    assert hardly.item() == pytest.approx(plain.item(), abs=1e-4)
