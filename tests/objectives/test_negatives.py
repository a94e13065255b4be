"""Each sampler draws from where it says. What all must obey stands in tests/contracts."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seqrec.batch import Batch
from seqrec.objectives.negatives import InBatch, Mixed, Popularity, Uniform, draw_unseen, score_each
from seqrec.recommenders.base import Encoded
from seqrec.sequences import Sequences


def encoded_of(histories, predict_at, targets, counts):
    history = Sequences.pack(histories)
    batch = Batch(torch.arange(len(history)), history, torch.tensor(predict_at), torch.tensor(targets))
    table = torch.randn(len(counts), 4)
    return Encoded(
        batch,
        states=torch.randn(len(targets), 4),
        queries=torch.randn(len(targets), 4),
        keys=lambda rows: table if rows is None else table[rows],
        counts=torch.tensor(counts),
    )


def test_an_item_never_seen_in_training_can_still_be_drawn():
    encoded = encoded_of([[0]], [0], [0], counts=[3, 0])
    assert set(Popularity().draw(encoded, 200, torch.Generator().manual_seed(0)).tolist()) == {0, 1}


def test_in_batch_negatives_are_targets_of_the_batch():
    encoded = encoded_of([[4, 5, 6, 1]], [0, 1], [5, 6], counts=[1] * 9)
    assert set(InBatch().draw(encoded, 100).tolist()) == {5, 6}


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Popularity(-1.0), "exponent is -1.0"),
        (lambda: Mixed(Uniform(), InBatch(), share=1.0), "share is 1.0"),
    ],
)
def test_settings_out_of_range_are_refused(build, words):
    with pytest.raises(ValueError, match=words):
        build()


@given(st.lists(st.lists(st.integers(0, 8), min_size=1, max_size=12), min_size=1, max_size=4), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_unseen_draws_are_all_of_the_items_that_a_history_neither_holds_nor_predicts(histories, seed):
    inputs = [history[:-1] or [0] for history in histories]
    newest = (torch.tensor([len(history) for history in inputs]).cumsum(0) - 1).tolist()
    encoded = encoded_of(inputs, newest, [history[-1] for history in histories], counts=[1] * 9)
    drawn = draw_unseen(encoded, 400, torch.Generator().manual_seed(seed))
    for row, (history, read) in enumerate(zip(histories, inputs, strict=True)):
        unseen = set(range(9)) - {*read, history[-1]}
        assert set(drawn[row].tolist()) == (unseen or set(range(9)))


def test_unseen_draws_are_uniform():
    encoded = encoded_of([[1, 4, 4], [0]], [2, 3], [6, 7], counts=[1] * 8)
    drawn = draw_unseen(encoded, 40_000, torch.Generator().manual_seed(0))
    shares = drawn[0].bincount(minlength=8) / drawn.shape[1]
    torch.testing.assert_close(shares, torch.tensor([1, 0, 1, 1, 0, 1, 0, 1]) / 5, atol=0.015, rtol=0)


@pytest.mark.parametrize("elements_at_once", [1, 50, 1 << 22])
def test_scoring_in_chunks_equals_gathering_all_keys_at_once(monkeypatch, elements_at_once):
    monkeypatch.setattr("seqrec.objectives.negatives._ELEMENTS_AT_ONCE", elements_at_once)
    torch.manual_seed(0)
    queries, keys = torch.randn(7, 4, requires_grad=True), torch.randn(5, 4, requires_grad=True)
    rows, weights = torch.randint(5, (7, 6)), torch.randn(7, 6)

    gathered = torch.einsum("mk,msk->ms", queries, keys[rows])
    scores = score_each(queries, keys, rows)

    torch.testing.assert_close(scores, gathered)
    expected = torch.autograd.grad((gathered * weights).sum(), (queries, keys))
    actual = torch.autograd.grad((scores * weights).sum(), (queries, keys))
    torch.testing.assert_close(actual, expected)


def test_a_second_derivative_of_scores_of_items_of_ones_own_is_that_of_indexing():
    queries, keys = torch.randn(3, 4).requires_grad_(), torch.randn(5, 4).requires_grad_()
    rows = torch.tensor([[0, 1], [4, 4], [2, 0]])

    def second(scores):
        gradients = torch.autograd.grad(scores.square().sum(), [queries, keys], create_graph=True)
        return torch.autograd.grad(sum(each.square().sum() for each in gradients), [queries, keys])

    by_indexing = torch.einsum("md,msd->ms", queries, keys[rows])
    torch.testing.assert_close(second(score_each(queries, keys, rows)), second(by_indexing))
