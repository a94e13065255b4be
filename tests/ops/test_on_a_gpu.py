"""Attention and cross-entropy on a GPU answer as their references do in float64 on a CPU, values and gradients.

Scans and convolutions are in test_scan_triton.py and test_conv_triton.py.
"""

import pytest
import torch
from on_a_gpu import DEVICE, LENGTHS, TOLERANCE, agree, on_a_gpu, to
from test_adjusted_attention import drawn, pointwise

from seqrec.ops import adjusted_attention as adjusted
from seqrec.ops import cross_entropy
from seqrec.ops.adjusted_attention import Stand, adjusted_attention, softmax
from seqrec.ops.attention import bidirectional_attention, causal_attention, continued_attention, resumed_attention
from seqrec.ops.cross_entropy import linear_cross_entropy
from seqrec.ops.dispatch import using
from seqrec.sequences import bounds

# How many events each history remembers, and how many more ask.
RESUMED = {
    "no history": ([], []),
    "nothing remembered": ([0, 0], [3, 20]),
    "some have no past, some nothing new, one neither": ([5, 0, 3, 0, 90], [2, 4, 0, 0, 33]),
    "one more event behind a long past": ([1999, 3, 200], [1, 1, 1]),
    "mostly new": ([4, 0, 9, 3], [50, 31, 2000, 40]),
}
half_and_full = pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16], ids=str)


def heads(kind, *lengths):
    torch.manual_seed(0)
    return [torch.randn(n, 2, 16).to(kind).requires_grad_() for n in lengths]


def compare(op, inputs, others, kind, run=None):
    """Every implementation on a GPU beside the reference; ``run`` calls the op where it takes other arguments."""

    def answers(name, inputs, others):
        with using(name):
            out = (run or op)(*inputs, *others)
        upstream = torch.cos(torch.arange(out.numel(), device=out.device) / 3).view_as(out)
        total = (out * upstream.to(out.dtype)).sum() + sum(0 * x.sum() for x in inputs)  # no events depend on nothing
        return out, *torch.autograd.grad(total, inputs)

    expected = answers("reference", [to("cpu", x, torch.float64) for x in inputs], others)
    there = [to(DEVICE, x) for x in inputs], [to(DEVICE, x) for x in others]
    for implementation in op.implementations:
        agree(answers(implementation.name, *there), expected, TOLERANCE[kind])


@on_a_gpu
@half_and_full
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
@pytest.mark.parametrize("op", [causal_attention, bidirectional_attention], ids=["causal", "bidirectional"])
def test_attention_agrees(op, lengths, kind):
    compare(op, heads(kind, *[sum(lengths)] * 3), [bounds(torch.tensor(lengths).long())], kind)


@on_a_gpu
@half_and_full
@pytest.mark.parametrize(("past", "new"), RESUMED.values(), ids=RESUMED.keys())
def test_attention_of_the_newest_events_agrees(past, new, kind):
    past, new = (torch.tensor(lengths).long() for lengths in (past, new))
    n_new, n_all = int(new.sum()), int((past + new).sum())
    compare(resumed_attention, heads(kind, n_new, n_all, n_all), [bounds(new), bounds(past + new)], kind)


@on_a_gpu
@half_and_full
@pytest.mark.parametrize("most", [None, 1], ids=["all ask", "the newest asks"])
@pytest.mark.parametrize(("past", "new"), RESUMED.values(), ids=RESUMED.keys())
def test_attention_behind_what_is_remembered_agrees(past, new, most, kind):
    past, new = (torch.tensor(lengths).long() for lengths in (past, new))
    asking = new if most is None else new.clamp(max=most)
    inputs = heads(kind, *(int(each.sum()) for each in (asking, new, new, past, past)))
    others = [bounds(new), bounds(past), None if most is None else bounds(asking)]

    def run(q, k, v, past_k, past_v, offsets, past_offsets, query_offsets):
        return continued_attention(q, k, v, offsets, past_k, past_v, past_offsets, query_offsets)

    compare(continued_attention, inputs, others, kind, run)


@on_a_gpu
@half_and_full
@pytest.mark.parametrize("weigh", [softmax, pointwise])
@pytest.mark.parametrize("cells", [2**26, 20_000], ids=["one block", "many blocks"])
@pytest.mark.parametrize(("past", "new"), RESUMED.values(), ids=RESUMED.keys())
def test_attention_with_other_logits_agrees(past, new, weigh, cells, kind, monkeypatch):
    monkeypatch.setitem(adjusted._CELLS, DEVICE.type, cells)
    _, offsets, (asking, asked) = drawn(past, new)
    n_queries, n_keys = len(asking.places), len(asked.places)
    slope = torch.tensor([0.1, -0.2]).to(kind).requires_grad_()
    others = [*offsets, asking.places, asking.times, asked.places, asked.times]

    def run(q, k, v, slope, offsets, key_offsets, *stands):
        def adjust(logits, pairs):
            apart = (pairs.asking.times[:, :, None] - pairs.asked.times[:, None, :]).abs()[:, None]
            told = 0.01 * pairs.lags[:, None] / (1 + pairs.lags[:, None].abs()) + 0.01 * pairs.n_later[:, None, :, None]
            return logits * (1 + apart) ** slope[:, None, None] + told

        asking, asked = Stand(*stands[:2]), Stand(*stands[2:])
        return adjusted_attention(q, k, v, offsets, key_offsets, asking, asked, adjust, weigh, 0.25)

    compare(adjusted_attention, [*heads(kind, n_queries, n_keys, n_keys), slope], others, kind, run)


@on_a_gpu
@half_and_full
@pytest.mark.parametrize("told", [None, "true", "not true"])
@pytest.mark.parametrize(("n_queries", "n_keys"), [(0, 9), (1, 1), (300, 5000), (2000, 12_101)])
def test_cross_entropy_agrees(n_queries, n_keys, told, kind, monkeypatch):
    """In half precision under autocast, as in training: queries and keys stay what they are."""
    monkeypatch.setitem(cross_entropy._BLOCK_BYTES, DEVICE.type, 1 << 20)
    torch.manual_seed(0)
    inputs = [torch.randn(n, 16).div(2).requires_grad_() for n in (n_queries, n_keys)]
    weights = torch.rand(n_queries)
    believed = {None: None, "true": weights, "not true": weights.flip(0)}[told]

    def run(queries, keys, targets, weights, believed):
        with torch.autocast(
            DEVICE.type, torch.bfloat16, enabled=kind == torch.bfloat16 and queries.dtype == torch.float32
        ):
            return linear_cross_entropy(queries, keys, targets, believed) * weights.to(queries.dtype)

    compare(linear_cross_entropy, inputs, [torch.randint(n_keys, (n_queries,)), weights, believed], kind, run)
