"""What every position inside attention must obey, in every backbone that has a seat for it. A new one adds one line."""

import pytest
import torch

from seqrec.backbones.hstu import HSTU
from seqrec.backbones.ligr import LiGR
from seqrec.backbones.sasrec import SASRec
from seqrec.positions.contextual import CAPE, CoPE
from seqrec.positions.relative import ALiBi, RelativeBias
from seqrec.positions.rotary import RotaryPosition
from seqrec.positions.stacked import Stacked
from seqrec.positions.time_bias import TimeBias
from seqrec.sequences import Sequences


def hstu_bias(channels):
    return Stacked(channels, [lambda c: RelativeBias(c, 30), TimeBias])


CASES = [
    pytest.param(RotaryPosition, id="RotaryPosition"),
    pytest.param(lambda c: RelativeBias(c, 30), id="RelativeBias"),
    pytest.param(lambda c: RelativeBias(c, 30, n_heads=2), id="RelativeBias-heads"),
    pytest.param(ALiBi, id="ALiBi"),
    pytest.param(TimeBias, id="TimeBias"),
    pytest.param(lambda c: CAPE(c, 12), id="CAPE"),
    pytest.param(lambda c: CAPE(c, 12, n_heads=2, position_dim=3), id="CAPE-projected"),
    pytest.param(lambda c: CoPE(c, 12), id="CoPE"),
    pytest.param(hstu_bias, id="Stacked"),
]
each_position = pytest.mark.parametrize("position", CASES)
each_backbone = pytest.mark.parametrize("build", [SASRec, LiGR, HSTU])

DIM = 8
HISTORIES = [[3, 1, 4], [1], [], [5, 9, 2, 6, 5, 5], [*range(40)], [7, 7]]


def ready(build, position, **arguments):
    """A backbone whose positions matter: what begins at or near zero is drawn large."""
    torch.manual_seed(0)
    backbone = build(DIM, n_heads=2, position=position, **arguments).eval()
    for name, weight in backbone.named_parameters():
        if "position" in name or "enter" in name:
            torch.nn.init.normal_(weight)
    return backbone, torch.randn(50, DIM)


def packed(*histories, begin=0, end=50):
    """Events of these histories, each a random while after the one before it; asked for when the next one happens."""
    parts, times, asked_at = [], [], []
    for history in histories:
        gaps = torch.randint(1, 10_000, (51,), generator=torch.Generator().manual_seed(len(history)))
        clock = gaps.cumsum(0).tolist()
        cut = slice(begin, min(end, len(history)))
        parts.append(history[cut])
        times.append(clock[:-1][cut])
        asked_at += clock[1:][cut]
    found = Sequences.pack(parts, times)
    return Sequences(found.items, found.offsets, found.times, torch.tensor(asked_at, dtype=torch.long))


def states_of(backbone, vectors, *histories):
    history = packed(*histories)
    return backbone(vectors[history.items], history)


@each_backbone
@each_position
def test_the_newest_events_alone_know_where_they_stand(build, position):
    backbone, vectors = ready(build, position)
    history = packed(*filter(None, HISTORIES))
    whole, some = (vectors[history.items].requires_grad_() for _ in range(2))
    of_whole = backbone(whole, history)[history.newest]
    of_some = backbone.states_at(some, history, history.newest)
    torch.testing.assert_close(of_some, of_whole, rtol=1e-4, atol=1e-5)
    weights = torch.randn_like(of_some)
    gradients = [
        torch.autograd.grad((weights * of).sum(), leaf)[0] for of, leaf in ((of_some, some), (of_whole, whole))
    ]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


@each_backbone
@each_position
def test_a_history_never_sees_its_neighbours(build, position):
    backbone, vectors = ready(build, position)
    alone = torch.cat([states_of(backbone, vectors, history) for history in HISTORIES])
    torch.testing.assert_close(states_of(backbone, vectors, *HISTORIES), alone, rtol=1e-4, atol=1e-5)


@each_backbone
@each_position
def test_changing_later_events_changes_nothing_before_them(build, position):
    backbone, vectors = ready(build, position)
    history = packed([2, 3], [*range(40)])
    events = vectors[history.items]
    before = backbone(events, history)
    for t in (2, 20, 40):
        changed = events.clone()
        changed[t + 1 :] = 10 * torch.randn_like(changed[t + 1 :])
        torch.testing.assert_close(backbone(changed, history)[: t + 1], before[: t + 1], rtol=0, atol=1e-6)


@each_backbone
@each_position
@pytest.mark.parametrize("cut", [0, 1, 3, 17])
def test_to_go_on_from_what_is_remembered_equals_the_full_pass(build, position, cut):
    backbone, vectors = ready(build, position)
    whole, older = packed(*HISTORIES), packed(*HISTORIES, end=cut)
    one_more, newer = packed(*HISTORIES, begin=cut, end=cut + 1), packed(*HISTORIES, begin=cut + 1)
    expected = backbone(vectors[whole.items], whole)
    _, memory = backbone.proceed(vectors[older.items], older, None)
    of_one, memory = backbone.proceed(vectors[one_more.items], one_more, memory)
    of_rest, memory = backbone.proceed(vectors[newer.items], newer, memory)
    torch.testing.assert_close(of_one, expected[whole.places == cut], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(of_rest, expected[whole.places > cut], rtol=1e-5, atol=1e-5)
    assert all(torch.equal(layer.offsets, whole.offsets) for layer in memory)


@each_backbone
@each_position
def test_the_order_of_older_events_matters(build, position):
    knows, vectors = ready(build, position, n_layers=1)
    nowhere, _ = ready(build, None, n_layers=1)
    forth, back = [1, 2, 3, 4, 9], [4, 3, 2, 1, 9]
    torch.testing.assert_close(*(states_of(nowhere, vectors, history)[-1] for history in (forth, back)))
    newest = [states_of(knows, vectors, history)[-1] for history in (forth, back)]
    assert not torch.allclose(*newest, rtol=1e-3, atol=1e-4)


@each_backbone
@each_position
def test_gradients_are_finite_and_reach_every_parameter(build, position):
    backbone, vectors = ready(build, position)
    backbone.train()
    history = packed(*HISTORIES)
    events = vectors[history.items].requires_grad_()
    (backbone(events, history) * torch.randn(len(events), DIM)).sum().backward()
    for name, leaf in [("events", events), *backbone.named_parameters()]:
        assert leaf.grad is not None, name
        assert leaf.grad.isfinite().all(), name
        assert leaf.grad.abs().sum() > 0 or name.endswith("key.bias"), name


@each_backbone
@each_position
@pytest.mark.parametrize("histories", [[], [[]], [[], []]], ids=["no history", "one empty", "two empty"])
def test_histories_without_events_have_no_states(build, position, histories):
    backbone, vectors = ready(build, position)
    assert states_of(backbone, vectors, *histories).shape == (0, DIM)


@each_backbone
@each_position
def test_states_stay_close_and_finite_under_bfloat16_autocast(build, position):
    backbone, vectors = ready(build, position)
    exact = states_of(backbone, vectors, *HISTORIES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        narrow = states_of(backbone, vectors, *HISTORIES)
    assert narrow.isfinite().all()
    assert (narrow.float() - exact).abs().mean() < 0.1


@each_position
def test_what_it_declares_is_what_it_asks_for(position):
    backbone, vectors = ready(SASRec, position)
    history = Sequences.pack(HISTORIES)
    if backbone.reads_clock:
        with pytest.raises(ValueError, match="no times"):
            backbone(vectors[history.items], history)
    if backbone.reads_asked_at:
        timed = packed(*HISTORIES)
        unasked = Sequences(timed.items, timed.offsets, timed.times)
        with pytest.raises(ValueError, match="asked_at"):
            backbone(vectors[history.items], unasked)
    if not (backbone.reads_clock or backbone.reads_asked_at):
        assert torch.equal(backbone(vectors[history.items], history), states_of(backbone, vectors, *HISTORIES))
