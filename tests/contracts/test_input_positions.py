"""What every position that is added to events must obey. A new one adds one line to ``CASES``."""

import pytest
import torch

from seqrec.positions.learned import InversePosition, LearnedPosition
from seqrec.sequences import Sequences

CASES = [
    pytest.param(LearnedPosition, {"max_length": 6, "init_std": 1.0}, id="LearnedPosition"),
    pytest.param(InversePosition, {"max_length": 6, "init_std": 1.0}, id="InversePosition"),
]
each_position = pytest.mark.parametrize(("build", "arguments"), CASES)

DIM = 8
HISTORIES = [[3, 1, 4], [1], [], [5, 9, 2, 6, 5, 5], [7, 7]]


def ready(build, arguments):
    torch.manual_seed(0)
    return build(dim=DIM, **arguments), torch.randn(10, DIM)


def placed(position, vectors, *histories):
    packed = Sequences.pack(histories, times=[[60 * place for place in range(len(history))] for history in histories])
    return position(vectors[packed.items], packed)


@each_position
def test_a_history_never_sees_its_neighbours(build, arguments):
    position, vectors = ready(build, arguments)
    alone = torch.cat([placed(position, vectors, history) for history in HISTORIES])
    torch.testing.assert_close(placed(position, vectors, *HISTORIES), alone)


@each_position
def test_changing_an_event_changes_no_other_event(build, arguments):
    position, vectors = ready(build, arguments)
    packed = Sequences.pack([[5, 9, 2, 6, 5, 5]])
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
    packed = Sequences.pack(HISTORIES)
    events = vectors[packed.items].requires_grad_()
    position(events, packed).square().sum().backward()
    for name, leaf in [("events", events), *position.named_parameters()]:
        assert leaf.grad is not None, name
        assert leaf.grad.isfinite().all(), name


@each_position
@pytest.mark.parametrize("histories", [[], [[]], [[], []]], ids=["no history", "one empty", "two empty"])
def test_histories_without_events_have_nothing_to_place(build, arguments, histories):
    position, vectors = ready(build, arguments)
    packed = Sequences.pack(histories)
    assert position(vectors[packed.items], packed).shape == (0, DIM)
