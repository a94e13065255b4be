"""Batches hold every row once, keep to the budget, and are the same however the work is shared."""

import math
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seqrec.data.batching import Arrays, EvaluationBatches, FixedBatches, Rows, ShuffledBatches, TrainingBatches, cut
from seqrec.data.protocol import LeaveOneOut
from seqrec.data.supervision import EveryEvent, EveryPrefix, MaskedEvents, NewestEvent
from seqrec.data.views import View
from seqrec.sequences import Sequences

lengths_of_rows = st.lists(st.integers(1, 40), min_size=1, max_size=200).map(np.array)


@settings(deadline=None)
@given(lengths=lengths_of_rows, budget=st.integers(1, 120), epoch=st.integers(0, 5))
def test_every_epoch_holds_each_row_once_within_the_budget_in_as_many_batches(lengths, budget, epoch):
    sampler = ShuffledBatches(lengths, budget, seed=3)
    sampler.set_epoch(epoch)
    batches = [batch.rows for batch in sampler]
    assert len(batches) == len(sampler)
    assert sorted(np.concatenate(batches)) == list(range(lengths.size))
    assert all(lengths[rows].sum() <= budget or rows.size == 1 for rows in batches)


@settings(deadline=None)
@given(lengths=lengths_of_rows, budget=st.integers(1, 120), world=st.integers(2, 4))
def test_ranks_deal_out_the_batches_of_one_process(lengths, budget, world):
    alone = list(ShuffledBatches(lengths, budget))
    ranks = [list(ShuffledBatches(lengths, budget, rank=rank, world=world)) for rank in range(world)]
    assert {len(rank) for rank in ranks} == {len(alone)}
    for batch, *shares in zip(alone, *ranks, strict=True):
        assert sorted(np.concatenate([share.rows for share in shares])) == sorted(batch.rows)
        assert {share[:2] for share in shares} == {batch[:2]}


@given(lengths=lengths_of_rows, budget=st.integers(1, 120), world=st.integers(1, 3))
def test_evaluation_holds_each_row_once_shortest_first(lengths, budget, world):
    ranks = [list(FixedBatches(lengths, budget, rank, world)) for rank in range(world)]
    assert sorted(np.concatenate([batch.rows for rank in ranks for batch in rank])) == list(range(lengths.size))
    in_order = np.concatenate([batch.rows for batch in FixedBatches(lengths, budget)])
    assert (np.diff(lengths[in_order]) >= 0).all()
    assert len({len(rank) for rank in ranks}) == 1


def test_epochs_differ_and_a_seed_repeats_them():
    lengths = np.random.default_rng(0).integers(1, 50, 500)

    def epoch(seed, number):
        return [rows.tolist() for rows in ShuffledBatches(lengths, 300, seed).global_batches(number)]

    assert epoch(1, 0) == epoch(1, 0)
    assert epoch(1, 0) != epoch(1, 1)
    assert epoch(1, 0) != epoch(2, 0)


def test_histories_of_like_length_come_together_but_not_always_the_same():
    lengths = np.random.default_rng(0).integers(1, 200, 2000)
    sampler = ShuffledBatches(lengths, 2048)
    batches = sampler.global_batches(0)
    spread = [lengths[rows].max() / lengths[rows].min() for rows in batches]
    assert np.median(spread) < 1.25
    company = [{row: set(rows) for rows in sampler.global_batches(epoch) for row in rows} for epoch in (0, 1)]
    shared = [len(company[0][row] & company[1][row]) / len(company[0][row]) for row in range(lengths.size)]
    assert np.mean(shared) < 0.5


def test_batches_are_nearly_full():
    lengths = np.random.default_rng(0).integers(1, 50, 20_000)
    sampler = ShuffledBatches(lengths, 2048)
    assert lengths.sum() / (2048 * len(sampler)) > 0.95


def test_no_rows_give_no_batches():
    assert cut(np.array([], dtype=np.int64), 5).tolist() == [0]
    assert list(ShuffledBatches(np.array([], dtype=np.int64), 5)) == []
    assert list(FixedBatches(np.array([], dtype=np.int64), 5)) == []


@pytest.mark.parametrize("max_length", [None, 1, 7])
@pytest.mark.parametrize("supervision", [EveryEvent(), EveryPrefix(), NewestEvent()])
def test_a_batch_holds_what_the_log_says(random_log, supervision, max_length):
    dataset = TrainingBatches(Arrays.of(random_log), LeaveOneOut().split(random_log).train, supervision, max_length)
    rows = np.random.default_rng(0).permutation(len(dataset))[:40]
    batch = dataset[Rows(0, 0, rows)]
    for place, row in enumerate(rows):
        start, end = dataset.rows.starts[row], dataset.rows.ends[row]
        inputs = slice(batch.history.offsets[place], batch.history.offsets[place + 1])
        assert batch.users[place] == dataset.rows.users[row]
        assert batch.history.items[inputs].tolist() == random_log.items[start : end - 1].tolist()
        assert batch.history.times is not None
        assert batch.history.times[inputs].tolist() == random_log.times[start : end - 1].tolist()
        mine = (batch.history.owners[batch.predict_at] == place).nonzero().flatten()
        n = mine.numel()
        assert n == (end - 1 - start if supervision.predicts_every_event else 1)
        assert batch.targets[mine].tolist() == random_log.items[end - n : end].tolist()
        assert batch.asked_at is not None
        assert batch.asked_at[mine].tolist() == random_log.times[end - n : end].tolist()


@pytest.mark.parametrize("max_length", [None, 1, 7])
def test_a_batch_that_hides_events_holds_whole_rows_and_asks_for_what_is_hidden(random_log, max_length):
    train = LeaveOneOut().split(random_log).train
    dataset = TrainingBatches(Arrays.of(random_log), train, MaskedEvents(), max_length)
    rows = np.random.default_rng(0).permutation(len(dataset))[:40]
    batch = dataset[Rows(0, 0, rows)]
    starts, ends = dataset.rows.starts[rows], dataset.rows.ends[rows]
    whole = [random_log.items[start:end] for start, end in zip(starts, ends, strict=True)]
    assert batch.history.items.tolist() == np.concatenate(whole).tolist()
    assert batch.history.lengths.tolist() == dataset.input_lengths[rows].tolist() == (ends - starts).tolist()
    assert batch.hidden is not None
    assert torch.equal(batch.hidden, batch.predict_at)
    assert torch.equal(batch.targets, batch.history.items[batch.hidden])
    assert batch.asked_at is not None
    assert batch.history.times is not None
    assert torch.equal(batch.asked_at, batch.history.times[batch.hidden])
    assert set(batch.history.owners[batch.hidden].tolist()) == set(range(40))


def test_what_is_hidden_is_drawn_anew_for_every_batch_and_epoch_and_the_same_from_one_seed(random_log):
    train = LeaveOneOut().split(random_log).train

    def hidden(seed, epoch, number):
        dataset = TrainingBatches(Arrays.of(random_log), train, MaskedEvents(), seed=seed)
        return tuple(dataset[Rows(epoch, number, np.arange(50))].predict_at.tolist())

    assert hidden(0, 0, 0) == hidden(0, 0, 0)
    assert len({hidden(*place) for place in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]}) == 4


@pytest.mark.parametrize("supervision", [EveryEvent(), EveryPrefix(), NewestEvent(), MaskedEvents()])
def test_a_rank_without_histories_receives_an_empty_batch(random_log, supervision):
    dataset = TrainingBatches(Arrays.of(random_log), LeaveOneOut().split(random_log).train, supervision)
    batch = dataset[Rows(0, 0, np.array([], dtype=np.int64))]
    assert (len(batch.history), batch.history.items.numel(), batch.targets.numel()) == (0, 0, 0)


def test_evaluation_leaves_out_all_that_came_before_the_target_not_only_the_window(random_log):
    part = LeaveOneOut().split(random_log).test
    dataset = EvaluationBatches(Arrays.of(random_log), part, max_length=3)
    batch = dataset[Rows(0, 0, np.arange(len(part)))]
    assert batch.seen is not None
    for place in range(len(part)):
        start, end = part.starts[place], part.ends[place]
        seen = batch.seen.items[batch.seen.offsets[place] : batch.seen.offsets[place + 1]]
        assert seen.tolist() == random_log.items[start : end - 1].tolist()
        assert batch.history.items[batch.predict_at[place]] == random_log.items[end - 2]
        assert batch.targets[place] == random_log.items[end - 1]
    assert batch.history.lengths.max() == 3


def test_evaluation_leaves_out_nothing_where_the_protocol_says_so(random_log):
    part = LeaveOneOut(seen_is_excluded=False).split(random_log).test
    batch = EvaluationBatches(Arrays.of(random_log), part, 3, seen_is_excluded=False)[Rows(0, 0, np.arange(4))]
    assert batch.seen is None


class Cropped(View):
    """Keeps one random event of each history."""

    name = "cropped"

    def __call__(self, histories, users, ends, generator) -> Sequences:
        within = torch.rand(len(histories), generator=generator) * histories.lengths
        return Sequences.pack(histories.items[histories.offsets[:-1] + within.long()][:, None].tolist())


def test_views_draw_anew_for_every_batch_and_epoch_and_the_same_from_one_seed(random_log):
    train = LeaveOneOut().split(random_log).train

    def view(seed, epoch, number):
        dataset = TrainingBatches(Arrays.of(random_log), train, EveryEvent(), None, [Cropped()], seed)
        return dataset[Rows(epoch, number, np.arange(50))].views["cropped"].items.tolist()

    assert view(0, 0, 0) == view(0, 0, 0)
    assert len({tuple(view(*place)) for place in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]}) == 4


def test_an_epoch_of_twenty_thousand_histories_is_gathered_in_a_moment(build_log):
    generator = np.random.default_rng(0)
    log = build_log([generator.integers(0, 100, length).tolist() for length in generator.integers(3, 16, 22_000)])
    dataset = TrainingBatches(Arrays.of(log), LeaveOneOut().split(log).train, EveryEvent(), 50)
    sampler = ShuffledBatches(dataset.input_lengths, 2048)
    begun = time.process_time()
    for rows in sampler:
        dataset[rows]
    # Far above what it takes without the checks of shapes, far below what one Python step per history would.
    assert time.process_time() - begun < 1.5


@pytest.mark.parametrize("budget", [60, 75, 400])
def test_lengths_are_mixed_by_chance_alone_when_asked(budget):
    lengths = np.random.default_rng(0).integers(1, 50, 3000)
    sampler = ShuffledBatches(lengths, budget, jitter=math.inf)
    for epoch in (0, 1):
        batches = sampler.global_batches(epoch)
        assert len(batches) == len(sampler)
        assert sorted(np.concatenate(batches)) == list(range(3000))
        assert max(lengths[rows].sum() for rows in batches) <= budget
    order = np.concatenate(batches)
    assert abs(np.corrcoef(lengths[order][1:], lengths[order][:-1])[0, 1]) < 0.1
    by_length = np.concatenate(ShuffledBatches(lengths, budget).global_batches(1))
    assert np.corrcoef(lengths[by_length][1:], lengths[by_length][:-1])[0, 1] > 0.5
