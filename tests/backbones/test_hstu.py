"""What is peculiar to HSTU: its equations, one divisor for all lengths, and the time of asking."""

import pytest
import torch
from torch.nn import functional as F

from seqrec.backbones.hstu import HSTU, PointwiseSiLU
from seqrec.positions.relative import RelativeBias
from seqrec.positions.stacked import Stacked
from seqrec.positions.time_bias import TimeBias, span
from seqrec.sequences import Sequences

DIM, HEADS, LONGEST = 8, 2, 20


def by_hand(unit, x, places_table=None, times_table=None, times=None, asked_at=None, dropped=lambda y: y):
    """One unit over one history, as the paper writes it."""

    def norm(y):
        return (y - y.mean(-1, keepdim=True)) / (y.var(-1, unbiased=False, keepdim=True) + 1e-6).sqrt()

    n = len(x)
    u, v, q, k = F.silu(norm(x) @ unit.enter.weight.T).chunk(4, -1)
    mixed = []
    for head in range(HEADS):
        mine = slice(head * DIM // HEADS, (head + 1) * DIM // HEADS)
        scores = q[:, mine] @ k[:, mine].T
        for i in range(n):
            for j in range(i + 1):
                if places_table is not None:
                    scores[i, j] += places_table[i - j] + times_table[span(asked_at[i] - times[j])]
        mixed.append((F.silu(scores) / LONGEST).tril() @ v[:, mine])
    return x + dropped(u * norm(torch.cat(mixed, -1))) @ unit.leave.weight.T + unit.leave.bias


def test_a_unit_is_what_the_paper_writes():
    torch.manual_seed(0)
    backbone, x = HSTU(DIM, 1, HEADS, max_length=LONGEST).eval(), torch.randn(6, DIM)
    with torch.no_grad():
        backbone.units[0].enter.weight.mul_(20)
    torch.testing.assert_close(backbone(x, Sequences.pack([[0] * 6])), by_hand(backbone.units[0], x))


def test_a_unit_drops_of_what_it_adds_before_it_is_mapped_and_none_of_its_weights(drop):
    torch.manual_seed(0)
    backbone, x = HSTU(DIM, 1, HEADS, dropout=0.3, max_length=LONGEST).train(), torch.randn(6, DIM)
    with torch.no_grad():
        backbone.units[0].enter.weight.mul_(20)
    expected = by_hand(backbone.units[0], x, dropped=lambda y: drop(y, 0.3))
    torch.testing.assert_close(backbone(x, Sequences.pack([[0] * 6])), expected)


def test_its_bias_adds_a_number_per_distance_and_one_per_span_until_the_next_event_is_asked_for():
    torch.manual_seed(0)
    backbone = HSTU(
        DIM, 1, HEADS, max_length=LONGEST, position=lambda c: Stacked(c, [lambda c: RelativeBias(c, 9), TimeBias])
    ).eval()
    places, times = (part for part in backbone.units[0].attention.position.parts)
    torch.nn.init.normal_(places.table)
    torch.nn.init.normal_(times.table)
    happened = torch.tensor([10, 20, 4_000, 4_001, 90_000])
    asked_at = torch.tensor([20, 4_000, 4_001, 90_000, 1_000_000])
    history = Sequences(torch.arange(5), torch.tensor([0, 5]), happened, asked_at)
    x = torch.randn(5, DIM)
    expected = by_hand(backbone.units[0], x, places.table[0], times.table, happened, asked_at)
    torch.testing.assert_close(backbone(x, history), expected)


@pytest.mark.parametrize("concatenates", [False, True])
def test_parameters_are_counted_as_the_equations_say(concatenates):
    backbone = HSTU(64, 2, 4, head_dim=8, concatenates=concatenates)
    inner = 4 * 8
    one = 64 * 4 * inner + (3 if concatenates else 1) * inner * 64 + 64
    assert sum(weight.numel() for weight in backbone.parameters()) == 2 * one


def test_maps_into_a_unit_begin_small_and_those_out_of_it_as_xavier_has_them():
    torch.manual_seed(0)
    (unit,) = HSTU(64, 1, 2).units
    assert unit.enter.weight.std().item() == pytest.approx(0.02, rel=0.05)
    farthest = (6 / (64 + 64)) ** 0.5  # uniform up to there
    assert 0.99 * farthest < unit.leave.weight.abs().max() <= farthest
    assert unit.leave.weight.std().item() == pytest.approx(farthest / 3**0.5, rel=0.05)


def test_weights_are_divided_alike_whatever_the_length():
    weigh, logits = PointwiseSiLU(50), torch.full((1, 1, 1, 3), 2.0)
    weights = weigh(logits, torch.tensor([True, True, False]).expand(1, 1, 1, 3))
    torch.testing.assert_close(weights.flatten(), torch.tensor([1.0, 1.0, 0.0]) * F.silu(torch.tensor(2.0)) / 50)


@pytest.mark.parametrize(
    ("arguments", "message"), [({"n_heads": 3}, "multiple of n_heads"), ({"max_length": 0}, "max_length is 0")]
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        HSTU(8, **arguments)
