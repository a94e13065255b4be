"""Attention that goes on from what it remembers tells a position inside it where the new events stand."""

import pytest
import torch
from torch import Tensor

from seqrec.backbones.ligr import LiGR
from seqrec.backbones.sasrec import SASRec
from seqrec.ops.attention import causal_attention, resumed_attention
from seqrec.positions.base import AttentionPosition
from seqrec.sequences import Sequences

HISTORIES = [[3, 1, 4], [1], [], [5, 9, 2, 6, 5, 5], [*range(40)]]


class Turning(AttentionPosition):
    """Scores queries and keys by their absolute places, so that one that is mistaken shows."""

    pace: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("pace", torch.rand(channels))

    def _placed(self, x: Tensor, places: Tensor) -> Tensor:
        return x * (1 + (places[:, None, None] * self.pace).sin())

    def forward(self, q: Tensor, k: Tensor, v: Tensor, history: Sequences) -> Tensor:
        places = history.places
        return causal_attention(self._placed(q, places), self._placed(k, places), v, history.offsets)

    def proceed(self, q: Tensor, k: Tensor, v: Tensor, history: Sequences, offsets: Tensor) -> Tensor:
        every = Sequences(torch.zeros(len(k), dtype=torch.long), offsets)
        remembered = every.lengths - history.lengths
        places = history.places + remembered[history.owners]
        return resumed_attention(self._placed(q, places), self._placed(k, every.places), v, history.offsets, offsets)


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
