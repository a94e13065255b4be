"""Positions that learn nothing have the values of their papers, and distances have the number of their own."""

import math

import pytest
import torch

from seqrec.ops.adjusted_attention import Pairs, Stand
from seqrec.positions.relative import ALiBi, RelativeBias
from seqrec.positions.sinusoidal import SinusoidalPosition
from seqrec.sequences import Sequences


@pytest.mark.parametrize(
    ("n_heads", "slopes"), [(1, [2**-8]), (2, [2**-4, 2**-8]), (8, [2.0**-h for h in range(1, 9)])]
)
def test_alibi_takes_as_much_for_each_event_further_away_as_its_paper_says(n_heads, slopes):
    n = 5
    places = torch.arange(n)[None]
    seen = torch.arange(1, n + 1)[None]
    pairs = Pairs(torch.zeros(1, n_heads, n, 4), Stand(places, None), Stand(places, None), seen, n - seen)
    logits = torch.randn(1, n_heads, n, n)
    taken = logits - ALiBi(4).adjust(logits, pairs)
    for head, slope in enumerate(slopes):
        for query in range(n):
            for key in range(query + 1):
                assert float(taken[0, head, query, key]) == pytest.approx(slope * (query - key), abs=1e-6)


def test_every_distance_has_a_number_and_those_beyond_the_table_have_its_last():
    n, n_numbers = 6, 4
    places, seen = torch.arange(n)[None], torch.arange(1, n + 1)[None]
    pairs = Pairs(torch.zeros(1, 1, n, 4), Stand(places, None), Stand(places, None), seen, n - seen)
    position = RelativeBias(4, n_numbers)
    with torch.no_grad():
        position.table.copy_(torch.tensor([[5.0, 6.0, 7.0, 9.0]]))
    added = position.adjust(torch.zeros(1, 1, n, n), pairs)
    assert added[0, 0, -1].tolist() == [9, 9, 9, 7, 6, 5]


def test_waves_are_sines_then_cosines_of_the_place_at_falling_pace():
    position = SinusoidalPosition(6, base=100.0, scale=0.5)
    rows = position(torch.zeros(5, 6), Sequences.pack([[7, 7, 7], [7, 7]]))
    for row, place in enumerate([0, 1, 2, 0, 1]):
        paces = [100.0 ** (-2 * pair / 6) for pair in range(3)]
        waves = [math.sin(place * pace) for pace in paces] + [math.cos(place * pace) for pace in paces]
        assert rows[row].tolist() == pytest.approx([0.5 * wave for wave in waves], abs=1e-6)
