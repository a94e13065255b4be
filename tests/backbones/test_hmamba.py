"""HMamba reads points of hyperbolic space, and leaves points or tangent vectors."""

import math
from functools import partial

import polars as pl
import pytest
import torch
from torch.nn import functional as F

from seqrec.backbones.hmamba import Entrance, HMamba, Variant
from seqrec.backbones.mamba4rec import Mamba4Rec
from seqrec.catalog import Catalog
from seqrec.embeddings.ids import IdEmbedding
from seqrec.nn.hyperbolic import FixedCurvature, LearnedCurvature, lorentz_product
from seqrec.recommenders.sequential import SequentialRecommender
from seqrec.scorers import Cosine, Lorentz
from seqrec.sequences import Sequences

HISTORY = Sequences.pack([range(5), range(4)])


def n_parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def read_by_mamba(backbone, events):
    """What the entrance hands to the Mamba block."""
    return backbone.layer.mixer.entrance(events)


def twins(first, second):
    """Two backbones with the same weights."""
    second.load_state_dict(first.state_dict())
    return first.eval(), second.eval()


def scan_of(k, curves_decay):
    """The Mamba block of an HMamba of width 8."""
    return HMamba(8, curvature=FixedCurvature(k), curves_decay=curves_decay, init_std=0.3).layer.mixer.mamba


@pytest.mark.parametrize("variant", list(Variant))
def test_it_has_mamba4recs_parameters_and_those_of_one_more_coordinate(variant):
    mamba, shell = 38_784, 33_472  # of Mamba4Rec with D = 64
    # The way into the block reads one coordinate more, and the norm before it scales and shifts one more.
    assert n_parameters(HMamba(64, variant=variant)) == (mamba + 2 * 128) + (shell + 2)
    assert n_parameters(HMamba(64, variant=variant, entrance=Entrance.on_manifold)) == mamba + 2 * 128 + shell
    assert n_parameters(HMamba(64, variant=variant, entrance=Entrance.euclidean)) == mamba + shell
    curved = HMamba(64, variant=variant, curvature=LearnedCurvature(), curves_decay=True)
    assert n_parameters(curved) == mamba + 2 * 128 + shell + 2 + 1


@pytest.mark.parametrize("k", [1.0, 2.5])
@pytest.mark.parametrize("variant", list(Variant))
@pytest.mark.parametrize("entrance", list(Entrance))
@pytest.mark.parametrize("trains", [False, True])
def test_states_are_those_of_their_definition_worked_out_in_plain_steps(variant, entrance, k, trains, drop):
    torch.manual_seed(0)
    dim, share = 6, 0.3
    curvature = FixedCurvature(k)
    backbone = HMamba(dim, share, variant=variant, entrance=entrance, curvature=curvature, d_state=3).double()
    backbone.train(trains)

    def dropped(x):
        return drop(x, share) if trains else x

    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    layer, norm = backbone.layer, backbone.layer.mixer.entrance.norm

    def point(x):
        length = x.norm(dim=1, keepdim=True) / k**0.5
        return k**0.5 * torch.cat([length.cosh(), length.sinh() * F.normalize(x)], dim=1)

    def normed(x):
        return F.layer_norm(x, x.shape[1:], norm.weight, norm.bias, 1e-12)

    events = torch.randn(9, dim, dtype=torch.float64)
    read = {
        Entrance.released: lambda: normed(dropped(point(events))),
        Entrance.on_manifold: lambda: point(normed(dropped(events))),
        Entrance.euclidean: lambda: normed(dropped(events)),
    }
    m = dropped(layer.mixer.mamba(read[entrance](), HISTORY)[0])
    m = F.layer_norm(m, (dim,), layer.mixer_norm.weight, layer.mixer_norm.bias, 1e-12)
    inner = F.gelu(m @ layer.feed_forward.widen.weight.T + layer.feed_forward.widen.bias)
    added = dropped(dropped(inner) @ layer.feed_forward.narrow.weight.T + layer.feed_forward.narrow.bias)
    m = F.layer_norm(m + added, (dim,), layer.feed_forward_norm.weight, layer.feed_forward_norm.bias, 1e-12)
    time = (m.square().sum(1, keepdim=True) + k).sqrt()
    expected = {
        Variant.full: m,
        Variant.half: k**0.5 * torch.acosh(time / k**0.5) * m / m.norm(dim=1, keepdim=True),
    }
    torch.testing.assert_close(backbone(events, HISTORY), expected[variant], rtol=1e-9, atol=1e-9)


def test_without_hyperbolic_space_it_is_mamba4rec():
    torch.manual_seed(0)
    flat, plain = HMamba(8, entrance=Entrance.euclidean, init_std=0.3).eval(), Mamba4Rec(8).eval()
    (layer,) = plain.shell.layers
    plain.shell.norm.load_state_dict(flat.layer.mixer.entrance.norm.state_dict())
    layer.mixer.load_state_dict(flat.layer.mixer.mamba.state_dict())
    for name in ("mixer_norm", "feed_forward", "feed_forward_norm"):
        getattr(layer, name).load_state_dict(getattr(flat.layer, name).state_dict())
    events = torch.randn(9, 8)
    torch.testing.assert_close(flat(events, HISTORY), plain(events, HISTORY))


def test_a_fresh_state_is_as_long_as_its_norm_makes_it_and_half_of_it_points_the_same_way():
    torch.manual_seed(0)
    full, half = twins(HMamba(64), HMamba(64, variant=Variant.half))
    events = 0.02 * torch.randn(9, 64)
    states = full(events, HISTORY)
    torch.testing.assert_close(states.norm(dim=1), torch.full((9,), 8.0))
    torch.testing.assert_close(half(events, HISTORY), states * math.acosh(65**0.5) / 8)


def test_without_curvature_half_leaves_the_states_of_full():
    torch.manual_seed(0)
    flat = {"curvature": FixedCurvature(1e6)}
    full, half = twins(HMamba(16, **flat), HMamba(16, variant=Variant.half, **flat))
    events = torch.randn(9, 16)
    torch.testing.assert_close(half(events, HISTORY), full(events, HISTORY), rtol=1e-4, atol=1e-5)


def test_the_time_coordinate_dominates_the_released_norm():
    torch.manual_seed(0)
    read = read_by_mamba(HMamba(64).eval(), 0.02 * torch.randn(200, 64))
    assert read.shape == (200, 65)
    assert read[:, 0].min() > 7.8
    assert 0.1 < read[:, 1:].std() < 0.2


def test_only_a_norm_before_the_exponential_map_leaves_points_on_the_hyperboloid():
    torch.manual_seed(0)
    events, k = torch.randn(50, 16), torch.tensor(2.0)
    off = {}
    for entrance in (Entrance.released, Entrance.on_manifold):
        read = read_by_mamba(HMamba(16, entrance=entrance, curvature=FixedCurvature(2.0)).eval(), events)
        off[entrance] = (lorentz_product(read, read) + k).abs().max()
    assert off[Entrance.on_manifold] < 1e-5
    assert off[Entrance.released] > 1
    fresh = HMamba(16, entrance=Entrance.on_manifold).layer.mixer.entrance
    torch.testing.assert_close(fresh.norm(events).norm(dim=1), torch.ones(50))


def test_under_a_cosine_both_variants_ask_the_same():
    torch.manual_seed(0)
    full, half = twins(HMamba(8, init_std=0.3), HMamba(8, variant=Variant.half, init_std=0.3))
    events = torch.randn(9, 8)
    asked = [Cosine().queries(backbone(events, HISTORY)) for backbone in (full, half)]
    torch.testing.assert_close(*asked)


def test_a_curved_decay_forgets_the_first_state_faster_by_the_root_of_k():
    torch.manual_seed(0)
    bent = scan_of(4.0, curves_decay=True)
    straight = scan_of(4.0, curves_decay=False)
    straight.load_state_dict(bent.state_dict())
    h = torch.randn(9, 9)
    assert not torch.allclose(bent(h, HISTORY)[0], straight(h, HISTORY)[0])
    with torch.no_grad():
        straight.decay_log[:, 0] += math.log(2.0)
    torch.testing.assert_close(bent(h, HISTORY)[0], straight(h, HISTORY)[0])


def test_at_unit_curvature_a_curved_decay_changes_nothing():
    torch.manual_seed(0)
    bent, straight = twins(HMamba(8, curves_decay=True, init_std=0.3), HMamba(8, init_std=0.3))
    events = torch.randn(9, 8)
    torch.testing.assert_close(bent(events, HISTORY), straight(events, HISTORY))


@pytest.mark.parametrize("init_std", [None, 0.02])
def test_biases_begin_at_zero_and_steps_at_the_logarithm_of_two(init_std):
    torch.manual_seed(0)
    backbone = HMamba(64, init_std=init_std)
    mamba = backbone.layer.mixer.mamba
    linears = [part for part in backbone.modules() if isinstance(part, torch.nn.Linear)]
    assert len(linears) == 6
    assert all(linear.bias is None or not linear.bias.any() for linear in linears)
    expected = 0.02 if init_std else 1 / math.sqrt(3 * 65)  # uniform up to 1 / √65
    assert mamba.enter.weight.std().item() == pytest.approx(expected, rel=0.05)
    seen = []
    mamba.step.register_forward_hook(lambda _module, _inputs, out: seen.append(F.softplus(out)))
    backbone(0.02 * torch.randn(9, 64), HISTORY)
    assert seen[0].mean().item() == pytest.approx(0.693, abs=0.05)


@pytest.mark.parametrize("variant", list(Variant))
@pytest.mark.parametrize("entrance", list(Entrance))
@pytest.mark.parametrize("size", [0.0, 1e-20, 1.0, 100.0, 1e12])
@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
def test_states_and_gradients_are_finite_for_events_of_any_size(variant, entrance, size, half):
    torch.manual_seed(0)
    backbone = HMamba(8, variant=variant, entrance=entrance, curvature=LearnedCurvature(), curves_decay=True)
    events = (size * torch.randn(9, 8)).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
        states = backbone(events, HISTORY)
    assert states.isfinite().all()
    (states.float() * torch.randn(9, 8)).sum().backward()
    for name, leaf in [("events", events), *backbone.named_parameters()]:
        assert leaf.grad is not None, name
        assert leaf.grad.isfinite().all(), name


@pytest.mark.parametrize("curves_decay", [False, True])
def test_backbone_and_scorer_learn_one_curvature_unless_told_otherwise(curves_decay):
    torch.manual_seed(0)
    curvature = LearnedCurvature(1.5)
    items = Catalog(pl.DataFrame({"item_id": ["a", "b"], "count": [1, 1]}))
    own = SequentialRecommender(items, partial(IdEmbedding, dim=8), HMamba(8), Lorentz(LearnedCurvature(3.0)))
    assert own.scorer.curvature().item() == pytest.approx(3)
    backbone = HMamba(8, curvature=curvature, curves_decay=curves_decay)
    shared = SequentialRecommender(items, partial(IdEmbedding, dim=8), backbone, Lorentz())
    assert n_parameters(shared) == n_parameters(own)
    scorer = shared.scorer
    assert scorer.curvature is curvature
    queries = scorer.queries(backbone(torch.randn(9, 8), HISTORY))
    scorer.scores(queries @ scorer.keys(torch.randn(20, 8)).T).sum().backward()
    assert curvature.raw.grad is not None
    assert curvature.raw.grad.isfinite()
    assert curvature.raw.grad != 0
