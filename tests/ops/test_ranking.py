"""Ranks and lists against what a patient reader would count in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from seqrec.ops import ranking
from seqrec.ops.ranking import best_candidates, best_of, ranks_of_scores, rescore, target_ranks, top_k


def reference_ranks(scores: Tensor, targets: list[int], seen: list[set[int]]) -> list[int]:
    ranks = []
    for row, target, left_out in zip(scores.double().tolist(), targets, seen, strict=True):
        rivals = [item for item in range(len(row)) if item != target and item not in left_out]
        ranks.append(sum(row[item] >= row[target] for item in rivals))
    return ranks


def reference_lists(scores: Tensor, k: int, seen: list[set[int]]) -> tuple[list[list[int]], list[list[float]]]:
    lists, values = [], []
    for row, left_out in zip(scores.double().tolist(), seen, strict=True):
        best = sorted((-score, item) for item, score in enumerate(row) if item not in left_out)[:k]
        lacking = k - len(best)
        lists.append([item for _, item in best] + [-1] * lacking)
        values.append([-score for score, _ in best] + [float("-inf")] * lacking)
    return lists, values


def packed(seen: list[set[int]]) -> tuple[Tensor, Tensor]:
    items = [item for left_out in seen for item in sorted(left_out)]
    lengths = torch.tensor([len(left_out) for left_out in seen], dtype=torch.long)
    return torch.tensor(items, dtype=torch.long), torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, Tensor, list[int], list[set[int]]]:
    """Small whole numbers, so that products are exact and ties are everywhere."""
    m, n, width = draw(st.integers(1, 6)), draw(st.integers(1, 70)), draw(st.integers(1, 5))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    reach = draw(st.integers(0, 3))
    queries = torch.randint(-reach, reach + 1, (m, width), generator=generator).float()
    keys = torch.randint(-reach, reach + 1, (n, width), generator=generator).float()
    targets = [draw(st.integers(0, n - 1)) for _ in range(m)]
    seen = [draw(st.sets(st.integers(0, n - 1), max_size=n)) for _ in range(m)]
    return queries, keys, targets, seen


@settings(max_examples=60, deadline=None)
@given(cases())
def test_ranks_count_unseen_rivals_that_score_at_least_as_high(case):
    queries, keys, targets, seen = case
    expected = reference_ranks(queries @ keys.T, targets, seen)
    assert target_ranks(queries, keys, torch.tensor(targets), *packed(seen)).tolist() == expected
    assert ranks_of_scores(queries @ keys.T, torch.tensor(targets), *packed(seen)).tolist() == expected
    nothing = [set() for _ in seen]
    expected = reference_ranks(queries @ keys.T, targets, nothing)
    assert target_ranks(queries, keys, torch.tensor(targets)).tolist() == expected


@settings(max_examples=60, deadline=None)
@given(cases(), st.integers(1, 80))
def test_lists_go_by_score_then_by_row_and_are_filled_up(case, k: int):
    queries, keys, _, seen = case
    lists, values = reference_lists(queries @ keys.T, k, seen)
    for rows, scores in (top_k(queries, keys, k, *packed(seen)), best_of(queries @ keys.T, k, *packed(seen))):
        assert rows.tolist() == lists
        assert scores.tolist() == values
        assert (rows.dtype, scores.dtype) == (torch.int64, torch.float32)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch):
    generator = torch.Generator().manual_seed(3)
    queries = torch.randint(-2, 3, (37, 4), generator=generator).float()
    keys = torch.randint(-2, 3, (90, 4), generator=generator).float()
    targets = torch.randint(0, 90, (37,), generator=generator)
    seen = packed([set(range(row, row + row % 5)) for row in range(37)])
    ranks, lists = target_ranks(queries, keys, targets, *seen), top_k(queries, keys, 7, *seen)
    monkeypatch.setattr(ranking, "_CPU_BLOCK_BYTES", 90 * 4 * 5)
    assert torch.equal(target_ranks(queries, keys, targets, *seen), ranks)
    assert all(torch.equal(a, b) for a, b in zip(top_k(queries, keys, 7, *seen), lists, strict=True))


def test_lists_of_real_numbers_are_those_of_float64():
    generator = torch.Generator().manual_seed(5)
    queries = torch.randn(20, 16, generator=generator)
    # Keys that differ by less than a float32 product can tell.
    keys = (torch.randn(1, 16, generator=generator) + 1e-7 * torch.randn(300, 16, generator=generator)).float()
    rows, scores = top_k(queries, keys, 10)
    exact = rescore(queries, keys, torch.arange(300).expand(20, -1))
    assert rows.tolist() == reference_lists(exact, 10, [set()] * 20)[0]
    torch.testing.assert_close(exact, queries.double() @ keys.double().T)
    torch.testing.assert_close(scores.double(), exact.gather(1, rows))


def test_other_candidates_that_hold_the_best_give_the_same_list():
    generator = torch.Generator().manual_seed(6)
    queries, keys = torch.randn(9, 7, generator=generator), torch.randn(120, 7, generator=generator)
    rows, scores = top_k(queries, keys, 8)
    shuffled = torch.stack([torch.randperm(120, generator=generator) for _ in range(9)])
    padded = torch.cat([torch.full((9, 3), -1), shuffled], 1)
    again = best_candidates(queries, keys, padded, 8)
    assert torch.equal(again[0], rows)
    assert torch.equal(again[1], scores)


def test_a_score_depends_on_its_query_and_key_alone():
    generator = torch.Generator().manual_seed(7)
    queries, keys = torch.randn(6, 13, generator=generator), torch.randn(40, 13, generator=generator)
    keys[31] = keys[4]
    together = rescore(queries, keys, torch.arange(40).expand(6, -1))
    alone = rescore(queries[2:3], keys, torch.tensor([[31]]))
    assert alone.item() == together[2, 31].item() == together[2, 4].item()


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), 1e30])
def test_scores_that_are_not_finite_are_refused(broken: float):
    queries, keys = torch.ones(3, 2), torch.ones(5, 2)
    keys[1] = broken
    queries[2] = broken
    for ask in (
        lambda: target_ranks(queries, keys, torch.tensor([0, 0, 0])),
        lambda: top_k(queries, keys, 2),
        lambda: ranks_of_scores(queries @ keys.T, torch.tensor([0, 0, 0])),
        lambda: best_of(queries @ keys.T, 2),
    ):
        with pytest.raises(FloatingPointError, match="NaN or infinite"):
            ask()


def test_large_finite_scores_are_ranked():
    queries, keys = torch.full((1, 2), 1e19), torch.tensor([[1e18, 0.0], [1e19, 0.0], [1e19, 1e18]])
    assert target_ranks(queries, keys, torch.tensor([1])).tolist() == [1]
    assert top_k(queries, keys, 3)[0].tolist() == [[2, 1, 0]]


def test_a_target_listed_as_seen_keeps_its_rank():
    scores = torch.tensor([[3.0, 2.0, 1.0]])
    seen = packed([{0, 1}])
    assert ranks_of_scores(scores, torch.tensor([1]), *seen).tolist() == [0]
    assert ranks_of_scores(scores, torch.tensor([2]), *seen).tolist() == [0]


def test_autocast_and_short_mantissas_are_kept_out():
    generator = torch.Generator().manual_seed(8)
    queries, keys = torch.randn(50, 32, generator=generator), torch.randn(200, 32, generator=generator)
    targets = torch.arange(50)
    expected = target_ranks(queries, keys, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(target_ranks(queries, keys, targets), expected)
    torch.set_float32_matmul_precision("medium")
    try:
        assert torch.equal(target_ranks(queries, keys, targets), expected)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_no_predictions_give_no_ranks():
    keys = torch.ones(4, 2)
    assert target_ranks(torch.empty(0, 2), keys, torch.empty(0, dtype=torch.long)).tolist() == []
    assert top_k(torch.empty(0, 2), keys, 3)[0].shape == (0, 3)


def test_scores_wider_than_float32_are_compared_in_full():
    scores = torch.tensor([[2**40, 2**40 + 1, 2**40 - 1]], dtype=torch.int64)
    assert ranks_of_scores(scores, torch.tensor([0])).tolist() == [1]
    assert best_of(scores, 3)[0].tolist() == [[1, 0, 2]]


def test_mistakes_are_named():
    queries, keys = torch.ones(2, 2), torch.ones(3, 2)
    with pytest.raises(ValueError, match="k is 0"):
        top_k(queries, keys, 0)
    with pytest.raises(ValueError, match="give both or neither"):
        top_k(queries, keys, 1, torch.tensor([1]))
    with pytest.raises(ValueError, match="2 offsets for 2 predictions"):
        target_ranks(queries, keys, torch.tensor([0, 1]), torch.tensor([1]), torch.tensor([0, 1]))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_lists_the_same():
    generator = torch.Generator().manual_seed(9)
    queries, keys = torch.randn(50, 64, generator=generator), torch.randn(5000, 64, generator=generator)
    rows, scores = top_k(queries, keys, 10)
    there = top_k(queries.cuda(), keys.cuda(), 10)
    assert torch.equal(there[0].cpu(), rows)
    assert torch.equal(there[1].cpu(), scores)


@pytest.mark.parametrize(("n_items", "dim"), [(4097, 64), (1000, 32), (333, 50)])
def test_equal_keys_tie_in_a_batch_of_one_as_in_any_other(n_items, dim):
    generator = torch.Generator().manual_seed(0)
    key, queries = torch.randn(dim, generator=generator), torch.randn(20, dim, generator=generator)
    for query in queries:
        ranks = target_ranks(query[None], key.expand(n_items, dim), torch.tensor([n_items // 2]))
        assert ranks.tolist() == [n_items - 1]


@pytest.mark.parametrize("n_items", [1, 2, 5, 17, 33, 63, 1001, 4099])
@pytest.mark.parametrize("n_queries", [1, 2, 3, 8])
@pytest.mark.parametrize("dim", [16, 64])
def test_equal_keys_tie_in_few_rows_and_wherever_the_target_stands(n_items, n_queries, dim):
    generator = torch.Generator().manual_seed(0)
    key, queries = torch.randn(dim, generator=generator), torch.randn(n_queries, dim, generator=generator)
    for target in {0, n_items // 2, n_items - 1}:
        ranks = target_ranks(queries, key.expand(n_items, dim), torch.full((n_queries,), target))
        assert ranks.tolist() == [n_items - 1] * n_queries
