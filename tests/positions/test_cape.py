"""The identities of contextual positions that their definitions imply."""

import pytest
import torch

from seqrec.backbones.hstu import HSTU
from seqrec.backbones.ligr import LiGR
from seqrec.backbones.sasrec import SASRec
from seqrec.ops.adjusted_attention import Pairs, Stand
from seqrec.positions.contextual import CAPE, CoPE
from seqrec.positions.relative import RelativeBias
from seqrec.positions.rotary import RotaryPosition
from seqrec.positions.stacked import Stacked
from seqrec.sequences import Sequences

KEYS, COLUMNS = 7, 40


def pairs_of(n_keys=KEYS, n_queries=None):
    """Every query of one history beside all its keys."""
    n_queries = n_queries or n_keys
    places = torch.arange(n_keys)[None]
    n_visible = places[:, -n_queries:] + 1
    torch.manual_seed(1)
    queries = torch.randn(1, 2, n_queries, 4)
    return Pairs(queries, Stand(places[:, -n_queries:]), Stand(places), n_visible, n_keys - n_visible)


class Ones(torch.nn.Module):
    def forward(self, queries):
        return torch.ones(*queries.shape[:-1], 1)


def counting(kind, **arguments):
    """A position whose bias is the position itself: column m holds m, and queries are seen as 1."""
    position = kind(4, COLUMNS, position_dim=1, **arguments)
    with torch.no_grad():
        position.columns.table.copy_(torch.arange(COLUMNS).float())
    position.columns.project = Ones()
    return position


def positions_of(kind, logits, pairs, **arguments):
    return (counting(kind, **arguments).adjust(logits, pairs) - logits) * pairs.visible


def test_cape_and_cope_together_count_every_event():
    pairs, logits = pairs_of(), torch.randn(1, 2, KEYS, KEYS)
    total = positions_of(CAPE, logits, pairs) + positions_of(CoPE, logits, pairs)
    torch.testing.assert_close(
        total, ((pairs.lags + 1)[:, None] * pairs.visible).expand_as(total).float(), atol=1e-4, rtol=0
    )


def test_where_nothing_resembles_the_query_cape_counts_lags_and_where_all_does_nothing():
    pairs = pairs_of()
    unlike, alike = (torch.full((1, 2, KEYS, KEYS), each) for each in (-30.0, 30.0))
    lags = ((pairs.lags + 1)[:, None] * pairs.visible).expand_as(unlike).float()
    torch.testing.assert_close(positions_of(CAPE, unlike, pairs), lags, atol=1e-4, rtol=0)
    torch.testing.assert_close(positions_of(CAPE, alike, pairs), torch.zeros_like(lags), atol=1e-4, rtol=0)
    torch.testing.assert_close(positions_of(CoPE, alike, pairs), lags, atol=1e-4, rtol=0)


def test_positions_at_halves_read_the_mean_of_two_columns():
    position = CAPE(4, 5, position_dim=1)
    position.columns.project = Ones()
    with torch.no_grad():
        position.columns.table.copy_(torch.tensor([1.0, 3.0, 7.0, 9.0, 2.0]))
    pairs, logits = pairs_of(3), torch.zeros(1, 2, 3, 3)  # every gate is a half
    bias = position.adjust(logits, pairs)
    assert bias[0, 0, 2].tolist() == [(3 + 7) / 2, 3.0, (1 + 3) / 2]


@pytest.mark.parametrize("kind", [CAPE, CoPE, RelativeBias])
def test_as_many_tables_as_heads_or_one_for_all_are_needed(kind):
    """With more, rows of one history would be paired with those of another."""
    for build, n_heads in ((HSTU, 2), (LiGR, 2), (SASRec, 4)):
        model = build(8, n_heads=1 if n_heads == 2 else 2, position=lambda channels, n=n_heads: kind(channels, 12, n))
        with pytest.raises(ValueError, match=rf"{kind.__name__} has tables for n_heads {n_heads} and the backbone has"):
            model(torch.randn(3, 8), Sequences.pack([[1], [2, 3]]))


def test_the_gradient_of_logits_is_that_of_finite_differences():
    torch.manual_seed(0)
    position, pairs = CAPE(4, 5).double(), pairs_of(6)
    torch.nn.init.normal_(position.columns.table)
    pairs = Pairs(pairs.queries.double(), pairs.asking, pairs.asked, pairs.n_visible, pairs.n_later)
    logits = torch.randn(1, 2, 6, 6, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: position.adjust(x, pairs) * pairs.visible, logits, eps=1e-7, atol=1e-4)


@pytest.mark.parametrize("build", [SASRec, LiGR, HSTU])
@pytest.mark.parametrize("kind", [CAPE, CoPE])
def test_a_fresh_model_is_one_without_positions(build, kind):
    history, vectors = Sequences.pack([[3, 1, 4], [1], [*range(30)]]), torch.randn(40, 8)
    torch.manual_seed(0)
    plain = build(8, n_heads=2).eval()
    contextual = build(8, n_heads=2, position=lambda channels: kind(channels, 12)).eval()
    own = {name: weight for name, weight in contextual.state_dict().items() if "position" in name}
    assert own
    assert all((weight == 0).all() for weight in own.values())
    contextual.load_state_dict({**plain.state_dict(), **own})
    torch.testing.assert_close(
        contextual(vectors[history.items], history), plain(vectors[history.items], history), rtol=1e-5, atol=1e-6
    )


def test_unmasked_gates_count_every_later_event():
    pairs, logits = pairs_of(), torch.randn(1, 2, KEYS, KEYS)
    shift = positions_of(CAPE, logits, pairs, mask_gates=False) - positions_of(CAPE, logits, pairs)
    later = (pairs.n_later[:, None, :, None] * pairs.visible).expand_as(shift).float()
    torch.testing.assert_close(shift, later, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", [CAPE, CoPE])
def test_positions_are_counted_and_read_in_full_precision_under_autocast(kind):
    torch.manual_seed(0)
    position, pairs, logits = kind(4, COLUMNS, position_dim=3), pairs_of(200), torch.randn(1, 2, 200, 200)
    torch.nn.init.normal_(position.columns.table)
    expected = position.adjust(logits, pairs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = position.adjust(logits, pairs)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_too_few_columns_are_refused():
    with pytest.raises(ValueError, match="n_columns is 1"):
        CAPE(4, 1)


@pytest.mark.parametrize("kind", [CAPE, CoPE])
def test_what_reads_the_query_does_not_stand_beside_what_turns_it(kind):
    with pytest.raises(ValueError, match=f"RotaryPosition turns the queries that {kind.__name__} reads"):
        Stacked(8, [kind, RotaryPosition])
    assert Stacked(8, [kind, RelativeBias]).reads_queries


@pytest.mark.parametrize("kind", [CAPE, CoPE])
def test_what_reads_the_query_reads_no_bias_that_stands_beside_it(kind):
    orders = [Stacked(4, parts) for parts in ([kind, RelativeBias], [RelativeBias, kind])]
    for parts in (orders[0].parts, reversed(orders[1].parts)):
        torch.manual_seed(0)
        for weight in (weight for part in parts for weight in part.parameters()):
            torch.nn.init.normal_(weight)
    pairs, logits = pairs_of(), torch.randn(1, 2, KEYS, KEYS)
    first, second = (order.adjust(logits, pairs) for order in orders)
    visible = pairs.visible.expand_as(first)
    torch.testing.assert_close(first[visible], second[visible])


def test_two_that_change_what_the_other_reads_do_not_stand_together():
    with pytest.raises(ValueError, match="CAPE changes the logits that CoPE reads"):
        Stacked(8, [CAPE, CoPE])
