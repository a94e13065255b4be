"""What every scorer must obey. A new one adds one line to ``CASES``."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seqrec.nn.hyperbolic import FixedCurvature, LearnedCurvature
from seqrec.scorers import Cosine, DistanceScore, Dot, Lorentz

CASES = [
    pytest.param(Dot, {}, id="Dot"),
    pytest.param(Cosine, {}, id="Cosine"),
    pytest.param(Cosine, {"temperature": 1.0}, id="Cosine, as it is"),
    *(
        pytest.param(Lorentz, {"curvature": LearnedCurvature(), "score": score}, id=f"Lorentz, {score.name}")
        for score in DistanceScore
    ),
    pytest.param(Lorentz, {"curvature": FixedCurvature(7.0)}, id="Lorentz, flatter"),
]
each_scorer = pytest.mark.parametrize(("build", "arguments"), CASES)

DIM = 8
shapes = st.lists(st.integers(0, 3), max_size=3).map(tuple)


def ready(build, arguments):
    torch.manual_seed(0)
    return build(**copy.deepcopy(arguments))


def products(scorer, states, items):
    return scorer.queries(states) @ scorer.keys(items).T


@each_scorer
@settings(max_examples=20)
@given(shape=shapes)
def test_states_and_items_of_any_shape_give_queries_and_keys_of_one_width(build, arguments, shape):
    scorer, vectors = ready(build, arguments), torch.randn(*shape, DIM)
    width = scorer.queries(torch.randn(DIM)).numel()
    for made in (scorer.queries(vectors), scorer.keys(vectors)):
        assert made.shape == (*shape, width)
        assert made.dtype == torch.float32


@each_scorer
def test_no_query_and_no_key_depends_on_what_stands_beside_it(build, arguments):
    scorer, vectors = ready(build, arguments), torch.randn(6, DIM)
    for side in (scorer.queries, scorer.keys):
        torch.testing.assert_close(side(vectors), torch.stack([side(vector) for vector in vectors]))
        torch.testing.assert_close(side(vectors.view(2, 3, DIM)).flatten(0, 1), side(vectors))


@each_scorer
def test_ranking_by_score_is_ranking_by_inner_product(build, arguments):
    scorer = ready(build, arguments)
    found = products(scorer, torch.randn(20, DIM), 0.3 * torch.randn(300, DIM))
    scores = scorer.scores(found)
    assert scores.shape == found.shape
    rising = scores.gather(1, found.argsort(dim=1))
    assert (rising.diff(dim=1) >= 0).all()
    assert (rising[:, -1] > rising[:, 0]).all()


@each_scorer
@settings(max_examples=20)
@given(shape=shapes)
def test_a_score_depends_on_its_own_inner_product_alone(build, arguments, shape):
    scorer = ready(build, arguments)
    found = -1 - 5 * torch.rand(shape)  # every scorer can make these
    scores = scorer.scores(found)
    assert scores.shape == shape
    alone = [scorer.scores(product) for product in found.flatten()]
    torch.testing.assert_close(scores.flatten(), torch.stack(alone) if alone else found.flatten())


@each_scorer
@pytest.mark.parametrize("size", [0.0, 1e-20, 1e-3, 1.0, 1e4, 1e12])
def test_scores_and_gradients_are_finite_in_float32_for_vectors_of_any_size(build, arguments, size):
    scorer = ready(build, arguments)
    items = (size * torch.randn(10, DIM)).requires_grad_()
    states = torch.cat([torch.randn(4, DIM), torch.zeros(1, DIM), torch.full((1, DIM), 1e12)]).requires_grad_()
    scores = scorer.scores(products(scorer, states, items))
    assert scores.dtype == torch.float32
    assert scores.isfinite().all()
    scores.sum().backward()
    for leaf in (states, items, *scorer.parameters()):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()


@each_scorer
def test_gradients_reach_every_state_every_item_and_every_parameter(build, arguments):
    scorer = ready(build, arguments)
    states, items = (0.3 * torch.randn(5, DIM)).requires_grad_(), (0.3 * torch.randn(7, DIM)).requires_grad_()
    scores = scorer.scores(products(scorer, states, items))
    (scores * torch.randn_like(scores)).sum().backward()
    assert (states.grad.abs().sum(1) > 0).all()
    assert (items.grad.abs().sum(1) > 0).all()
    for name, parameter in scorer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@each_scorer
def test_a_step_that_raises_the_score_of_an_item_raises_its_inner_product(build, arguments):
    scorer = ready(build, arguments)
    state, item = (0.3 * torch.randn(1, DIM)).requires_grad_(), 0.3 * torch.randn(1, DIM)
    before = products(scorer, state, item)
    (gradient,) = torch.autograd.grad(scorer.scores(before).sum(), state)
    assert products(scorer, state + 1e-3 * gradient / gradient.norm(), item) > before


@each_scorer
def test_scores_stay_close_and_finite_under_bfloat16_autocast(build, arguments):
    scorer = ready(build, arguments)
    states, items = torch.randn(5, DIM), 0.3 * torch.randn(7, DIM)
    exact = scorer.scores(products(scorer, states, items))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        queries, keys = scorer.queries(states), scorer.keys(items)
    narrow = scorer.scores(queries.float() @ keys.float().T)
    assert narrow.isfinite().all()
    torch.testing.assert_close(narrow, exact, rtol=0.05, atol=0.05)
