"""BERT4Rec is a post-normalised encoder that reads both directions and knows no order of its own."""

import pytest
import torch
from torch.nn import functional as F

from seqrec.backbones.bert4rec import BERT4Rec
from seqrec.ops.attention import bidirectional_attention
from seqrec.positions.contextual import CAPE
from seqrec.positions.relative import ALiBi, RelativeBias
from seqrec.positions.rotary import RotaryPosition
from seqrec.positions.time_bias import TimeBias
from seqrec.sequences import Sequences

DIM = 8
HISTORIES = [[3, 1, 4], [1], [], [5, 9, 2, 6, 5, 5], [*range(40)], [7, 7]]


@pytest.mark.parametrize(("dim", "layers", "multiple"), [(64, 2, 4), (8, 3, 2)])
def test_it_has_the_parameters_that_the_encoder_of_the_paper_counts(dim, layers, multiple):
    attention = 4 * (dim * dim + dim)
    feed_forward = dim * multiple * dim + multiple * dim + multiple * dim * dim + dim
    encoder = 2 * dim + layers * (attention + feed_forward + 2 * 2 * dim)
    head = dim * dim + dim + 2 * dim
    for transforms_states, by_hand in ((True, encoder + head), (False, encoder)):
        backbone = BERT4Rec(dim, layers, 2, 0.2, multiple, transforms_states)
        assert sum(parameter.numel() for parameter in backbone.parameters()) == by_hand


@pytest.mark.parametrize("transforms_states", [True, False])
@pytest.mark.parametrize("trains", [False, True])
def test_a_history_goes_through_the_encoder_as_written_by_hand(transforms_states, trains, drop, monkeypatch):
    torch.manual_seed(0)
    share = 0.3
    backbone = BERT4Rec(DIM, 1, 2, share, transforms_states=transforms_states, init_std=0.5).double().train(trains)

    def dropped(x):
        return drop(x, share) if trains else x

    def attend(q, k, v, offsets, dropped_weights):
        assert dropped_weights == (share if trains else 0)
        return bidirectional_attention(q, k, v, offsets)

    monkeypatch.setattr("seqrec.nn.attention.bidirectional_attention", attend)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    packed = Sequences.pack(HISTORIES)
    events = torch.randn(packed.items.numel(), DIM, dtype=torch.float64)

    def by_hand(x):
        (layer,) = backbone.layers
        attention, (widen, _, narrow) = layer.attention, layer.feed_forward
        h = dropped(_normalised(x, backbone.norm))
        q, k, v = (part(h).view(-1, 2, DIM // 2).transpose(0, 1) for part in _maps(attention))
        weights = (q @ k.transpose(1, 2) / (DIM // 2) ** 0.5).softmax(-1)
        mixed = attention.output((weights @ v).transpose(0, 1).reshape(-1, DIM))
        h = _normalised(h + dropped(mixed), layer.attention_norm)
        h = _normalised(h + dropped(narrow(F.gelu(widen(h)))), layer.feed_forward_norm)
        if transforms_states:
            linear, _, norm = backbone.transform
            h = _normalised(F.gelu(linear(h)), norm)
        return h

    expected = torch.cat([by_hand(own) for own in events.split(packed.lengths.tolist())])
    torch.testing.assert_close(backbone(events, packed), expected)


def _maps(attention):
    return attention.query, attention.key, attention.value


def _normalised(x, norm):
    deviation = x - x.mean(-1, keepdim=True)
    return deviation / (deviation.square().mean(-1, keepdim=True) + 1e-12).sqrt() * norm.weight + norm.bias


def test_events_in_another_order_have_the_same_states_in_that_order():
    torch.manual_seed(0)
    backbone = BERT4Rec(DIM, init_std=0.3).eval()
    history = Sequences.pack([list(range(23))])
    events, order = torch.randn(23, DIM), torch.randperm(23)
    torch.testing.assert_close(backbone(events[order], history), backbone(events, history)[order])


def test_every_state_knows_every_event_of_its_history():
    torch.manual_seed(0)
    backbone = BERT4Rec(DIM, init_std=0.3).eval()
    history = Sequences.pack([list(range(20))])
    events = torch.randn(20, DIM).requires_grad_()
    for place in (0, 7, 19):
        state = backbone(events, history)[place]
        (gradient,) = torch.autograd.grad((state * torch.randn(DIM)).sum(), events)
        assert (gradient.abs().sum(1) > 0).all()
    assert BERT4Rec.causal is False


def test_every_linear_map_begins_small_and_without_bias():
    torch.manual_seed(0)
    backbone = BERT4Rec(64)
    maps = [part for part in backbone.modules() if isinstance(part, torch.nn.Linear)]
    assert len(maps) == 2 * 6 + 1
    for linear in maps:
        assert linear.weight.std().item() == pytest.approx(0.02, rel=0.1)
        assert not linear.bias.any()


def test_no_layer_is_refused():
    with pytest.raises(ValueError, match="n_layers"):
        BERT4Rec(DIM, n_layers=0)


def test_rotary_positions_tell_it_how_far_apart_events_are_on_both_sides():
    """Logits by hand: the pair of channels (c, c + C / 2) is a complex number, and i - j apart means a turn of it."""
    torch.manual_seed(0)
    backbone = BERT4Rec(DIM, 1, 2, position=RotaryPosition, transforms_states=False, init_std=0.5).double().eval()
    packed = Sequences.pack(HISTORIES)
    events = torch.randn(packed.items.numel(), DIM, dtype=torch.float64)
    (layer,) = backbone.layers
    pace = 10_000.0 ** (-torch.arange(0, 4, 2, dtype=torch.float64) / 4)

    def mixed(x):
        q, k, v = (part(x).view(-1, 2, DIM // 2).transpose(0, 1) for part in _maps(layer.attention))
        q, k = (torch.complex(*y.chunk(2, -1)) for y in (q, k))
        apart = torch.arange(len(x))[:, None] - torch.arange(len(x))
        turned = q[:, :, None] * k[:, None].conj() * torch.exp(1j * apart[..., None] * pace)
        weights = (turned.real.sum(-1) / (DIM // 2) ** 0.5).softmax(-1)
        return layer.attention.output((weights @ v).transpose(0, 1).reshape(-1, DIM))

    expected = torch.cat([mixed(own) for own in events.split(packed.lengths.tolist())])
    torch.testing.assert_close(layer.attention(events, packed), expected, rtol=1e-6, atol=1e-6)
    order = torch.tensor([1, 0, *range(2, packed.items.numel())])
    assert not torch.allclose(backbone(events[order], packed), backbone(events, packed)[order])


@pytest.mark.parametrize("position", [lambda c: RelativeBias(c, 9), ALiBi, lambda c: CAPE(c, 9), TimeBias])
def test_positions_that_count_back_from_a_query_are_refused(position):
    with pytest.raises(ValueError, match="half of them lie ahead; use RotaryPosition"):
        BERT4Rec(DIM, position=position)
