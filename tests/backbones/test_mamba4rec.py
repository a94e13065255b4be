"""Mamba4Rec has the released code's parameters, beginnings and shell, and the recurrence of its definition."""

import pytest
import torch
from torch.nn import functional as F

from seqrec.backbones.mamba4rec import Mamba4Rec
from seqrec.nn.mamba import Mamba, StepInit
from seqrec.sequences import Sequences


def n_parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def defined(mamba, h):
    """The block over one history, event by event, from the definition."""
    inner, n_states, rank = mamba.skip.numel(), mamba.d_state, mamba.rank
    decay = -mamba.decay_log.exp()
    state, entered, out = torch.zeros(inner, n_states, dtype=h.dtype), [], []
    for event in h:
        projected = mamba.enter.weight @ event
        entered.append(projected[:inner])
        u = mamba.conv.bias.clone()
        for back in range(min(mamba.d_conv, len(entered))):
            u += mamba.conv.weight[:, 0, mamba.d_conv - 1 - back] * entered[-1 - back]
        u = u * u.sigmoid()
        selected = mamba.select.weight @ u
        low, b, c = selected[:rank], selected[rank : rank + n_states], selected[rank + n_states :]
        delta = (1 + (mamba.step.weight @ low + mamba.step.bias).exp()).log()
        state = (delta[:, None] * decay).exp() * state + torch.outer(delta * u, b)
        gate = projected[inner:]
        out.append(mamba.leave.weight @ ((state @ c + mamba.skip * u) * gate * gate.sigmoid()))
    return torch.stack(out)


def no_drop(x, share):
    return x


def normalised(norm, x):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-12).sqrt() * norm.weight + norm.bias


def shaken(module, spread=0.3):
    """The module in float64, every parameter moved, so that none is idle."""
    module.double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(spread * torch.randn_like(parameter))
    return module


def test_it_has_the_parameters_of_the_released_code():
    backbone = Mamba4Rec(64)
    mambas = [part for part in backbone.modules() if isinstance(part, Mamba)]
    assert [n_parameters(mamba) for mamba in mambas] == [38_784]
    assert n_parameters(backbone) - 38_784 == 33_472
    assert n_parameters(Mamba4Rec(64, n_layers=2)) == 128 + 2 * (38_784 + 33_472 - 128)


@pytest.mark.parametrize(("rows", "logged"), [(3_417, 290_944), (12_102, 846_784), (17_287, 1_178_624)])
def test_with_an_item_table_it_has_the_parameters_that_its_logs_count(rows, logged):
    assert n_parameters(Mamba4Rec(64)) + 64 * rows == logged


@pytest.mark.parametrize("length", [1, 3, 50])
@pytest.mark.parametrize("d_conv", [1, 4])
def test_a_block_is_the_recurrence_of_its_definition(length, d_conv):
    torch.manual_seed(0)
    mamba = shaken(Mamba(6, d_state=3, d_conv=d_conv))
    h = torch.randn(length, 6, dtype=torch.float64)
    torch.testing.assert_close(mamba(h, Sequences.pack([range(length)]))[0], defined(mamba, h), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n_layers", [1, 2])
@pytest.mark.parametrize("share", [0.0, 0.3])
def test_the_shell_adds_a_residual_to_the_block_only_where_there_are_several(n_layers, share, drop):
    torch.manual_seed(0)
    backbone = shaken(Mamba4Rec(6, n_layers=n_layers, d_state=3, dropout=share)).train()
    drop = drop if share else no_drop
    events = torch.randn(9, 6, dtype=torch.float64)
    h = normalised(backbone.shell.norm, events)
    for layer in backbone.shell.layers:
        mixed = drop(defined(layer.mixer, h), share)
        h = normalised(layer.mixer_norm, mixed + h if n_layers > 1 else mixed)
        widened = h @ layer.feed_forward.widen.weight.T + layer.feed_forward.widen.bias
        assert widened.shape[1] == 24
        activated = widened * (1 + torch.erf(widened / 2**0.5)) / 2
        narrowed = drop(activated, share) @ layer.feed_forward.narrow.weight.T + layer.feed_forward.narrow.bias
        h = normalised(layer.feed_forward_norm, drop(narrowed, share) + h)
    torch.testing.assert_close(backbone(events, Sequences.pack([range(9)])), h, rtol=1e-10, atol=1e-10)


def steps(backbone):
    """The step sizes Δ of 20 random events, in the first layer."""
    seen = []
    mamba = backbone.shell.layers[0].mixer
    handle = mamba.step.register_forward_hook(lambda _module, _inputs, out: seen.append(F.softplus(out)))
    backbone(torch.randn(20, backbone.dim), Sequences.pack([range(20)]))
    handle.remove()
    return torch.cat(seen)


def test_the_blanket_initialisation_begins_every_step_at_the_logarithm_of_two():
    torch.manual_seed(0)
    backbone = Mamba4Rec(64)
    delta = steps(backbone)
    assert delta.shape == (20, 128)
    assert (delta - 0.693).abs().max() < 0.02


def test_the_other_initialisation_spreads_the_steps_from_a_thousandth_to_a_tenth():
    torch.manual_seed(0)
    backbone = Mamba4Rec(64, dt_init=StepInit.mamba)
    biases = F.softplus(backbone.shell.layers[0].mixer.step.bias)
    assert biases.min() >= 0.9999e-3
    assert biases.max() <= 1.0001e-1
    assert biases.log10().std() > 0.4  # spread evenly over two decades: 2 / sqrt(12) = 0.58
    delta = steps(backbone)
    assert delta.min() > 0.9e-3
    assert delta.max() < 1.1e-1


@pytest.mark.parametrize(("dim", "rank"), [(64, 4), (65, 5)])
def test_the_other_initialisation_draws_the_map_to_the_steps_by_its_rank(dim, rank):
    """Uniform up to 1 / sqrt(rank), whose standard deviation is that divided by sqrt(3)."""
    torch.manual_seed(0)
    weight = Mamba4Rec(dim, dt_init=StepInit.mamba).shell.layers[0].mixer.step.weight
    assert weight.shape == (2 * dim, rank)
    assert 0.99 * rank**-0.5 < weight.abs().max() <= rank**-0.5
    assert weight.std().item() == pytest.approx((3 * rank) ** -0.5, rel=0.05)
    assert weight.mean().item() == pytest.approx(0, abs=0.05)
    assert Mamba4Rec(dim).shell.layers[0].mixer.step.weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_all_linear_maps_begin_small_and_the_rest_of_the_block_as_mamba_does():
    torch.manual_seed(0)
    backbone = Mamba4Rec(64)
    linears = [part for part in backbone.modules() if isinstance(part, torch.nn.Linear)]
    assert len(linears) == 6
    for linear in linears:
        assert linear.weight.std().item() == pytest.approx(0.02, rel=0.1)
        assert linear.bias is None or not linear.bias.any()
    mamba = backbone.shell.layers[0].mixer
    torch.testing.assert_close(-mamba.decay_log.exp(), -torch.arange(1.0, 33).expand(128, 32))
    assert (mamba.skip == 1).all()
    assert mamba.conv.weight.abs().max() > 0.4  # torch's own, uniform up to 1/2


def test_steps_of_no_size_leave_the_skip_alone():
    torch.manual_seed(0)
    mamba = shaken(Mamba(6, d_state=3, d_conv=1))
    with torch.no_grad():
        mamba.step.bias.fill_(-1e4)
    h = torch.randn(9, 6, dtype=torch.float64)
    entered, gate = (h @ mamba.enter.weight.T).chunk(2, dim=1)
    u = F.silu(entered * mamba.conv.weight[:, 0, 0] + mamba.conv.bias)
    expected = (mamba.skip * u * F.silu(gate)) @ mamba.leave.weight.T
    torch.testing.assert_close(mamba(h, Sequences.pack([range(9)]))[0], expected)


def test_steps_of_great_size_forget_everything_but_the_event():
    torch.manual_seed(0)
    mamba, h = shaken(Mamba(6, d_state=3, d_conv=1)), torch.randn(9, 6, dtype=torch.float64)
    together, alone = Sequences.pack([range(9)]), Sequences.pack([[0]] * 9)
    assert not torch.allclose(mamba(h, together)[0], mamba(h, alone)[0])
    with torch.no_grad():
        mamba.step.bias.fill_(1e4)
    torch.testing.assert_close(mamba(h, together)[0], mamba(h, alone)[0])


def test_it_has_at_least_one_layer():
    with pytest.raises(ValueError, match="n_layers must be at least 1"):
        Mamba4Rec(8, n_layers=0)


def test_a_small_change_of_the_step_sizes_counts_in_half_precision_too():
    """A bias near -5 that is rounded to bfloat16 moves in steps of 0.03 alone."""
    torch.manual_seed(0)
    block, history = Mamba(16), Sequences.pack([list(range(20))])
    events = torch.randn(20, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        before, _ = block(events, history)
        block.step.bias += 2e-3
        after, _ = block(events, history)
    assert not torch.equal(before, after)
