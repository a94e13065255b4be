"""Attention with changed logits equals the loop over histories, values and gradients, however it is cut into blocks."""

import pytest
import torch
from torch.nn import functional as F

from seqrec.ops import adjusted_attention as room
from seqrec.ops.adjusted_attention import Stand, adjusted_attention, head_scale, softmax
from seqrec.ops.attention import causal_attention, groups_of, resumed_attention
from seqrec.ops.dispatch import using
from seqrec.sequences import Sequences, bounds

# How many events each history remembers, and how many more ask.
CASES = {
    "one event": ([0], [1]),
    "all alike": ([0, 0, 0], [5, 5, 5]),
    "far apart": ([0, 0, 0, 0], [2, 63, 17, 200]),
    "an empty history": ([0, 0, 0], [3, 0, 2]),
    "resumed": ([5, 0, 3, 0, 90], [2, 4, 0, 0, 33]),
    "one more event each": ([0, 3, 199, 40], [1, 1, 1, 1]),
    "one history that goes on": ([37], [3]),
}


def pointwise(logits, visible):
    return (F.silu(logits) / 7).masked_fill(~visible, 0)


def drawn(past, new, dtype=torch.float64):
    """Queries, keys and values, their offsets and where they stand; the times of both are random."""
    torch.manual_seed(0)
    past, new = (torch.tensor(lengths, dtype=torch.long) for lengths in (past, new))
    offsets, key_offsets = bounds(new), bounds(past + new)
    n_queries, n_keys = int(offsets[-1]), int(key_offsets[-1])
    q, k, v = (torch.randn(n, 2, 4, dtype=dtype).requires_grad_() for n in (n_queries, n_keys, n_keys))
    keys = Sequences(torch.zeros(n_keys, dtype=torch.long), key_offsets)
    queries = Sequences(torch.zeros(n_queries, dtype=torch.long), offsets)
    places = queries.places + past[queries.owners]
    stands = Stand(places, torch.randint(99, (n_queries,))), Stand(keys.places, torch.randint(99, (n_keys,)))
    return (q, k, v), (offsets, key_offsets), stands


@pytest.mark.parametrize(("past", "new"), CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("weigh", [softmax, pointwise])
@pytest.mark.parametrize(
    "cells", [2**19, 2000, 300], ids=["one block", "a few histories a block", "a few queries a block"]
)
def test_the_grouped_form_agrees_with_the_reference(past, new, weigh, cells, monkeypatch):
    monkeypatch.setattr(room, "_CELLS", {"cpu": cells, "cuda": cells})
    heads, offsets, stands = drawn(past, new)
    slope = torch.tensor([0.1, -0.2], dtype=torch.float64).requires_grad_()

    def adjust(logits, pairs):
        apart = (pairs.asking.times[:, :, None] - pairs.asked.times[:, None, :]).abs()[:, None]
        norms = pairs.queries.square().sum(-1, keepdim=True)
        return (
            logits * (1 + apart) ** slope[:, None, None]
            + norms
            + 0.01 * pairs.lags[:, None]
            + pairs.n_later[:, None, :, None]
        )

    def run(name):
        with using(name):
            out = adjusted_attention(*heads, *offsets, *stands, adjust, weigh, 0.7)
        return out, *torch.autograd.grad(out.square().sum() + out.sum(), (*heads, slope), allow_unused=True)

    torch.testing.assert_close(run("grouped"), run("reference"))


@pytest.mark.parametrize(("cells", "laid"), [(2 * 40, True), (2 * 3 * 40, False)], ids=["large", "small"])
def test_one_history_that_is_only_read_is_laid_nowhere_unless_its_logits_are_too_many(cells, laid, monkeypatch):
    heads, offsets, stands = drawn([37], [3])
    arguments = (*heads, *offsets, *stands, lambda logits, pairs: logits + pairs.lags[:, None], softmax, 0.7)
    learned = adjusted_attention(*arguments)
    monkeypatch.setattr(room, "_CELLS", {"cpu": cells, "cuda": cells})
    was_laid = []
    monkeypatch.setattr(room, "groups_of", lambda *lengths: [was_laid.append(True)] and groups_of(*lengths))
    with torch.no_grad(), using("grouped"):
        torch.testing.assert_close(adjusted_attention(*arguments), learned.detach())
    assert bool(was_laid) is laid


@pytest.mark.parametrize("name", ["reference", "grouped"])
@pytest.mark.parametrize(("past", "new"), CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("most", [None, 1], ids=["all ask", "the newest asks"])
def test_what_is_remembered_need_not_be_joined(past, new, most, name):
    heads, (offsets, whole), stands = drawn(past, new)
    if most is not None:
        newest = (offsets[1:] - 1)[offsets.diff() > 0]
        heads, offsets = (heads[0][newest], *heads[1:]), bounds(offsets.diff().clamp(max=most))
        stands = stands[0].at(newest), stands[1]
    old = torch.arange(int(whole[-1])) - torch.repeat_interleave(whole[:-1], whole.diff())
    is_past = old < torch.repeat_interleave(torch.tensor(past, dtype=torch.long), whole.diff())

    def adjust(logits, pairs):
        apart = (pairs.asking.times[:, :, None] - pairs.asked.times[:, None, :]).abs()[:, None]
        return logits + 0.1 * apart + 0.01 * pairs.lags[:, None] + pairs.n_later[:, None, :, None]

    def mixed(joined):
        k, v = heads[1:]
        rest = (adjust, pointwise, 0.7, 0.0)
        with using(name):
            if joined:
                return adjusted_attention(*heads, offsets, whole, *stands, *rest)
            remembered = (k[is_past], v[is_past], bounds(torch.tensor(past, dtype=torch.long)))
            own = bounds(torch.tensor(new, dtype=torch.long))
            return adjusted_attention(heads[0], k[~is_past], v[~is_past], offsets, own, *stands, *rest, remembered)

    def run(joined):
        out = mixed(joined)
        return out, *torch.autograd.grad(out.square().sum() + out.sum(), heads[1:])

    torch.testing.assert_close(run(joined=False), run(joined=True))
    learned = mixed(joined=True).detach()
    with torch.no_grad():  # as a service reads
        torch.testing.assert_close(mixed(joined=False), learned)


def test_no_history_gives_no_state():
    heads, offsets, stands = drawn([], [])
    for name in ("reference", "grouped"):
        with using(name):
            assert adjusted_attention(*heads, *offsets, *stands, lambda x, _: x).shape == (0, 2, 4)


@pytest.mark.parametrize(("past", "new"), CASES.values(), ids=CASES.keys())
def test_without_a_change_it_is_plain_attention(past, new):
    heads, offsets, stands = drawn(past, new)
    for name in ("reference", "grouped"):
        with using(name):
            out = adjusted_attention(*heads, *offsets, *stands, lambda logits, _: logits, softmax, head_scale(4))
            plain = resumed_attention(*heads, *offsets)
        torch.testing.assert_close(out, plain)
        if not any(past):
            torch.testing.assert_close(out, causal_attention(*heads, offsets[0]))


def test_what_a_query_may_not_see_changes_nothing_whatever_is_said_about_it():
    heads, offsets, stands = drawn([0, 0], [5, 9])

    def adjust(logits, pairs):
        return logits.masked_fill(~pairs.visible, torch.inf)

    out = adjusted_attention(*heads, *offsets, *stands, adjust, softmax)
    torch.testing.assert_close(out, adjusted_attention(*heads, *offsets, *stands, lambda logits, _: logits, softmax))


def test_logits_are_float32_and_weights_follow_the_values_under_bfloat16():
    heads, offsets, stands = drawn([0, 0], [5, 9], torch.float32)
    seen = []

    def adjust(logits, pairs):
        seen.append(logits.dtype)
        return logits

    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = adjusted_attention(*heads, *offsets, *stands, adjust, softmax)
    assert set(seen) == {torch.float32}
    exact = adjusted_attention(*heads, *offsets, *stands, adjust, softmax)
    torch.testing.assert_close(out.float(), exact, atol=0.05, rtol=0.05)


def test_dropout_drops_weights_keeps_the_mean_and_is_the_same_on_the_way_back():
    offsets = bounds(torch.tensor([6] * 4000))
    q, k = torch.zeros(2, 24_000, 1, 1)
    v = torch.ones(24_000, 1, 1).requires_grad_()
    stand = Stand(torch.arange(6).repeat(4000))
    torch.manual_seed(0)
    out = adjusted_attention(q, k, v, offsets, offsets, stand, stand, lambda x, _: x, softmax, 1.0, 0.5)
    assert abs(out.mean().item() - 1) < 0.05
    assert out.std() > 0.1
    (gradient,) = torch.autograd.grad(out.sum(), v)
    # The outputs are linear in the values, so the same weights went both ways.
    torch.testing.assert_close(gradient.sum(), out.sum(), rtol=1e-4, atol=0)
