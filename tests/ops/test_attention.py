"""Every implementation of packed attention equals the loop over histories, values and gradients."""

import pytest
import torch

from seqrec.ops.attention import (
    bidirectional_attention,
    causal_attention,
    continued_attention,
    join,
    joiner,
    resumed_attention,
)
from seqrec.ops.dispatch import using
from seqrec.sequences import bounds

LENGTHS = {
    "one event": [1],
    "all alike": [5, 5, 5],
    "single events among others": [3, 1, 4, 1, 5],
    "far apart": [2, 63, 17, 200, 1, 33],
    "very long": [700, 1],
    "an empty history": [3, 0, 2],
    "so many that short ones share no group with longer ones": [1, 2, 9, 0, 4, 20, 6, 12, 3] * 20,
}


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
@pytest.mark.parametrize(
    ("attention", "implementation"),
    [(op, i.name) for op in (causal_attention, bidirectional_attention) for i in op.implementations],
    ids=lambda part: getattr(part, "__name__", part),
)
@pytest.mark.parametrize("dropout", [0.0, 1e-9], ids=["no dropout", "dropout that drops nothing"])
def test_implementations_agree_with_the_reference(attention, lengths, implementation, dropout):
    offsets = bounds(torch.tensor(lengths))
    q, k, v = (torch.randn(sum(lengths), 2, 4, dtype=torch.float64).requires_grad_() for _ in range(3))
    upstream = torch.randn(sum(lengths), 2, 4, dtype=torch.float64)

    def run(name):
        with using(name):
            out = attention(q, k, v, offsets, dropout=dropout if name == implementation else 0.0)
        return out, *torch.autograd.grad((out * upstream).sum(), (q, k, v))

    torch.testing.assert_close(run(implementation), run("reference"))


def test_no_history_gives_no_state():
    nothing = torch.zeros(0, 2, 4)
    assert causal_attention(nothing, nothing, nothing, torch.tensor([0])).shape == (0, 2, 4)
    assert bidirectional_attention(nothing, nothing, nothing, torch.tensor([0])).shape == (0, 2, 4)
    assert resumed_attention(nothing, nothing, nothing, *torch.zeros(2, 1, dtype=torch.long)).shape == (0, 2, 4)


def test_histories_with_nothing_new_give_no_state():
    nothing, past = torch.zeros(0, 2, 4), torch.zeros(4, 2, 4)
    for name in ("reference", "grouped"):
        with using(name):
            out = resumed_attention(nothing, past, past, torch.tensor([0, 0, 0]), torch.tensor([0, 4, 4]))
        assert out.shape == (0, 2, 4)


def test_both_directions_weigh_as_computed_by_hand():
    q = torch.tensor([0.0, 1.0, 0.0, 9.0]).view(4, 1, 1)
    k = torch.tensor([0.0, 0.0, torch.log(torch.tensor(2.0)), 5.0]).view(4, 1, 1)
    v = torch.tensor([3.0, 5.0, 11.0, 7.0]).view(4, 1, 1)
    # The first three events are one history, which the second of them sees with the last counted twice.
    out = bidirectional_attention(q, k, v, torch.tensor([0, 3, 4]))
    torch.testing.assert_close(out.flatten(), torch.tensor([19 / 3, (3 + 5 + 2 * 11) / 4, 19 / 3, 7]))


@pytest.mark.parametrize("attention", [causal_attention, bidirectional_attention], ids=["causal", "bidirectional"])
@pytest.mark.parametrize("lengths", [[6] * 4000, [5, 7] * 2000], ids=["all alike", "filled up"])
def test_dropout_drops_weights_and_keeps_the_mean(attention, lengths):
    offsets = bounds(torch.tensor(lengths))
    q, k = torch.zeros(2, 24_000, 1, 1)
    v = torch.ones(24_000, 1, 1)
    out = attention(q, k, v, offsets, dropout=0.5)
    assert abs(out.mean().item() - 1) < 0.05
    assert out.std() > 0.1


# How many events each history remembers, and how many more ask.
RESUMED = {
    "one event each, from far apart pasts": ([0, 3, 199, 40, 17], [1, 1, 1, 1, 1]),
    "nothing remembered": ([0, 0], [3, 20]),
    "some have no past, some nothing new, one neither": ([5, 0, 3, 0, 90], [2, 4, 0, 0, 33]),
    "all alike": ([6, 6], [2, 2]),
    "a long past and a long present": ([300, 2, 300], [1, 400, 400]),
    "so many that short ones share no group with longer ones": (
        [0, 1, 8, 3, 19, 2, 11] * 25,
        [1, 3, 1, 0, 1, 9, 1] * 25,
    ),
}


@pytest.mark.parametrize(("past", "new"), RESUMED.values(), ids=RESUMED.keys())
@pytest.mark.parametrize("implementation", [i.name for i in resumed_attention.implementations])
def test_resumed_attention_is_the_newest_part_of_causal_attention(past, new, implementation):
    lengths = torch.tensor(past) + torch.tensor(new)
    whole, offsets = bounds(lengths), bounds(torch.tensor(new))
    n_events = int(lengths.sum())
    newest = torch.cat([torch.arange(end - n, end) for end, n in zip(whole[1:].tolist(), new, strict=True)])
    q, k, v = (torch.randn(n_events, 2, 4, dtype=torch.float64).requires_grad_() for _ in range(3))
    upstream = torch.randn(sum(new), 2, 4, dtype=torch.float64)

    def run(attention):
        out = attention()
        return out, *torch.autograd.grad((out * upstream).sum(), (q, k, v))

    with using("reference"):
        expected = run(lambda: causal_attention(q, k, v, whole)[newest])
        by_reference = run(lambda: resumed_attention(q[newest], k, v, offsets, whole))
    with using(implementation):
        found = run(lambda: resumed_attention(q[newest], k, v, offsets, whole))
    torch.testing.assert_close(by_reference, expected)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("dropout", [0.0, 1e-9], ids=["no dropout", "dropout that drops nothing"])
@pytest.mark.parametrize("attention", [causal_attention, bidirectional_attention], ids=["causal", "bidirectional"])
def test_a_broken_history_breaks_no_other(attention, dropout):
    q, k, v = torch.randn(3, 9, 2, 4)
    offsets = torch.tensor([0, 2, 5, 9])
    whole = attention(q, k, v, offsets, dropout=dropout)
    for broken in (q, k, v):
        broken[2:5] = torch.nan
    found = attention(q, k, v, offsets, dropout=dropout)
    assert found[2:5].isnan().all()
    torch.testing.assert_close(found[[0, 1, 5, 6, 7, 8]], whole[[0, 1, 5, 6, 7, 8]])


# How much each history remembers, and how much is new: so much more that nothing is masked.
CONTINUED = {
    "four each": ([4] * 5, [50] * 5),
    "some remember nothing, some have nothing new": ([4, 0, 9, 3, 0, 0], [50, 31, 29, 0, 1, 0]),
    "far apart": ([1, 60, 0, 2], [3, 200, 7, 40]),
    "so many that short ones share no group with longer ones": ([0, 1, 3, 2, 1] * 30, [1, 3, 19, 0, 90] * 30),
    "nobody remembers anything": ([0, 0, 0], [5, 9, 1]),
}


@pytest.mark.parametrize(("past", "new"), (CONTINUED | RESUMED).values(), ids=(CONTINUED | RESUMED).keys())
@pytest.mark.parametrize("most", [None, 1, 2], ids=["all ask", "the newest asks", "two at most ask"])
def test_continued_attention_is_resumed_attention_of_what_is_joined(past, new, most):
    offsets, past_offsets = (bounds(torch.tensor(lengths)) for lengths in (new, past))
    asking = None if most is None else bounds(torch.tensor(new).clamp(max=most))
    n_queries = sum(new) if asking is None else int(asking[-1])
    heads = [torch.randn(n, 2, 4, dtype=torch.float64).requires_grad_() for n in (n_queries, sum(new), sum(new))]
    remembered = [torch.randn(sum(past), 2, 4, dtype=torch.float64).requires_grad_() for _ in range(2)]
    upstream = torch.randn(n_queries, 2, 4, dtype=torch.float64)

    def run():
        out = continued_attention(*heads, offsets, *remembered, past_offsets, asking)
        return out, *torch.autograd.grad((out * upstream).sum(), (*heads, *remembered))

    with using("reference"):
        expected = run()
    torch.testing.assert_close(run(), expected)


@pytest.mark.parametrize(("past", "new"), RESUMED.values(), ids=RESUMED.keys())
def test_what_is_remembered_is_joined_for_one_history_alone(past, new, monkeypatch):
    monkeypatch.setattr("seqrec.ops.attention.joiner", None if len(new) > 1 else joiner)
    offsets, past_offsets = (bounds(torch.tensor(lengths)) for lengths in (new, past))
    heads, remembered = torch.randn(3, sum(new), 2, 4), torch.randn(2, sum(past), 2, 4)
    assert continued_attention(*heads, offsets, *remembered, past_offsets).isfinite().all()


@pytest.mark.parametrize(("past", "new"), CONTINUED.values(), ids=CONTINUED.keys())
def test_what_is_mostly_new_is_read_without_a_mask(past, new, monkeypatch):
    monkeypatch.setattr("seqrec.ops.attention._behind_a_mask", None)
    offsets, past_offsets = (bounds(torch.tensor(lengths)) for lengths in (new, past))
    heads, remembered = torch.randn(3, sum(new), 2, 4), torch.randn(2, sum(past), 2, 4)
    assert continued_attention(*heads, offsets, *remembered, past_offsets).isfinite().all()


def test_a_broken_history_breaks_no_other_that_goes_on():
    heads, remembered = torch.randn(3, 29, 2, 4), torch.randn(2, 5, 2, 4)
    offsets, past_offsets = torch.tensor([0, 12, 16, 29]), torch.tensor([0, 1, 3, 5])
    whole = continued_attention(*heads, offsets, *remembered, past_offsets)
    heads[:, 12:16], remembered[:, 1:3] = torch.nan, torch.nan
    found = continued_attention(*heads, offsets, *remembered, past_offsets)
    assert found[12:16].isnan().all()
    others = [*range(12), *range(16, 29)]
    torch.testing.assert_close(found[others], whole[others])


def test_resumed_attention_weighs_as_computed_by_hand():
    q, k = torch.tensor([0.0, 1.0]).view(2, 1, 1), torch.tensor([0.0, 0.0, torch.log(torch.tensor(2.0))]).view(3, 1, 1)
    v = torch.tensor([3.0, 5.0, 11.0]).view(3, 1, 1)
    # One event is remembered and two are new: the first of these sees two values, the second all, the last one twice.
    out = resumed_attention(q, k, v, torch.tensor([0, 2]), torch.tensor([0, 3]))
    torch.testing.assert_close(out.flatten(), torch.tensor([(3 + 5) / 2, (3 + 5 + 2 * 11) / 4]))


def test_dropout_drops_weights_of_resumed_attention_and_keeps_the_mean():
    q, k = torch.zeros(4000, 1, 1), torch.zeros(24_000, 1, 1)
    offsets, whole = bounds(torch.tensor([1] * 4000)), bounds(torch.tensor([6] * 4000))
    out = resumed_attention(q, k, torch.ones(24_000, 1, 1), offsets, whole, dropout=0.5)
    assert abs(out.mean().item() - 1) < 0.05
    assert out.std() > 0.1


def test_joining_lays_new_rows_behind_the_past_of_their_history():
    past, new = torch.arange(4.0).view(4, 1, 1), 10 + torch.arange(5.0).view(5, 1, 1)
    past_offsets, offsets = torch.tensor([0, 1, 1, 1, 4]), torch.tensor([0, 2, 3, 3, 5])
    joined = join(past, new, past_offsets, offsets)
    assert joined.flatten().tolist() == [0, 10, 11, 12, 1, 2, 3, 13, 14]
    assert (past_offsets + offsets).tolist() == [0, 3, 4, 4, 9]
