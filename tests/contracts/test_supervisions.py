"""What every supervision must obey. A new one adds one line to ``CASES``."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seqrec.batch import Batch
from seqrec.data.batching import Arrays, Rows, TrainingBatches
from seqrec.data.protocol import Part
from seqrec.data.supervision import EveryEvent, EveryEventWithinSegments, EveryPrefix, MaskedEvents, NewestEvent
from seqrec.sequences import Sequences

CASES = [
    pytest.param(EveryEvent, {}, id="EveryEvent"),
    pytest.param(EveryEventWithinSegments, {"n_recent": 2}, id="EveryEventWithinSegments"),
    pytest.param(EveryPrefix, {}, id="EveryPrefix"),
    pytest.param(NewestEvent, {}, id="NewestEvent"),
    pytest.param(MaskedEvents, {}, id="MaskedEvents"),
    pytest.param(MaskedEvents, {"share": 0.6, "newest_alone": 0.0}, id="MaskedEvents, most"),
]
each_supervision = pytest.mark.parametrize(("build", "arguments"), CASES)


def part_of(lengths) -> Part:
    """One slice of each length, end to end, each of its own user."""
    ends = np.cumsum(lengths, dtype=np.int64)
    return Part(np.arange(len(lengths)), ends - np.array(lengths, dtype=np.int64), ends)


parts = st.lists(st.integers(0, 9), min_size=1, max_size=6).map(part_of)
windows = st.one_of(st.none(), st.integers(1, 5))


def batch_of(supervision, part: Part, max_length: int | None) -> Batch:
    """All rows in one batch, from a log in which every event has an item of its own: its place in the log."""
    places = torch.arange(int(part.ends.max(initial=0)))
    dataset = TrainingBatches(Arrays(places, 60 * places), part, supervision, max_length)
    return dataset[Rows(0, 0, np.arange(len(dataset)))]


def readable(supervision, batch: Batch) -> list[list[int]]:
    """For each prediction, the events of its row that a model may read when it makes it."""
    hidden = [] if batch.hidden is None else batch.hidden.tolist()
    owners = batch.history.owners.tolist()
    last = [at if supervision.predicts_every_event else len(owners) for at in batch.predict_at.tolist()]
    return [
        [
            item
            for place, item in enumerate(batch.history.items.tolist())
            if owners[place] == owners[at] and place <= end and place not in hidden
        ]
        for at, end in zip(batch.predict_at.tolist(), last, strict=True)
    ]


@each_supervision
@settings(max_examples=30)
@given(part=parts, max_length=windows)
def test_rows_are_pieces_of_the_slices_within_the_window(build, arguments, part, max_length):
    rows = build(**arguments).rows(part, max_length)
    begin, end = part.starts[rows.users], part.ends[rows.users]
    assert ((begin <= rows.starts) & (rows.ends <= end)).all()
    assert (rows.lengths >= 2).all()
    assert max_length is None or (rows.lengths <= max_length + 1).all()


@each_supervision
@settings(max_examples=30)
@given(part=parts, max_length=windows)
def test_every_slice_with_something_to_predict_is_read_up_to_its_newest_event(build, arguments, part, max_length):
    rows = build(**arguments).rows(part, max_length)
    newest = {user: rows.ends[rows.users == user].max() for user in rows.users.tolist()}
    long_enough = part.lengths >= 2
    assert newest == dict(zip(part.users[long_enough].tolist(), part.ends[long_enough].tolist(), strict=True))


@each_supervision
@given(part=parts)
def test_a_window_that_holds_every_history_is_no_window(build, arguments, part):
    bounded, free = (build(**arguments).rows(part, max_length) for max_length in (9, None))
    assert [field.tolist() for field in vars(bounded).values()] == [field.tolist() for field in vars(free).values()]


@each_supervision
@settings(max_examples=30)
@given(part=parts, max_length=windows)
def test_every_row_predicts_and_asks_for_no_event_twice(build, arguments, part, max_length):
    supervision = build(**arguments)
    batch = batch_of(supervision, part, max_length)
    owners = batch.history.owners[batch.predict_at].tolist()
    assert set(owners) == set(range(len(supervision.rows(part, max_length))))
    asked = list(zip(owners, batch.targets.tolist(), strict=True))
    assert len(set(asked)) == len(asked)


@each_supervision
@settings(max_examples=30)
@given(part=parts, max_length=windows)
def test_no_prediction_may_read_its_target_nor_anything_later_than_it(build, arguments, part, max_length):
    supervision = build(**arguments)
    batch = batch_of(supervision, part, max_length)
    users = batch.users[batch.history.owners[batch.predict_at]].tolist()
    targets = batch.targets.tolist()
    for user, target, read in zip(users, targets, readable(supervision, batch), strict=True):
        assert part.starts[user] <= target < part.ends[user]
        assert target not in read
        assert supervision.target_lag == 0 or all(event < target for event in read)


@each_supervision
def test_it_declares_whether_the_inputs_of_a_row_hold_targets_of_the_same_row(build, arguments):
    """Only then must the backbone be causal."""
    supervision = build(**arguments)
    batch = batch_of(supervision, part_of([5, 3]), None)
    owners, hidden = batch.history.owners, torch.zeros(batch.history.items.numel(), dtype=torch.bool)
    hidden[[] if batch.hidden is None else batch.hidden] = True
    held = set(zip(owners[~hidden].tolist(), batch.history.items[~hidden].tolist(), strict=True))
    asked = set(zip(owners[batch.predict_at].tolist(), batch.targets.tolist(), strict=True))
    assert supervision.predicts_every_event == bool(held & asked)


@each_supervision
def test_all_randomness_comes_from_the_generator(build, arguments):
    supervision, history = build(**arguments), Sequences.pack([list(range(30))] * 8)

    def chosen(generator=None):
        return supervision.predict_at(history, generator).tolist()

    before = torch.get_rng_state()
    assert chosen(torch.Generator().manual_seed(5)) == chosen(torch.Generator().manual_seed(5))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    first = chosen()
    torch.manual_seed(5)
    assert chosen() == first


@each_supervision
@pytest.mark.parametrize("lengths", [[], [0, 1, 1]], ids=["no slice", "too short"])
def test_where_nothing_can_be_predicted_there_are_no_rows_and_batches_are_empty(build, arguments, lengths):
    supervision, part = build(**arguments), part_of(lengths)
    assert len(supervision.rows(part, 3)) == 0
    batch = batch_of(supervision, part, 3)
    assert (len(batch.history), batch.predict_at.numel(), batch.targets.numel()) == (0, 0, 0)
