"""The Mamba-2 block is the recurrence of its definition, with the parameters and beginnings of its authors' program."""

import pytest
import torch
from torch.nn import functional as F

from seqrec.nn.mamba2 import Mamba2
from seqrec.sequences import Sequences


def shaken(block, spread=0.3):
    """The block in float64, every parameter moved, so that none is idle."""
    block.double()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(spread * torch.randn_like(parameter))
    return block


def silu(x):
    return x / (1 + (-x).exp())


def defined(block, events):
    """The block over one history, event by event and head by head, from the definition."""
    inner, n_states, n_heads, width = block.norm.weight.numel(), block.d_state, block.skip.numel(), block.d_conv
    channels = inner // n_heads
    states, entered, out = [torch.zeros(channels, n_states, dtype=events.dtype)] * n_heads, [], []
    for event in events:
        projected = block.enter.weight @ event
        gate, mixed, steps = projected[:inner], projected[inner:-n_heads], projected[-n_heads:]
        entered = [*entered, mixed][-width:]
        window = torch.stack([torch.zeros_like(mixed)] * (width - len(entered)) + entered)
        convolved = silu((block.conv.weight[:, 0] * window.T).sum(1) + block.conv.bias)
        b, c = convolved[inner : inner + n_states], convolved[inner + n_states :]
        read = []
        for head in range(n_heads):
            u = convolved[channels * head : channels * (head + 1)]
            delta = (1 + (steps[head] + block.step_bias[head]).exp()).log()
            kept = (-delta * block.decay_log[head].exp()).exp()
            states[head] = kept * states[head] + delta * torch.outer(u, b)
            read.append(states[head] @ c + block.skip[head] * u)
        gated = torch.cat(read) * silu(gate)  # the gate comes before the norm
        out.append(block.leave.weight @ (gated / (gated.square().mean() + 1e-5).sqrt() * block.norm.weight))
    return torch.stack(out)


@pytest.mark.parametrize("length", [1, 3, 50])
@pytest.mark.parametrize("d_conv", [1, 4])
def test_a_block_is_the_recurrence_of_its_definition_in_float64_too(length, d_conv):
    torch.manual_seed(0)
    block = shaken(Mamba2(6, d_state=5, d_conv=d_conv, n_heads=4))  # 4 heads of 3 channels
    events = torch.randn(length, 6, dtype=torch.float64)
    states, _ = block(events, Sequences.pack([range(length)]))
    torch.testing.assert_close(states, defined(block, events), rtol=1e-12, atol=1e-12)


def test_it_has_the_parameters_of_the_authors_block():
    inner, n_states, n_heads = 128, 32, 4
    enter, leave = 64 * (2 * inner + 2 * n_states + n_heads), inner * 64
    convolved = inner + 2 * n_states
    by_hand = enter + convolved * 4 + convolved + 3 * n_heads + inner + leave
    assert by_hand == 30_028
    assert sum(parameter.numel() for parameter in Mamba2(64).parameters()) == by_hand


def test_decays_begin_evenly_from_1_to_16_and_steps_log_evenly_from_a_thousandth_to_a_tenth():
    torch.manual_seed(0)
    block = Mamba2(1000, expand=2, n_heads=2000)
    decays, steps = block.decay_log.exp(), F.softplus(block.step_bias.double())
    for found, low, high in ((decays, 1.0, 16.0), (steps.log10(), -3.0, -1.0)):
        assert found.min() > low - 1e-5
        assert found.max() < high + 1e-5
        shares = torch.tensor([0.01, 0.25, 0.5, 0.75, 0.99]).double()
        even = low + (high - low) * shares
        torch.testing.assert_close(found.double().quantile(shares), even, rtol=0, atol=0.05 * (high - low))
    assert (block.skip == 1).all()
    assert (block.norm.weight == 1).all()
