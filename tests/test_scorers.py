"""Whatever a scorer means by a score, inner products of its queries and keys rank as it does."""

import math

import polars as pl
import pytest
import torch

from seqrec.backbones.hmamba import HMamba
from seqrec.catalog import Catalog
from seqrec.embeddings.ids import IdEmbedding
from seqrec.nn.hyperbolic import FixedCurvature, distance, exp_origin, lift
from seqrec.recommenders.sequential import SequentialRecommender
from seqrec.scorers import Cosine, DistanceScore, Dot, Lorentz
from seqrec.sequences import Sequences

CURVATURES = [0.3, 1.0, 7.0]


def lorentz(k=1.0, score=DistanceScore.squared_distance, dtype=torch.float64):
    return Lorentz(FixedCurvature(k), score).to(dtype)


def states_and_items(n_states=20, n_items=300, dim=8, dtype=torch.float64):
    torch.manual_seed(0)
    return torch.randn(n_states, dim, dtype=dtype), 0.7 * torch.randn(n_items, dim, dtype=dtype)


def distances(states, items, k):
    k = torch.tensor(k, dtype=torch.float64)
    return distance(*torch.broadcast_tensors(lift(states.double(), k)[:, None], exp_origin(items.double(), k)), k)


def products(scorer, states, items):
    return scorer.queries(states) @ scorer.keys(items).T


@pytest.mark.parametrize("k", CURVATURES)
def test_inner_products_rank_as_distances_do(k):
    states, items = states_and_items()
    order = products(lorentz(k), states, items).argsort(dim=1, descending=True)
    assert torch.equal(order, distances(states, items, k).argsort(dim=1))


@pytest.mark.parametrize("k", CURVATURES)
def test_an_inner_product_is_the_lorentz_product_of_a_lifted_state_and_a_mapped_item(k):
    states, items = states_and_items(2, 3)
    root, length = k**0.5, items.norm(dim=1)
    time = root * (length / root).cosh()
    space = root * (length / root).sinh()[:, None] * items / length[:, None]
    by_hand = states @ space.T - (states.square().sum(1) + k).sqrt()[:, None] * time
    torch.testing.assert_close(products(lorentz(k), states, items), by_hand)


@pytest.mark.parametrize("k", CURVATURES)
def test_scores_are_made_of_distances(k):
    states, items = states_and_items()
    apart = distances(states, items, k)
    for score, expected in {
        DistanceScore.negative_distance: -2 * apart,
        DistanceScore.squared_distance: -2 - 2 * apart.square(),
        DistanceScore.released: -2 - 2 * apart.clamp(max=k**0.5 * math.acosh(10)).square(),
    }.items():
        scorer = lorentz(k, score)
        torch.testing.assert_close(scorer.scores(products(scorer, states, items)), expected, rtol=1e-6, atol=1e-6)


def test_the_released_score_at_tiny_items_and_beyond_its_ceiling():
    torch.manual_seed(0)
    scorer = lorentz(1.0, DistanceScore.released, torch.float32)
    state = torch.nn.functional.layer_norm(torch.randn(1, 64), (64,))
    torch.testing.assert_close(
        scorer.scores(products(scorer, state, torch.full((1, 64), 1e-9))),
        torch.tensor([[-2 - 2 * math.acosh(65**0.5) ** 2]]),  # -17.42
        rtol=1e-5,
        atol=0,
    )
    across = torch.linalg.svd(state).Vh[1:2]  # a unit vector orthogonal to the state
    items = torch.cat([0.67 * across, 0.69 * across, -state]).requires_grad_()
    scores = scorer.scores(products(scorer, state, items))[0]
    (gradient,) = torch.autograd.grad(scores.sum(), items)
    assert scores[0] > -19.9187
    torch.testing.assert_close(scores[1:], torch.full((2,), -2 - 2 * math.acosh(10) ** 2), rtol=1e-5, atol=0)  # -19.919
    assert scores[1] == scores[2]
    assert (gradient.abs().sum(1) > 0).tolist() == [True, False, False]


@pytest.mark.parametrize("score", list(DistanceScore))
def test_lorentz_scores_rise_with_every_inner_product_below_the_ceiling(score):
    theta = torch.linspace(1, 10, 900)
    scores = lorentz(1.0, score, torch.float32).scores(-theta)
    assert (scores.diff() < 0).all()


@pytest.mark.parametrize("scorer", [Dot(), Cosine()])
def test_inner_products_are_the_scores_of_the_others(scorer):
    assert torch.equal(scorer.scores(torch.tensor([1.0, -3.0])), torch.tensor([1.0, -3.0]))


def test_a_space_of_little_curvature_ranks_by_euclidean_distance():
    states, items = states_and_items()
    scorer = lorentz(1e6)
    apart = torch.cdist(states, items)
    scores = scorer.scores(products(scorer, states, items))
    assert torch.equal(scores.argsort(dim=1), (-apart.square()).argsort(dim=1))
    torch.testing.assert_close(scores, -2 - 2 * apart.square(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("score", list(DistanceScore))
def test_gradients_are_finite_where_an_item_is_the_users_own_point(score):
    scorer = lorentz(1.0, score, torch.float32)
    items = torch.tensor([[0.4, -0.3], [0.0, 0.0], [3.0, 4.0]], requires_grad=True)
    states = scorer.keys(items)[:, 1:].detach().requires_grad_()
    own = scorer.scores((scorer.queries(states) * scorer.keys(items)).sum(1))
    assert own.isfinite().all()
    own.sum().backward()
    for leaf in (states, items):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()


def test_geometry_is_float32_under_autocast():
    states, items = (x.bfloat16() for x in states_and_items(dtype=torch.float32))
    scorer = lorentz(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        queries, keys = scorer.queries(states), scorer.keys(items)
    assert queries.dtype == keys.dtype == torch.float32
    torch.testing.assert_close(queries, scorer.queries(states.float()))
    torch.testing.assert_close(keys, scorer.keys(items.float()))


@pytest.mark.parametrize("k", CURVATURES)
def test_faiss_ranks_as_distances_do(k):
    pytest.importorskip("faiss")
    from seqrec.export.index import KeyIndex

    states, items = states_and_items(dtype=torch.float32)
    scorer = lorentz(k, dtype=torch.float32)
    rows, _ = KeyIndex(scorer.keys(items)).search(scorer.queries(states), 50)
    apart = distances(states, items, k)
    nearest = apart.sort(dim=1)
    torch.testing.assert_close(apart.gather(1, rows), nearest.values[:, :50], rtol=0, atol=1e-5)
    gaps = torch.nn.functional.pad(nearest.values.diff(), (1, 1), value=torch.inf)
    clear = (torch.minimum(gaps[:, :-1], gaps[:, 1:]) > 1e-5)[:, :50]  # what float32 can tell apart
    assert clear.float().mean() > 0.99
    assert torch.equal(rows[clear], nearest.indices[:, :50][clear])


def test_a_recommender_recommends_the_nearest_items():
    torch.manual_seed(0)
    catalog = Catalog(pl.DataFrame({"item_id": [str(row) for row in range(40)], "count": [1] * 40}))
    recommender = SequentialRecommender(
        catalog, lambda catalog: IdEmbedding(catalog, 8, init_std=0.5), HMamba(8), scorer=Lorentz()
    ).eval()
    history = Sequences.pack([[3, 1, 4], [1], [5, 9, 2, 6]])
    with torch.no_grad():
        apart = distances(recommender.states(history)[history.newest], recommender.embedding(), 1.0)
    assert torch.equal(recommender.recommend(history, 10).items, apart.argsort(dim=1)[:, :10])
