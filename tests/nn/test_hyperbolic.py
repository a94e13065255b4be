"""The Lorentz model against geoopt, against numbers worked out by hand, and at its extremes."""

import math

import geoopt
import pytest
import torch

from seqrec.nn.hyperbolic import (
    FixedCurvature,
    LearnedCurvature,
    arcosh,
    distance,
    exp_origin,
    lift,
    log_origin,
    lorentz_product,
)

CURVATURES = [0.3, 1.0, 7.0]
each_k = pytest.mark.parametrize("k", [torch.tensor(k, dtype=torch.float64) for k in CURVATURES], ids=CURVATURES)


def tangents(n=60, dim=5, longest=5.0, k=1.0):
    """Vectors from nearly nothing up to ``longest`` times √k."""
    torch.manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(n, dim, dtype=torch.float64), dim=-1)
    return directions * torch.linspace(1e-6, longest, n, dtype=torch.float64)[:, None] * k**0.5


def test_hand_made_points():
    # cosh(ln 2) = 5/4 and sinh(ln 2) = 3/4
    v, two = torch.tensor([[0.0, math.log(2.0)]]), torch.tensor([[0.0, 2 * math.log(2.0)]])
    torch.testing.assert_close(exp_origin(v, torch.tensor(1.0)), torch.tensor([[1.25, 0.0, 0.75]]))
    torch.testing.assert_close(exp_origin(two, torch.tensor(4.0)), torch.tensor([[2.5, 0.0, 1.5]]))
    torch.testing.assert_close(log_origin(torch.tensor([[2.5, 0.0, 1.5]]), torch.tensor(4.0)), two)
    torch.testing.assert_close(lift(torch.tensor([[3.0, 4.0]]), torch.tensor(11.0)), torch.tensor([[6.0, 3.0, 4.0]]))
    # -5 · 6 + 1 · 2 + 2 · 3
    assert lorentz_product(torch.tensor([5.0, 1.0, 2.0]), torch.tensor([6.0, 2.0, 3.0])) == -22
    # Both ways lead through the origin, one over ln 2 and one over ln 3.
    points = exp_origin(torch.tensor([[math.log(2.0)], [-math.log(3.0)]]), torch.tensor(1.0))
    torch.testing.assert_close(distance(points[0], points[1], torch.tensor(1.0)), torch.tensor(math.log(6.0)))


@each_k
def test_values_and_gradients_equal_those_of_geoopt(k):
    manifold = geoopt.Lorentz(k)
    v = tangents(k=float(k))[5:].requires_grad_()  # geoopt loses digits next to the origin
    padded = torch.cat([v.new_zeros(len(v), 1), v], dim=1)
    weights = torch.randn(len(v), v.shape[1] + 1, dtype=torch.float64)
    points, theirs = exp_origin(v, k), manifold.expmap0(padded)
    others, their_others = points.flip(0)[1:], theirs.flip(0)[1:]
    pairs = {
        "exp_origin": (points, theirs),
        "log_origin": (log_origin(points, k), manifold.logmap0(theirs)[:, 1:]),
        "lift": (lift(v, k), manifold.projx(padded)),
        "lorentz_product": (lorentz_product(points[1:], others), manifold.inner(None, theirs[1:], their_others)),
        "distance": (distance(points[1:], others, k), manifold.dist(theirs[1:], their_others)),
    }
    for name, (mine, reference) in pairs.items():
        torch.testing.assert_close(mine, reference, rtol=1e-7, atol=1e-6, msg=lambda why, name=name: f"{name}: {why}")
    for name in ("exp_origin", "lift"):
        mine, reference = (torch.autograd.grad((each * weights).sum(), v, retain_graph=True)[0] for each in pairs[name])
        torch.testing.assert_close(mine, reference, rtol=1e-7, atol=1e-7)
    mine, reference = (torch.autograd.grad(each.sum(), v, retain_graph=True)[0] for each in pairs["distance"])
    apart = ((points - points.flip(0)).abs().amax(1) > 1e-3)[:, None]  # the middle one is compared with itself
    torch.testing.assert_close(mine * apart, reference * apart, rtol=1e-6, atol=1e-6)


@each_k
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_points_lie_on_the_hyperboloid_and_can_be_taken_back(k, dtype):
    v = tangents(k=float(k)).to(dtype)
    points = exp_origin(v, k.to(dtype))
    off = lorentz_product(points, points) + k
    assert (off.abs() <= 1e-5 * points[:, 0].square()).all()
    assert (points[:, 0] >= k.sqrt().to(dtype)).all()
    torch.testing.assert_close(log_origin(points, k.to(dtype)), v, rtol=1e-5, atol=1e-6)


@each_k
def test_a_tangent_vector_leads_as_far_as_it_is_long_but_not_beyond_ten(k):
    v = torch.cat([tangents(longest=9.9, k=float(k)), tangents(2, longest=40.0, k=float(k))[1:]])
    origin = lift(torch.zeros_like(v), k)
    expected = v.norm(dim=-1).clamp(max=10 * k.sqrt())
    torch.testing.assert_close(distance(origin, exp_origin(v, k), k), expected, rtol=1e-9, atol=1e-9)


@each_k
def test_laws_of_a_distance(k):
    x, y, z = exp_origin(torch.randn(3, 200, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)), k)
    torch.testing.assert_close(distance(x, y, k), distance(y, x, k))
    assert (distance(x, z, k) <= distance(x, y, k) + distance(y, z, k) + 1e-12).all()
    assert (distance(x, x, k) == 0).all()
    torch.testing.assert_close(distance(x, y, k), k.sqrt() * arcosh(-lorentz_product(x, y) / k), rtol=1e-9, atol=1e-9)


def test_a_space_of_little_curvature_is_flat():
    k = torch.tensor(1e6, dtype=torch.float64)
    u, v = torch.randn(2, 100, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    x, y = exp_origin(u, k), exp_origin(v, k)
    torch.testing.assert_close(distance(x, y, k), (u - v).norm(dim=-1), rtol=0, atol=1e-3)
    torch.testing.assert_close(x[:, 1:], u, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(log_origin(x, k), u, rtol=1e-9, atol=1e-9)


def test_gradients_are_those_of_finite_differences_also_where_the_series_end():
    k = torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    lengths = torch.tensor([1e-3, 0.029, 0.031, 0.5, 3.0], dtype=torch.float64) * 1.7**0.5
    v = (tangents(5, 4, 1.0) / tangents(5, 4, 1.0).norm(dim=-1, keepdim=True) * lengths[:, None]).requires_grad_()
    assert torch.autograd.gradcheck(exp_origin, (v, k))
    assert torch.autograd.gradcheck(lambda v, k: log_origin(lift(v, k), k), (v, k))
    assert torch.autograd.gradcheck(lambda v, k: distance(lift(v[1:], k), lift(v[:-1], k), k), (v, k))
    assert torch.autograd.gradcheck(arcosh, torch.tensor([1.001, 2.0, 50.0], dtype=torch.float64, requires_grad=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-4, 1.0, 1e4, 1e12, 1e25])
def test_nothing_overflows_and_geometry_is_float32(size, dtype):
    k = torch.tensor(1.0, requires_grad=True)
    v = (size * torch.tensor([[1.0, -2.0, 0.5], [0.0, 0.0, -1.0]])).to(dtype).requires_grad_()
    points = exp_origin(v, k)
    back = log_origin(lift(v, k), k)
    apart = distance(points[0], points[1], k)
    score = arcosh(-lorentz_product(points[0], points[1]))
    total = points.sum() + back.sum() + apart + score
    assert total.dtype == torch.float32
    assert total.isfinite()
    total.backward()
    assert v.grad is not None
    assert v.grad.isfinite().all()
    assert k.grad is not None
    assert k.grad.isfinite()


def test_a_point_is_at_no_distance_from_itself_and_pulls_nowhere():
    v = torch.tensor([[0.3, -0.2], [0.0, 0.0], [4.0, 3.0]], requires_grad=True)
    k = torch.tensor(1.0)
    points = exp_origin(v, k)
    apart = distance(points, points.detach(), k)
    assert (apart == 0).all()
    apart.sum().backward()
    assert v.grad is not None
    assert (v.grad == 0).all()


def test_arcosh_holds_still_where_its_gradient_would_explode():
    theta = torch.tensor([0.5, 1.0, 1.5], requires_grad=True)
    angle = arcosh(theta)
    assert angle[0] == angle[1] < 1e-3
    (gradient,) = torch.autograd.grad(angle.sum(), theta)
    torch.testing.assert_close(gradient, torch.tensor([0.0, 0.0, 1 / math.sqrt(1.5**2 - 1)]))


def test_a_learned_curvature_starts_where_it_is_told_and_stays_above_zero():
    curvature = LearnedCurvature(2.5)
    torch.testing.assert_close(curvature(), torch.tensor(2.5))
    curvature().backward()
    assert curvature.raw.grad is not None
    assert curvature.raw.grad > 0
    torch.nn.init.constant_(curvature.raw, -1e6)
    assert curvature() > 0


def test_a_fixed_curvature_is_no_parameter():
    assert not list(FixedCurvature(2.0).parameters())
    assert FixedCurvature(2.0)() == 2


@pytest.mark.parametrize("build", [FixedCurvature, LearnedCurvature])
def test_a_space_that_is_not_hyperbolic_is_refused(build):
    with pytest.raises(ValueError, match="k above"):
        build(0.0)
