"""SIGMA equals a window padded as the released code pads it, and its causal form is SIGMA without flip."""

import copy

import pytest
import torch
from torch.nn import functional as F

from seqrec.backbones.mamba4rec import Mamba4Rec
from seqrec.backbones.sigma import (
    SIGMA,
    AlignedFlip,
    CausalSIGMA,
    LoggedSIGMA,
    Mixing,
    ReleasedFlip,
)
from seqrec.nn.branch_mixture import BranchMixture, DenseSelectiveGates
from seqrec.nn.dropout import Dropout
from seqrec.nn.mamba import Mamba, StepInit
from seqrec.sequences import Sequences

DIM = 6
WINDOW = 50
HISTORIES = [range(3), [], range(22), range(23), [7], range(45), range(46), range(50)]


def n_parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def shaken(module, spread=0.3):
    """The module in float64, every parameter moved, so that none is idle."""
    module.double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(spread * torch.randn_like(parameter))
    return module


def block_of(backbone):
    (layer,) = backbone.shell.layers
    return layer.mixer


def defined(block, x, flipped, filtered, lay_back, mixing):
    """The block over one window, from the definition; the filters see ``filtered`` where the rest sees ``x``."""
    mixture, one = block.mixture, Sequences.pack([range(len(x))])
    wa, ws = mixture.gates.silu_map, mixture.gates.sigmoid_map
    p = x + mixture.gates.forward_map(x)
    q = lay_back(flipped)
    q = q + mixture.gates.backward_map(q)
    g1 = wa(p * p.sigmoid()) + ws(p.sigmoid())
    g2 = wa(q * q.sigmoid()) + ws(g1.sigmoid())
    forward, backward = block.mamba(x, one)[0], lay_back(block.mamba(flipped, one)[0])
    filters = block.conv.filters
    recurrent = block.cell(F.conv1d(filtered.T[None], filters.weight, filters.bias, padding=1)[0].T)[0]
    w0, w1, w2 = mixing(mixture.weights)
    return mixture.leave(w2 * (forward * g1 + forward) + w1 * (backward * g2 + backward) + w0 * recurrent)


def softmax(weights):
    return weights.exp() / weights.exp().sum()


def unchanged(x):
    return x


def test_it_has_the_parameters_of_the_released_code():
    bidirectional, causal = SIGMA(64), CausalSIGMA(64)
    for backbone in (bidirectional, causal):
        assert n_parameters(block_of(backbone)) == 96_515
        assert n_parameters(backbone) - 96_515 == 33_472
    # The released counts have a row for padding in the table of items; here its place is taken by a vector of the flip.
    released = SIGMA(64, flip=ReleasedFlip(64))
    assert n_parameters(released) + 3_416 * 64 == 348_675
    assert n_parameters(released) + 12_101 * 64 == 904_515
    assert n_parameters(released) + 17_286 * 64 == 1_236_355
    assert bidirectional.state_dict().keys() == causal.state_dict().keys()


def test_bidirectional_states_may_not_all_be_trained_and_causal_ones_may():
    assert not SIGMA.causal
    assert CausalSIGMA.causal


@pytest.mark.parametrize("mixing", [Mixing.raw, Mixing.softmax])
@pytest.mark.parametrize("n_slots", [45, 50])
def test_a_released_block_equals_the_padded_window_of_the_released_code(mixing, n_slots):
    torch.manual_seed(0)
    block = shaken(block_of(SIGMA(DIM, d_state=3, flip=ReleasedFlip(DIM, n_slots), mixing=mixing)))
    vectors, packed = torch.randn(WINDOW, DIM, dtype=torch.float64), Sequences.pack(HISTORIES)
    states = block(vectors[packed.items], packed, None)[0].split(packed.lengths.tolist())
    for history, mine in zip(HISTORIES, states, strict=True):
        n = len(history)
        padding = block.flip.padding.expand(WINDOW - n, DIM)
        window = torch.cat([vectors[list(history)], padding])
        flipped = torch.cat([window[:n_slots].flip(0), window[n_slots:]])
        filtered = torch.cat([window[:n], torch.zeros_like(padding)])
        weigh = softmax if mixing is Mixing.softmax else unchanged
        expected = defined(block, window, flipped, filtered, unchanged, weigh)[:n]
        torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("n_recent", [0, 2, 22, 60])
def test_an_aligned_block_equals_histories_flipped_one_by_one(n_recent):
    torch.manual_seed(0)
    block = shaken(block_of(SIGMA(DIM, d_state=3, flip=AlignedFlip(n_recent))))
    vectors, packed = torch.randn(WINDOW, DIM, dtype=torch.float64), Sequences.pack(HISTORIES)
    states = block(vectors[packed.items], packed, None)[0].split(packed.lengths.tolist())
    for history, mine in zip(HISTORIES, states, strict=True):
        x, older = vectors[list(history)], max(len(history) - n_recent, 0)

        def flip(each, older=older):
            return torch.cat([each[:older].flip(0), each[older:]])

        if len(history):
            expected = defined(block, x, flip(x), x, flip, unchanged)
            torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-6)


def laid(flip, *lengths):
    """Where the events of histories of these lengths come to lie; events are numbered from 1 in each."""
    history = Sequences.pack([range(1, length + 1) for length in lengths])
    flipped = flip.flip(history.items[:, None].float(), history)[:, 0].round().int()
    return [part.tolist() for part in flipped.split(history.lengths.tolist())]


def test_a_flip_by_hand():
    assert laid(AlignedFlip(2), 7, 2, 0, 3, 1) == [[5, 4, 3, 2, 1, 6, 7], [1, 2], [], [1, 2, 3], [1]]
    assert laid(AlignedFlip(0), 3, 2) == [[3, 2, 1], [2, 1]]
    released = ReleasedFlip(1, n_slots=5)
    with torch.no_grad():
        released.padding.fill_(-9)
    assert laid(released, 3, 0, 4, 5, 7) == [[-9, -9, 3], [], [-9, 4, 3, 2], [5, 4, 3, 2, 1], [5, 4, 3, 2, 1, 6, 7]]


@pytest.mark.parametrize("n_recent", [0, 1, 5, 100])
def test_an_aligned_flip_twice_is_the_identity_and_keeps_the_newest_events(n_recent):
    lengths = range(12)
    history, flip = Sequences.pack([range(n) for n in lengths]), AlignedFlip(n_recent)
    events = torch.randn(history.items.numel(), 2)
    flipped = flip.flip(events, history)
    assert torch.equal(flip.unflip(flipped, history), events)
    is_recent = history.lengths[history.owners] - history.places <= n_recent
    assert torch.equal(flipped[is_recent], events[is_recent])


def test_a_released_flip_lays_nothing_back():
    history, flip = Sequences.pack([range(4)]), ReleasedFlip(2)
    read = torch.randn(4, 2)
    assert torch.equal(flip.unflip(read, history), read)


@pytest.mark.parametrize("length", [1, 22, 23])
def test_the_released_second_direction_knows_only_the_length_of_a_short_history(length):
    torch.manual_seed(0)
    history = Sequences.pack([range(length)])
    one, other = torch.randn(2, length, DIM).unbind()

    def second_direction(flip):
        block = block_of(SIGMA(DIM, d_state=3, init_std=0.3, flip=flip).eval())
        return [flip.unflip(block.mamba(flip.flip(x, history), history)[0], history)[-1] for x in (one, other)]

    released, aligned = second_direction(ReleasedFlip(DIM)), second_direction(AlignedFlip())
    assert torch.equal(*released) == (length <= 22)
    assert not torch.allclose(*aligned)


def test_padding_is_read_by_no_history_that_fills_the_flipped_slots_and_by_the_second_direction_alone():
    torch.manual_seed(0)
    backbone = shaken(SIGMA(DIM, d_state=3, flip=ReleasedFlip(DIM, n_slots=5)))
    block, packed = block_of(backbone), Sequences.pack([range(5), range(4), range(9)])
    events = torch.randn(18, DIM, dtype=torch.float64)
    other = copy.deepcopy(backbone)
    with torch.no_grad():
        block_of(other).flip.padding.add_(1)
    changed = (other(events, packed) != backbone(events, packed)).any(1)
    assert changed.tolist() == [False] * 5 + [True] * 4 + [False] * 9
    with torch.no_grad():
        block.mixture.weights[1] = block_of(other).mixture.weights[1] = 0
    assert torch.equal(other(events, packed), backbone(events, packed))


def without_gates(mixture):
    with torch.no_grad():
        for linear in (mixture.gates.silu_map, mixture.gates.sigmoid_map):
            linear.weight.zero_()
            linear.bias.zero_()
        mixture.leave.weight.copy_(torch.eye(len(mixture.leave.bias)))
        mixture.leave.bias.zero_()
    return mixture


@pytest.mark.parametrize("build", [SIGMA, CausalSIGMA])
@pytest.mark.parametrize("n_layers", [1, 2])
def test_with_all_weight_on_the_first_direction_and_no_gate_it_is_mamba4rec(build, n_layers):
    torch.manual_seed(0)
    backbone = build(DIM, n_layers=n_layers, d_state=3, init_std=0.3).eval()
    plain = Mamba4Rec(DIM, n_layers=n_layers, d_state=3).eval()
    for layer in backbone.shell.layers:
        with torch.no_grad():
            without_gates(layer.mixer.mixture).weights.copy_(torch.tensor([0.0, 0.0, 1.0]))
    own = {name.replace("mixer.mamba.", "mixer."): value for name, value in backbone.state_dict().items()}
    plain.load_state_dict({name: own[name] for name in plain.state_dict()})
    packed = Sequences.pack(HISTORIES)
    events = torch.randn(WINDOW, DIM)[packed.items]
    torch.testing.assert_close(backbone(events, packed), plain(events, packed))


def test_gates_by_hand():
    gates = DenseSelectiveGates(1, dropout=0.0)
    with torch.no_grad():
        for linear, weight, bias in (
            (gates.forward_map, 1.0, 0.0),
            (gates.backward_map, 0.0, 1.0),
            (gates.silu_map, 10.0, 0.5),
            (gates.sigmoid_map, 4.0, -0.25),
        ):
            linear.weight.fill_(weight)
            linear.bias.fill_(bias)
    forward, backward = gates(torch.tensor([[1.0]]), torch.tensor([[-1.0]]))
    # p = 1 + 1 = 2 and q = -1 + 1 = 0; silu(2) = 1.761594, sigmoid(2) = 0.880797.
    assert forward.item() == pytest.approx(10 * 1.761594 + 0.5 + 4 * 0.880797 - 0.25)  # 21.389: a gate has no bound
    # silu(0) = 0, and the sigmoid is that of the first gate, 1, not that of q, a half.
    assert backward.item() == pytest.approx(0.5 + 4 * 1.0 - 0.25)


def test_the_second_gate_squashes_the_first_gate_after_its_dropout():
    torch.manual_seed(0)
    gates = DenseSelectiveGates(64, dropout=0.5)
    with torch.no_grad():
        for parameter in gates.parameters():
            parameter.zero_()
        gates.silu_map.bias.fill_(3.0)
        gates.sigmoid_map.weight.copy_(torch.eye(64))
    forward, backward = gates(torch.zeros(1, 64), torch.zeros(1, 64))
    # A first gate is 2 (3 + sigmoid(0)) = 7, or dropped; the second is 2 (3 + sigmoid of that), or dropped.
    assert set(forward.flatten().tolist()) == {0.0, 7.0}
    expected = torch.where(forward == 0, 7.0, 2 * (3 + 0.999089))
    kept = backward != 0
    assert 10 < kept.sum() < 54
    assert len(expected[kept].unique()) == 2
    torch.testing.assert_close(backward[kept], expected[kept])


def test_the_dropout_of_gates_is_their_own():
    torch.manual_seed(0)
    backbone, history, events = CausalSIGMA(64, dropout=0.0), Sequences.pack([range(9)]), torch.randn(9, 64)
    assert block_of(backbone).mixture.gates.dropout.share == 0.2
    assert not torch.equal(backbone(events, history), backbone(events, history))
    backbone = CausalSIGMA(64, dropout=0.0, gate_dropout=0.0)
    assert torch.equal(backbone(events, history), backbone(events, history))


@pytest.mark.parametrize(
    ("mixing", "begin", "moved"),
    [
        (Mixing.raw, [0.1, 0.1, 0.8], [-2.0, 0.0, 1.0]),
        (Mixing.softmax, [0.2491, 0.2491, 0.5017], [0.0351, 0.2595, 0.7054]),
    ],
)
def test_branches_are_weighed_by_the_numbers_themselves_or_by_their_shares(mixing, begin, moved):
    mixture = without_gates(BranchMixture(2, 0.2, mixing))
    nothing, something = torch.zeros(1, 2), torch.ones(1, 2)

    def weights():
        branches = [[something if i == j else nothing for i in range(3)] for j in range(3)]
        return [mixture(something, something, fw, bw, rec)[0, 0].item() for rec, bw, fw in branches]

    assert weights() == pytest.approx(begin, abs=1e-4)
    with torch.no_grad():
        mixture.weights.copy_(torch.tensor([-2.0, 0.0, 1.0]))
    assert weights() == pytest.approx(moved, abs=1e-4)


def test_without_flip_and_later_neighbours_it_is_its_causal_form():
    torch.manual_seed(0)
    backbone, causal = SIGMA(DIM, d_state=3, flip=AlignedFlip(WINDOW)), CausalSIGMA(DIM, d_state=3)
    shaken(backbone)
    causal.double().eval().load_state_dict(backbone.state_dict())
    with torch.no_grad():
        block_of(backbone).conv.filters.weight[:, :, 2] = 0
        block_of(causal).conv.filters.weight[:, :, 1:] = block_of(backbone).conv.filters.weight[:, :, :2]
        block_of(causal).conv.filters.weight[:, :, 0] = 0
    packed = Sequences.pack(HISTORIES)
    events = torch.randn(WINDOW, DIM, dtype=torch.float64)[packed.items]
    torch.testing.assert_close(causal(events, packed), backbone(events, packed), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("build", [SIGMA, CausalSIGMA])
def test_linear_maps_begin_small_and_cells_and_filters_as_torch_makes_them(build):
    torch.manual_seed(0)
    backbone = build(64)
    linears = [part for part in backbone.modules() if isinstance(part, torch.nn.Linear)]
    assert len(linears) == 11
    for linear in linears:
        assert linear.weight.std().item() == pytest.approx(0.02, rel=0.1)
        assert linear.bias is None or not linear.bias.any()
    block = block_of(backbone)
    assert 0.12 < block.cell.weight_hh_l0.abs().max() <= 1 / 8
    assert block.conv.filters.weight.abs().max().item() == pytest.approx(1 / 192**0.5, rel=0.01)
    (mamba,) = (part for part in backbone.modules() if isinstance(part, Mamba))
    assert not mamba.step.bias.any()
    (mamba,) = (part for part in build(64, dt_init=StepInit.mamba).modules() if isinstance(part, Mamba))
    assert F.softplus(mamba.step.bias).max() < 0.1001


def test_both_the_flip_and_the_symmetric_convolution_show_later_events():
    torch.manual_seed(0)
    history, events = Sequences.pack([range(8)]), torch.randn(8, DIM)
    changed = torch.cat([events[:-1], torch.randn(1, DIM)])
    for flip, first in ((AlignedFlip(0), 0), (ReleasedFlip(DIM, 8), 0), (AlignedFlip(8), 6)):
        backbone = SIGMA(DIM, d_state=3, init_std=0.3, flip=flip).eval()
        moved = (backbone(events, history) - backbone(changed, history)).abs().amax(1) > 1e-6
        # Without any flip the symmetric convolution still shows each event the next one.
        assert moved.tolist() == [False] * first + [True] * (8 - first)


@pytest.mark.parametrize("make", [lambda: AlignedFlip(-1), lambda: ReleasedFlip(4, 0)])
def test_a_flip_of_no_sense_is_refused(make):
    with pytest.raises(ValueError, match="must be at least"):
        make()


@pytest.mark.parametrize("build", [SIGMA, LoggedSIGMA])
def test_a_flip_of_another_width_is_refused(build):
    refusal = "flip is made for events of width 4 and dim is 6; give both the same dim"
    with pytest.raises(ValueError, match=refusal):
        build(DIM, flip=ReleasedFlip(4))


@pytest.mark.parametrize("n_slots", [45, 50])
def test_a_logged_block_is_its_definition_over_the_padded_window(n_slots):
    torch.manual_seed(0)
    block = shaken(block_of(LoggedSIGMA(DIM, d_state=3, flip=ReleasedFlip(DIM, n_slots))))
    vectors, packed = torch.randn(WINDOW, DIM, dtype=torch.float64), Sequences.pack(HISTORIES)
    states = block(vectors[packed.items], packed, None)[0].split(packed.lengths.tolist())
    one = Sequences.pack([range(WINDOW)])
    for history, mine in zip(HISTORIES, states, strict=True):
        n = len(history)
        x = torch.cat([vectors[list(history)], block.flip.padding.expand(WINDOW - n, DIM)])
        flipped = torch.cat([x[:n_slots].flip(0), x[n_slots:]])
        p = x + block.map(x)
        gate = block.silu_map(p * p.sigmoid()) + block.sigmoid_map(p.sigmoid())
        forward, backward = block.mamba(x, one)[0], block.mamba(flipped, one)[0]
        w0, w1, w2 = block.weights
        expected = w2 * (forward + forward * gate) + w1 * backward + w0 * block.cell(x)[0]
        torch.testing.assert_close(mine, expected[:n], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("build", [SIGMA, LoggedSIGMA, CausalSIGMA])
def test_gates_drop_a_share_of_their_own(build):
    shell = build(DIM, n_layers=2, dropout=0.1, gate_dropout=0.5).shell
    gates, all_parts = (
        [part for root in roots for part in root.modules() if isinstance(part, Dropout)]
        for roots in ([layer.mixer for layer in shell.layers], [shell])
    )
    assert {part.share for part in gates} == {0.5}
    assert {part.share for part in set(all_parts) - set(gates)} == {0.1}
