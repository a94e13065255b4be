"""Attention that goes on from what it remembers tells a position inside it where the new events stand."""

import gc
import weakref

import pytest
import torch
from torch import Tensor

from seqrec.backbones.ligr import LiGR
from seqrec.backbones.sasrec import SASRec
from seqrec.nn.attention import CausalAttention
from seqrec.positions.base import TurningPosition
from seqrec.positions.relative import ALiBi
from seqrec.positions.rotary import RotaryPosition
from seqrec.sequences import Sequences

HISTORIES = [[3, 1, 4], [1], [], [5, 9, 2, 6, 5, 5], [*range(40)]]


class Turning(TurningPosition):
    """Changes queries and keys by their absolute places, so that one that is mistaken shows."""

    pace: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("pace", torch.rand(channels))

    def turn(self, x: Tensor, places: Tensor) -> Tensor:
        return x * (1 + (places[:, None, None] * self.pace).sin())


@pytest.mark.parametrize("build", [SASRec, LiGR])
@pytest.mark.parametrize("cut", [0, 1, 3, 17])
def test_places_count_on_from_the_past(build, cut):
    torch.manual_seed(0)
    backbone, vectors = build(8, n_heads=2, position=Turning).eval(), torch.randn(40, 8)

    def part(begin, end):
        return Sequences.pack([history[begin:end] for history in HISTORIES])

    older, newer, whole = part(0, cut), part(cut, 40), part(0, 40)
    _, memory = backbone.proceed(vectors[older.items], older, None)
    states, memory = backbone.proceed(vectors[newer.items], newer, memory)
    expected = backbone(vectors[whole.items], whole)[whole.places >= cut]
    torch.testing.assert_close(states, expected, rtol=1e-5, atol=1e-5)
    assert all(torch.equal(layer.offsets, whole.offsets) for layer in memory)


def test_the_memory_holds_a_key_and_a_value_of_every_event():
    backbone, vectors = SASRec(8, n_layers=3, n_heads=2).eval(), torch.randn(40, 8)
    packed = Sequences.pack(HISTORIES)
    _, memory = backbone.proceed(vectors[packed.items], packed, None)
    assert [(layer.keys.shape, layer.values.shape) for layer in memory] == 3 * [((50, 2, 4), (50, 2, 4))]


def test_what_is_left_of_a_memory_keeps_its_places_and_histories():
    backbone, vectors = SASRec(8, n_layers=1).eval(), torch.randn(40, 8)
    packed = Sequences.pack(HISTORIES, [[10 * place for place in range(len(history))] for history in HISTORIES])
    _, (memory,) = backbone.proceed(vectors[packed.items], packed, None)
    left = memory.newest(2)
    assert left.offsets.tolist() == [0, 2, 3, 3, 5, 7]
    assert left.places.tolist() == [1, 2, 0, 4, 5, 38, 39]
    assert left.times.tolist() == [10, 20, 0, 40, 50, 380, 390]
    assert torch.equal(left.keys, memory.keys[[1, 2, 3, 8, 9, 48, 49]])
    assert left.next_places.tolist() == memory.next_places.tolist() == [3, 1, 0, 6, 40]


def test_who_reads_on_keeps_no_earlier_memory():
    backbone, vectors = SASRec(8, n_layers=2).eval(), torch.randn(40, 8)
    memory, met = None, []
    for item in range(5):
        event = Sequences.pack([[item], [item + 1]])
        _, memory = backbone.proceed(vectors[event.items], event, memory)
        met += [weakref.ref(layer) for layer in memory]
    gc.collect()
    assert [layer.keys.shape[0] for layer in memory] == [10, 10]
    gc.collect()
    assert sum(each() is not None for each in met) == 2


@pytest.mark.parametrize("position", [None, RotaryPosition, ALiBi], ids=["none", "turns", "changes logits"])
@pytest.mark.parametrize("remembers", [False, True])
@pytest.mark.parametrize("trains", [False, True])
def test_weights_are_dropped_in_training_alone_whatever_the_position(position, remembers, trains):
    """Values of 1 make a mixture the sum of its weights; an event alone has one, which is 1, dropped or doubled."""
    torch.manual_seed(0)
    attention = CausalAttention(None if position is None else position(4), dropout=0.5).train(trains)
    ones, alone = torch.ones(2000, 1, 4), Sequences.pack([[0]] * 2000)
    memory = None
    if remembers:  # nothing
        _, memory = attention(ones[:0], ones[:0], ones[:0], Sequences.pack([[]] * 2000), None)
    mixed, _ = attention(torch.randn(2000, 1, 4), torch.randn(2000, 1, 4), ones, alone, memory)
    assert mixed[:, 0, 0].unique().tolist() == pytest.approx([0, 2] if trains else [1], abs=1e-3)
    assert mixed.mean().item() == pytest.approx(1, abs=0.1)
