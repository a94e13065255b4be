"""What every position that is added to events must obey. A new one adds one line to ``CASES``."""

import pytest
import torch

from seqrec.positions.learned import InversePosition, LearnedPosition
from seqrec.positions.sinusoidal import SinusoidalPosition
from seqrec.positions.stacked import StackedInput
from seqrec.positions.time import Calendar, TimeGap
from seqrec.sequences import Past, Sequences


def place_and_calendar(dim):
    return StackedInput([LearnedPosition(dim, 6, init_std=1.0), Calendar(dim, init_std=1.0)])


CASES = [
    pytest.param(LearnedPosition, {"max_length": 6, "init_std": 1.0}, id="LearnedPosition"),
    pytest.param(InversePosition, {"max_length": 6, "init_std": 1.0}, id="InversePosition"),
    pytest.param(SinusoidalPosition, {"scale": 1.0}, id="SinusoidalPosition"),
    pytest.param(TimeGap, {"init_std": 1.0}, id="TimeGap"),
    pytest.param(Calendar, {"init_std": 1.0}, id="Calendar"),
    pytest.param(place_and_calendar, {}, id="StackedInput"),
]
each_position = pytest.mark.parametrize(("build", "arguments"), CASES)

DIM = 8
HISTORIES = [[3, 1, 4], [1], [], [5, 9, 2, 6, 5, 5], [7, 7]]


def ready(build, arguments):
    torch.manual_seed(0)
    return build(dim=DIM, **arguments), torch.randn(10, DIM)


def placed(position, vectors, *histories):
    packed = timed(*histories)
    return position(vectors[packed.items], packed)


def timed(*histories):
    """Events further and further apart: after one hour, three, nine and so on."""
    return Sequences.pack(
        histories, times=[[3600 * 3**place for place in range(len(history))] for history in histories]
    )


@each_position
def test_a_history_never_sees_its_neighbours(build, arguments):
    position, vectors = ready(build, arguments)
    alone = torch.cat([placed(position, vectors, history) for history in HISTORIES])
    torch.testing.assert_close(placed(position, vectors, *HISTORIES), alone)


@each_position
def test_changing_an_event_changes_no_other_event(build, arguments):
    position, vectors = ready(build, arguments)
    packed = timed([5, 9, 2, 6, 5, 5])
    events = vectors[packed.items]
    for place in range(6):
        changed = events.clone()
        changed[place] += 100
        others = torch.arange(6) != place
        torch.testing.assert_close(position(changed, packed)[others], position(events, packed)[others])


@each_position
def test_the_same_item_differs_from_place_to_place(build, arguments):
    position, vectors = ready(build, arguments)
    rows = placed(position, vectors, [2, 2, 2, 2])
    assert (torch.cdist(rows, rows) + 9 * torch.eye(4) > 0.1).all()


@each_position
def test_gradients_are_finite_and_reach_every_parameter(build, arguments):
    position, vectors = ready(build, arguments)
    packed = timed(*HISTORIES)
    events = vectors[packed.items].requires_grad_()
    position(events, packed).square().sum().backward()
    for name, leaf in [("events", events), *position.named_parameters()]:
        assert leaf.grad is not None, name
        assert leaf.grad.isfinite().all(), name


@each_position
@pytest.mark.parametrize("histories", [[], [[]], [[], []]], ids=["no history", "one empty", "two empty"])
def test_histories_without_events_have_nothing_to_place(build, arguments, histories):
    position, vectors = ready(build, arguments)
    packed = timed(*histories)
    assert position(vectors[packed.items], packed).shape == (0, DIM)


@each_position
@pytest.mark.parametrize("cut", [0, 1, 2])
def test_what_continues_gives_events_the_same_when_a_history_goes_on(build, arguments, cut):
    position, vectors = ready(build, arguments)
    if not position.continues:
        pytest.skip(f"{build.__name__} declares that it means something else once the history goes on")
    whole = timed(*HISTORIES)
    newer = whole.places >= cut
    lengths = whole.lengths.clamp(max=cut)
    times = torch.tensor(
        [0 if cut == 0 or not history else 3600 * 3 ** (min(cut, len(history)) - 1) for history in HISTORIES]
    )
    rest = (whole.lengths - lengths).cumsum(0)
    history = Sequences(
        whole.items[newer], torch.cat([rest.new_zeros(1), rest]), whole.times[newer], past=Past(lengths, times)
    )
    expected = position(vectors[whole.items], whole)[newer]
    torch.testing.assert_close(position(vectors[history.items], history), expected)


@each_position
def test_what_reads_the_clock_says_so_and_asks_for_times(build, arguments):
    position, vectors = ready(build, arguments)
    history = Sequences.pack(HISTORIES)
    if position.reads_clock:
        with pytest.raises(ValueError, match="no times"):
            position(vectors[history.items], history)
    else:
        assert torch.equal(position(vectors[history.items], history), placed(position, vectors, *HISTORIES))


def test_several_in_the_input_add_what_each_knows():
    parts = LearnedPosition(DIM, 6), InversePosition(DIM, 6), Calendar(DIM)
    for weight in (weight for part in parts for weight in part.parameters()):
        torch.nn.init.normal_(weight)
    history, events = timed([1, 2, 3], [4]), torch.randn(4, DIM)
    both = StackedInput([parts[0], parts[2]])
    torch.testing.assert_close(both(events, history), parts[0](events, history) + parts[2](events, history) - events)
    assert both.reads_clock
    assert both.continues
    assert not StackedInput([parts[0]]).reads_clock
    assert both.max_length == parts[0].max_length
    assert not StackedInput([parts[0], parts[1]]).continues


def test_stacked_positions_add_vectors_of_one_width():
    narrow, wide = (LearnedPosition(dim, max_length=5) for dim in (4, 8))
    assert StackedInput([narrow, narrow]).dim == 4
    with pytest.raises(ValueError, match=r"add vectors of widths \[4, 8\]; give all the same dim"):
        StackedInput([narrow, wide])
