"""The Mamba-2 block is the recurrence of its definition, and begins as its authors say."""

import math

import pytest
import torch
from torch.nn import functional as F

from seqrec.nn.mamba import Mamba
from seqrec.nn.mamba2 import Mamba2
from seqrec.sequences import Sequences

DIM, STATES, HEADS = 6, 3, 4


def defined(block, h):
    """The block over one history, event by event and head by head, from the definition."""
    inner, width = 2 * DIM, 2 * DIM // HEADS
    state, entered, out = torch.zeros(HEADS, width, STATES, dtype=h.dtype), [], []
    for event in h:
        projected = block.enter.weight @ event
        gate, low = projected[:inner], projected[-HEADS:]
        entered.append(projected[inner : 2 * inner + 2 * STATES])
        mixed = block.conv.bias.clone()
        for back in range(min(block.d_conv, len(entered))):
            mixed += block.conv.weight[:, 0, block.d_conv - 1 - back] * entered[-1 - back]
        mixed = mixed * mixed.sigmoid()
        b, c = mixed[inner : inner + STATES], mixed[inner + STATES :]
        read = torch.zeros(inner, dtype=h.dtype)
        for head in range(HEADS):
            own = slice(head * width, (head + 1) * width)
            delta = (1 + (low[head] + block.step_bias[head]).exp()).log()
            decay = (-delta * block.decay_log[head].exp()).exp()
            state[head] = decay * state[head] + delta * torch.outer(mixed[own], b)
            read[own] = state[head] @ c + block.skip[head] * mixed[own]
        gated = read * gate * gate.sigmoid()
        normed = gated / (gated.square().mean() + 1e-5).sqrt() * block.norm.weight
        out.append(block.leave.weight @ normed)
    return torch.stack(out)


@torch.no_grad()
@pytest.mark.parametrize("length", [1, 3, 40])
@pytest.mark.parametrize("d_conv", [1, 4])
def test_a_block_is_the_recurrence_of_its_definition(length, d_conv):
    torch.manual_seed(0)
    block = Mamba2(DIM, STATES, d_conv, n_heads=HEADS).double().eval()
    for parameter in block.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
    h = torch.randn(length, DIM, dtype=torch.float64)
    found, _ = block(h, Sequences.pack([range(length)]))
    torch.testing.assert_close(found, defined(block, h), rtol=1e-10, atol=1e-10)


def test_it_has_the_parameters_of_its_authors_block():
    """For D 64, I 128, N 32, K 4 and 4 heads: projections, filters, decays, skips and steps, norm."""
    sizes = {name: weight.numel() for name, weight in Mamba2(64).named_parameters()}
    assert sizes.pop("enter.weight") == 64 * (2 * 128 + 2 * 32 + 4)
    assert sizes.pop("conv.weight") + sizes.pop("conv.bias") == (128 + 2 * 32) * (4 + 1)
    assert sizes.pop("norm.weight") == 128
    assert sizes.pop("leave.weight") == 128 * 64
    assert sizes == {"decay_log": 4, "step_bias": 4, "skip": 4}


def test_decays_and_steps_begin_spread_over_their_ranges():
    torch.manual_seed(0)
    block = Mamba2(1024, n_heads=2048)
    decays, steps = block.decay_log.exp().sort().values, F.softplus(block.step_bias).log().sort().values
    for found, least, most in ((decays, 1, 16), (steps, math.log(0.001), math.log(0.1))):
        assert least <= found[0] + 1e-4
        assert found[-1] - 1e-4 <= most
        torch.testing.assert_close(found, torch.linspace(least, most, len(found)), rtol=0, atol=0.05 * (most - least))
    assert torch.equal(block.skip, torch.ones(2048))


def test_spread_steps_of_mamba_begin_with_weights_as_wide_as_the_rank_says():
    torch.manual_seed(0)
    block = Mamba(64)  # of rank 4
    torch.nn.init.zeros_(block.step.weight)
    block.spread_steps()
    found = block.step.weight.flatten().sort().values
    torch.testing.assert_close(found, torch.linspace(-0.5, 0.5, found.numel()), rtol=0, atol=0.06)
    steps = F.softplus(block.step.bias)
    assert 0.00099 <= steps.min() <= 0.003
    assert 0.03 <= steps.max() <= 0.101
