"""Compressed user tokens: who may see whom, that the past is forgotten, and that to go on equals the full pass."""

from dataclasses import replace

import pytest
import torch

from seqrec.backbones.compressed import Compressed
from seqrec.backbones.gru4rec import GRU4Rec
from seqrec.backbones.hstu import HSTU
from seqrec.backbones.ligr import LiGR
from seqrec.backbones.mamba4rec import Mamba4Rec
from seqrec.backbones.sasrec import SASRec
from seqrec.data.supervision import EveryEvent, EveryEventWithinSegments
from seqrec.positions.contextual import CAPE
from seqrec.positions.relative import RelativeBias
from seqrec.positions.rotary import RotaryPosition
from seqrec.positions.stacked import Stacked
from seqrec.positions.time_bias import TimeBias
from seqrec.sequences import Sequences

DIM, TOKENS, RECENT = 8, 3, 5
LENGTHS = [12, 1, 0, 5, 30, 6]
INNER = [
    pytest.param(lambda: SASRec(DIM), id="SASRec"),
    pytest.param(lambda: LiGR(DIM, n_heads=2, position=RotaryPosition), id="LiGR-rotary"),
    pytest.param(lambda: HSTU(DIM, n_heads=2, max_length=40), id="HSTU"),
    pytest.param(
        lambda: HSTU(DIM, position=lambda c: Stacked(c, [lambda c: RelativeBias(c, 50), TimeBias])), id="HSTU-bias"
    ),
    pytest.param(lambda: SASRec(DIM, position=lambda c: CAPE(c, 20)), id="SASRec-CAPE"),
    pytest.param(lambda: Mamba4Rec(DIM, d_state=4), id="Mamba4Rec"),
    pytest.param(lambda: GRU4Rec(DIM), id="GRU4Rec"),
]
ATTENTION = INNER[:5]


def ready(inner, n_segments=1, **arguments):
    torch.manual_seed(0)
    backbone = Compressed(inner(), TOKENS, RECENT, n_segments, init_std=1.0, **arguments).eval()
    for name, weight in backbone.named_parameters():
        if "position" in name or "enter" in name:
            torch.nn.init.normal_(weight, std=0.5)
    return backbone


def drawn(lengths):
    torch.manual_seed(1)
    history = Sequences.pack(
        [[0] * n for n in lengths], [torch.randint(1, 999, (n,)).cumsum(0).tolist() for n in lengths]
    )
    asked_at = torch.cat([history.times[1:], history.times[:1]])
    newest = history.newest[history.lengths > 0]
    asked_at[newest] = history.times[newest] + 50_000
    history = Sequences(history.items, history.offsets, history.times, asked_at)
    return torch.randn(sum(lengths), DIM), history


def part(history, chosen):
    """Those events, as histories of their own."""
    kept = torch.zeros(len(history), dtype=torch.long).index_add(
        0, history.owners[chosen], torch.ones_like(history.owners[chosen])
    )
    offsets = torch.cat([kept.new_zeros(1), kept.cumsum(0)])
    return Sequences(history.items[chosen], offsets, history.times[chosen], history.asked_at[chosen])


def is_older(history):
    return history.places < (history.lengths - RECENT)[history.owners]


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("n_segments", [1, 2])
def test_to_go_on_from_the_compressed_past_equals_the_full_pass(inner, n_segments):
    backbone = ready(inner, n_segments)
    events, history = drawn(LENGTHS)
    full = backbone(events, history)
    older = is_older(history)
    of_older, memory = backbone.remember(events[older], part(history, older))
    torch.testing.assert_close(of_older, full[older], rtol=1e-5, atol=1e-5)
    states, _ = backbone.proceed(events[~older], part(history, ~older), memory)
    torch.testing.assert_close(states, full[~older], rtol=1e-5, atol=1e-5)
    one_by_one = []
    recent = history.places - (history.lengths - RECENT).clamp(min=0)[history.owners]
    for place in range(RECENT):
        now = recent == place
        states, memory = backbone.proceed(events[now], part(history, now), memory)
        one_by_one.append(states)
        torch.testing.assert_close(states, full[now], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("inner", ATTENTION)
def test_the_compressed_past_holds_as_many_rows_as_there_are_tokens(inner):
    backbone = ready(inner, n_segments=2)
    _, memory = backbone.remember(*drawn(LENGTHS))
    assert all(layer.offsets.diff().tolist() == [2 * TOKENS] * len(LENGTHS) for layer in memory)


@pytest.mark.parametrize("inner", ATTENTION)
@pytest.mark.parametrize("n_segments", [1, 3])
@pytest.mark.parametrize("tokens_predict", [True, False])
def test_events_reach_their_own_segment_directly_and_all_earlier_ones_through_tokens_alone(
    inner, n_segments, tokens_predict, monkeypatch
):
    backbone = ready(inner, n_segments, tokens_predict=tokens_predict)
    length = 17
    events, history = drawn([length])
    edges = torch.tensor([(length - RECENT) * s // n_segments for s in range(n_segments)] + [length - RECENT])
    segment = (torch.arange(length)[:, None] >= edges).sum(1)
    earlier = torch.ones(length, length).tril().bool()
    asked = torch.tensor([0, 3, 5, 11, 12, 16])  # among them the ends of segments and the beginning of what is recent
    assert torch.equal(_reached(backbone, events, history, asked), earlier[asked])
    condense = backbone.inner.condense

    def blind(before, after, n):
        """What tokens leave, without a way back to what they read."""
        return [
            replace(layer, keys=layer.keys.detach(), values=layer.values.detach())
            for layer in condense(before, after, n)
        ]

    monkeypatch.setattr(backbone.inner, "condense", blind)
    assert torch.equal(_reached(backbone, events, history, asked), (earlier & (segment[:, None] == segment))[asked])


def _reached(backbone, events, history, asked):
    """Which events these states depend on."""
    reached = []
    for i in asked.tolist():
        leaves = events.clone().requires_grad_()
        (gradient,) = torch.autograd.grad((backbone(leaves, history)[i] * torch.randn(DIM)).sum(), leaves)
        reached.append(gradient.abs().sum(1) > 0)
    return torch.stack(reached)


def test_where_there_is_nothing_older_it_is_the_inner_backbone_behind_constant_tokens():
    backbone = ready(lambda: SASRec(DIM))
    events, history = drawn([4, 5])
    mixed = torch.cat([backbone.tokens[0], events[:4], backbone.tokens[0], events[4:]])
    plain = backbone.inner(mixed, Sequences.pack([[0] * (TOKENS + 4), [0] * (TOKENS + 5)]))
    expected = torch.cat([plain[TOKENS : TOKENS + 4], plain[2 * TOKENS + 4 :]])
    torch.testing.assert_close(backbone(events, history), expected)


def test_the_state_before_the_tokens_is_that_of_the_last_token_or_its_own():
    events, history = drawn([12])
    speaks, silent = (ready(lambda: SASRec(DIM), tokens_predict=each) for each in (True, False))
    assert all(torch.equal(a, b) for a, b in zip(speaks.parameters(), silent.parameters(), strict=True))
    by_token, by_event = speaks(events, history), silent(events, history)
    differs = (by_token != by_event).any(1)
    assert differs.nonzero().flatten().tolist() == [12 - RECENT - 1]
    stream = torch.cat([events[: 12 - RECENT], speaks.tokens[0]])
    read = speaks.inner(stream, Sequences.pack([[0] * len(stream)]))
    torch.testing.assert_close(by_token[12 - RECENT - 1], read[-1])
    torch.testing.assert_close(by_event[12 - RECENT - 1], read[-1 - TOKENS])


@pytest.mark.parametrize(("predicts", "is_asked"), [(EveryEvent(), True), (EveryEventWithinSegments(RECENT), False)])
def test_the_last_token_speaks_unless_the_loss_keeps_within_segments(predicts, is_asked):
    events, history = drawn([12, 3])
    by_token, by_event = (ready(lambda: SASRec(DIM), tokens_predict=each)(events, history) for each in (True, False))
    at = predicts.predict_at(history)
    assert torch.equal(by_token[at], by_event[at]) is not is_asked


def test_tokens_happen_when_the_newest_event_before_them_does_and_neither_knows_what_is_asked_for_later(monkeypatch):
    backbone = ready(lambda: HSTU(DIM, position=TimeBias), n_segments=2)
    events, history = drawn([12, 3, 0])
    read = []
    proceed = backbone.inner.proceed
    monkeypatch.setattr(
        backbone.inner,
        "proceed",
        lambda events, history, memory: read.append(history) or proceed(events, history, memory),
    )
    backbone(events, history)
    (first, second, _), times = read, history.times.tolist()
    # Of twelve events seven are older: three of them, then four, each part with its tokens behind it.
    assert first.times.tolist() == [*times[:3], *[times[2]] * TOKENS, *[0] * TOKENS, *[0] * TOKENS]
    assert second.times.tolist() == [*times[3:7], *[times[6]] * TOKENS, *[0] * TOKENS, *[0] * TOKENS]
    assert first.asked_at.tolist() == [*times[1:3], *[times[2]] * (1 + TOKENS), *[0] * TOKENS, *[0] * TOKENS]
    assert second.asked_at.tolist() == [*times[4:7], *[times[6]] * (1 + TOKENS), *[0] * TOKENS, *[0] * TOKENS]


@pytest.mark.parametrize("stacked", [False, True])
def test_a_position_that_counts_later_events_is_refused_since_tokens_would_count_as_such(stacked):
    def counting(channels):
        cape = CAPE(channels, mask_gates=False)
        return Stacked(channels, [lambda _: cape]) if stacked else cape

    with pytest.raises(TypeError, match=r"(CAPE|Stacked) means something else once the history goes on"):
        ready(lambda: SASRec(DIM, position=counting))(*drawn([12]))


def test_tokens_begin_apart_from_each_other():
    tokens = Compressed(SASRec(DIM), TOKENS, RECENT, n_segments=2).tokens.flatten(0, 1)
    assert (torch.pdist(tokens) > 0.02).all()


def test_one_layer_of_attention_is_refused_since_its_tokens_would_know_nothing():
    with pytest.raises(ValueError, match="give the backbone at least 2 layers"):
        ready(lambda: SASRec(DIM, n_layers=1))(*drawn([12]))


@pytest.mark.parametrize(("name", "value"), [("n_tokens", -1), ("n_recent", 0), ("n_segments", 0)])
def test_sizes_that_mean_nothing_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} is {value}; it must be at least {value + 1}"):
        Compressed(SASRec(DIM), **{name: value})


@pytest.mark.parametrize("inner", ATTENTION)
@pytest.mark.parametrize("n_segments", [1, 2])
def test_without_tokens_attention_reads_each_segment_as_if_it_were_all(inner, n_segments):
    torch.manual_seed(0)
    backbone = Compressed(inner(), 0, RECENT, n_segments).eval()
    for name, weight in backbone.named_parameters():
        if "position" in name:
            torch.nn.init.normal_(weight, std=0.5)
    events, history = drawn([4, 5, 0, 12, 30])
    states = backbone(events, history)
    recent = ~is_older(history)
    torch.testing.assert_close(states[recent], backbone.inner(events[recent], part(history, recent)))
    n_older = (history.lengths - RECENT).clamp(min=0)[history.owners]
    for number in range(n_segments):
        begin, end = (n_older * edge // n_segments for edge in (number, number + 1))
        own = (history.places >= begin) & (history.places < end)
        alone = part(history, own)
        last = alone.newest[alone.lengths > 0]
        alone.asked_at[last] = alone.times[last]  # what is older does not know when it is asked what follows
        torch.testing.assert_close(states[own], backbone.inner(events[own], alone))
    _, memory = backbone.remember(events, history)
    assert all(len(layer.keys) == 0 for layer in memory)
    after = backbone.proceed(events[recent], part(history, recent), backbone.restored(backbone.stored(memory)))[0]
    torch.testing.assert_close(after, states[recent], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("inner", INNER[5:])
def test_without_tokens_a_recurrent_backbone_is_itself(inner):
    backbone = Compressed(inner(), 0, RECENT).eval()
    events, history = drawn(LENGTHS)
    torch.testing.assert_close(backbone(events, history), backbone.inner(events, history), rtol=1e-5, atol=1e-5)
