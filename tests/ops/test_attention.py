"""Every implementation of packed attention equals the loop over histories, values and gradients."""

import pytest
import torch

from seqrec.ops.attention import causal_attention
from seqrec.ops.dispatch import using
from seqrec.sequences import bounds

LENGTHS = {
    "one event": [1],
    "all alike": [5, 5, 5],
    "single events among others": [3, 1, 4, 1, 5],
    "far apart": [2, 63, 17, 200, 1, 33],
    "very long": [700, 1],
    "an empty history": [3, 0, 2],
}


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
@pytest.mark.parametrize("implementation", [i.name for i in causal_attention.implementations])
def test_implementations_agree_with_the_reference(lengths, implementation):
    offsets = bounds(torch.tensor(lengths))
    q, k, v = (torch.randn(sum(lengths), 2, 4, dtype=torch.float64).requires_grad_() for _ in range(3))
    upstream = torch.randn(sum(lengths), 2, 4, dtype=torch.float64)

    def run(name):
        with using(name):
            out = causal_attention(q, k, v, offsets)
        return out, *torch.autograd.grad((out * upstream).sum(), (q, k, v))

    torch.testing.assert_close(run(implementation), run("reference"))


def test_no_history_gives_no_state():
    nothing = torch.zeros(0, 2, 4)
    assert causal_attention(nothing, nothing, nothing, torch.tensor([0])).shape == (0, 2, 4)


def test_dropout_drops_weights_and_keeps_the_mean():
    offsets = bounds(torch.tensor([6] * 4000))
    q, k = torch.zeros(2, 24_000, 1, 1)
    v = torch.ones(24_000, 1, 1)
    out = causal_attention(q, k, v, offsets, dropout=0.5)
    assert abs(out.mean().item() - 1) < 0.05
    assert out.std() > 0.1
