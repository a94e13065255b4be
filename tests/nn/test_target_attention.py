"""Target attention is the sum that its definition says, whatever stands beside it, and positions tell it the order."""

import numpy as np
import pytest
import torch

from seqrec.nn import target_attention
from seqrec.nn.target_attention import TargetAttention
from seqrec.positions.contextual import CAPE, CoPE
from seqrec.positions.relative import ALiBi, RelativeBias
from seqrec.positions.rotary import RotaryPosition
from seqrec.positions.time_bias import TimeBias
from seqrec.sequences import Sequences

DIM = 6
HISTORIES = [[3, 1, 4], [1], [], [5, 9, 2, 6, 5, 5], [*range(40)], [7, 7]]
AT = torch.tensor([2, 2, 0, 3, 9, 6, 49, 30, 51])  # some are asked twice, some in the middle of a history
POSITIONS = [
    pytest.param(None, id="none"),
    pytest.param(RotaryPosition, id="RotaryPosition"),
    pytest.param(lambda c: RelativeBias(c, 30), id="RelativeBias"),
    pytest.param(ALiBi, id="ALiBi"),
    pytest.param(lambda c: CAPE(c, 12, position_dim=3), id="CAPE"),
    pytest.param(lambda c: CAPE(c, 12, mask_gates=False), id="CAPE-padded"),
    pytest.param(lambda c: CoPE(c, 12), id="CoPE"),
]
each_position = pytest.mark.parametrize("position", POSITIONS)


def ready(position=None, hidden=(5, 4), max_length=50):
    """Attention whose positions matter, what begins at zero being drawn, and vectors of items and candidates."""
    torch.manual_seed(0)
    attention = TargetAttention(DIM, hidden, position, max_length)
    for weight in attention.position.parameters():
        torch.nn.init.normal_(weight)
    return attention, torch.randn(50, DIM), torch.randn(len(AT), 2, DIM)


def seen(history, at):
    """What an event and those before it in the same history are, as a list of items."""
    return history.items[history.offsets[history.owners[at]] : at + 1]


def taken(attention, candidate, events):
    """What one candidate takes from one history, all of which it sees."""
    history = Sequences.pack([range(len(events))])
    return attention(candidate[None, None], history.newest, events, history)[0, 0]


def test_the_sum_is_that_of_a_loop():
    attention, vectors, candidates = ready()
    history = Sequences.pack(HISTORIES)
    found = attention(candidates, AT, vectors[history.items], history)
    for t, at, values in zip(candidates.flatten(0, 1), AT.repeat_interleave(2), found.flatten(0, 1), strict=True):
        events = vectors[seen(history, at)]
        logits = torch.stack([attention.mlp(torch.cat([t, h, t - h, t * h]))[0] for h in events])
        torch.testing.assert_close(values, logits.softmax(0) @ events, rtol=1e-5, atol=1e-6)


@each_position
def test_a_candidate_sees_nothing_but_its_own_history_up_to_its_place(position):
    attention, vectors, candidates = ready(position)
    history = Sequences.pack(HISTORIES)
    found = attention(candidates, AT, vectors[history.items], history)
    for both, at, values in zip(candidates, AT, found, strict=True):
        alone = [taken(attention, t, vectors[seen(history, at)]) for t in both]
        torch.testing.assert_close(values, torch.stack(alone), rtol=1e-5, atol=1e-5)


def test_how_many_are_worked_off_together_changes_nothing(monkeypatch):
    attention, vectors, candidates = ready(lambda c: CAPE(c, 12))
    history = Sequences.pack(HISTORIES)
    together = attention(candidates, AT, vectors[history.items], history)
    monkeypatch.setattr(target_attention, "_MAPS", 2 * 2 * 5 * DIM)
    torch.testing.assert_close(attention(candidates, AT, vectors[history.items], history), together)


@pytest.mark.parametrize("kind", [CAPE, CoPE])
def test_fresh_contextual_positions_are_none_bit_for_bit(kind):
    plain, vectors, candidates = ready()
    contextual = TargetAttention(DIM, (5, 4), lambda c: kind(c, 12))
    contextual.load_state_dict({**contextual.state_dict(), **plain.state_dict()})
    history = Sequences.pack(HISTORIES)
    arguments = (candidates, AT, vectors[history.items], history)
    assert torch.equal(contextual(*arguments), plain(*arguments))


@each_position
def test_without_a_position_the_order_means_nothing_and_with_one_it_does(position):
    attention, vectors, candidates = ready(position, max_length=20)
    forth = taken(attention, candidates[0, 0], vectors[:20])
    back = taken(attention, candidates[0, 0], vectors[:20].flip(0))
    assert torch.allclose(forth, back, rtol=1e-5, atol=1e-6) is (position is None)


@pytest.mark.parametrize(("mask_gates", "max_length"), [(True, 9), (False, 9), (False, 4), (False, 3), (False, None)])
def test_unmasked_gates_count_half_an_event_for_each_free_slot(mask_gates, max_length):
    attention, vectors, candidates = ready(lambda c: CAPE(c, 12, mask_gates=mask_gates), max_length=max_length)
    attention, t, events = attention.double(), candidates[0, 0].double(), vectors[:4].double()
    logits = torch.stack([attention.mlp(torch.cat([t, h, t - h, t * h]))[0] for h in events])
    free_slots = 0 if mask_gates else max(0, (max_length or 0) - 4)
    places = torch.sigmoid(-logits).flip(0).cumsum(0).flip(0) + 0.5 * free_slots
    columns = (t @ attention.position.columns.table[0]).detach().numpy()
    bias = torch.from_numpy(np.interp(places.detach().numpy(), np.arange(12), columns))
    expected = (logits + bias).softmax(0) @ events
    torch.testing.assert_close(taken(attention, t, events), expected, rtol=1e-5, atol=1e-6)


@each_position
def test_gradients_are_finite_and_reach_every_parameter(position):
    attention, vectors, candidates = ready(position)
    history = Sequences.pack(HISTORIES)
    events = vectors[history.items].requires_grad_()
    candidates.requires_grad_()
    (attention(candidates, AT, events, history) * torch.randn(len(AT), 2, DIM)).sum().backward()
    for name, leaf in [("events", events), ("candidates", candidates), *attention.named_parameters()]:
        assert leaf.grad is not None, name
        assert leaf.grad.isfinite().all(), name
        # A softmax does not see what is added to all logits of a candidate.
        assert leaf.grad.abs().sum() > 0 or name == "mlp.6.bias", name


def test_gradients_are_those_of_finite_differences():
    attention, vectors, candidates = ready(lambda c: RelativeBias(c, 30))
    attention, history = attention.double(), Sequences.pack([[3, 1, 4], [1, 5]])
    events, at = vectors[history.items].double().requires_grad_(), torch.tensor([2, 0, 4])
    arguments = (candidates[:3].double().requires_grad_(), events)
    assert torch.autograd.gradcheck(lambda t, h: attention(t, at, h, history), arguments)


@each_position
def test_nobody_asks(position):
    attention, vectors, candidates = ready(position)
    history = Sequences.pack([[3, 1]])
    assert attention(candidates[:0], AT[:0], vectors[history.items], history).shape == (0, 2, DIM)


@each_position
def test_it_stays_close_and_finite_under_bfloat16_autocast(position):
    attention, vectors, candidates = ready(position)
    history = Sequences.pack(HISTORIES)
    exact = attention(candidates, AT, vectors[history.items], history)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        narrow = attention(candidates, AT, vectors[history.items], history)
    assert (narrow.float() - exact).abs().mean() < 0.1


def test_what_it_cannot_do_is_refused():
    with pytest.raises(ValueError, match="TimeBias reads times"):
        TargetAttention(DIM, position=TimeBias)
    with pytest.raises(ValueError, match="hidden is empty"):
        TargetAttention(DIM, hidden=())
