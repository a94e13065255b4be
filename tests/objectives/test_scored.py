"""Training on hyperbolic distances: HMamba's released loss, worked out in plain steps."""

import polars as pl
import pytest
import torch
from torch.nn import functional as F

from seqrec.backbones.hmamba import HMamba
from seqrec.batch import Batch
from seqrec.catalog import Catalog
from seqrec.embeddings.ids import IdEmbedding
from seqrec.objectives.scored import KeyLength, ScoredSoftmax
from seqrec.objectives.softmax import FullSoftmax
from seqrec.recommenders.sequential import SequentialRecommender
from seqrec.scorers import DistanceScore, Dot, Lorentz
from seqrec.sequences import Sequences

HISTORY = Sequences.pack([[3, 1, 4], [1], [5, 9, 2, 6]])
BATCH = Batch(torch.arange(3), HISTORY, HISTORY.newest, torch.tensor([7, 8, 11]))


def recommender(scorer):
    torch.manual_seed(0)
    catalog = Catalog(pl.DataFrame({"item_id": [str(row) for row in range(12)], "count": [1] * 12}))
    return SequentialRecommender(catalog, lambda catalog: IdEmbedding(catalog, 16, 0.3), HMamba(16), scorer).eval()


def test_the_released_loss_is_the_cross_entropy_of_squared_distances_and_the_length_of_what_is_read():
    made = recommender(Lorentz(score=DistanceScore.released))
    encoded = made.encode(BATCH)
    m, e = made.states(HISTORY)[HISTORY.newest], made.embedding()
    length = e.norm(dim=1, keepdim=True)
    y = torch.cat([length.cosh(), length.sinh() * e / length], dim=1)
    theta = (m.square().sum(1, keepdim=True) + 1).sqrt() * y[:, 0] - m @ y[:, 1:].T
    scores = -2 - 2 * torch.acosh(theta.clamp(1 + 1e-7, 10)).square()
    assert (theta > 10).any()
    losses = F.cross_entropy(scores, BATCH.targets, reduction="none")
    torch.testing.assert_close(ScoredSoftmax()(encoded), losses, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(KeyLength()(encoded), y.norm(dim=1)[HISTORY.items].mean())
    assert KeyLength().weight == 1


def test_where_scores_are_inner_products_it_is_the_full_softmax():
    encoded = recommender(Dot()).encode(BATCH)
    torch.testing.assert_close(ScoredSoftmax()(encoded), FullSoftmax()(encoded))


@pytest.mark.parametrize("score", list(DistanceScore))
def test_a_few_steps_learn_the_targets(score):
    made = recommender(Lorentz(score=score)).train()
    # Of its dropout: where chance drives a target beyond the cut of the released score, that has no gradient left.
    torch.manual_seed(1)
    optimiser = torch.optim.Adam(made.parameters(), lr=0.01)
    for _ in range(60):
        encoded = made.encode(BATCH)
        loss = ScoredSoftmax()(encoded).mean() + 0.01 * KeyLength()(encoded)
        optimiser.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in made.parameters())
        optimiser.step()
    assert (made.eval().ranks(BATCH) == 0).all()
