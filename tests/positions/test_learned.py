"""Learned positions count from the oldest or from the newest event, and refuse what they have no place for."""

import pytest
import torch

from seqrec.positions.learned import InversePosition, LearnedPosition
from seqrec.sequences import Sequences

HISTORIES = Sequences.pack([[3, 1, 4], [1], [], [5, 9]])


def added(position, history):
    events = torch.randn(history.items.numel(), 4)
    return position(events, history) - events


def test_learned_positions_count_from_the_oldest_event():
    position = LearnedPosition(dim=4, max_length=3)
    torch.testing.assert_close(added(position, HISTORIES), position.table.weight[[0, 1, 2, 0, 0, 1]])


def test_inverse_positions_count_from_the_newest_event():
    position = InversePosition(dim=4, max_length=3)
    torch.testing.assert_close(added(position, HISTORIES), position.table.weight[[2, 1, 0, 0, 1, 0]])


@pytest.mark.parametrize("kind", [LearnedPosition, InversePosition])
def test_a_history_longer_than_the_table_is_refused_with_a_remedy(kind):
    with pytest.raises(ValueError, match=r"3 events, but .*Position knows 2 places\. Set data\.max_length"):
        added(kind(dim=4, max_length=2), HISTORIES)


def test_the_table_starts_with_the_standard_deviation_asked_for():
    torch.manual_seed(0)
    assert LearnedPosition(dim=64, max_length=200, init_std=0.5).table.weight.std().item() == pytest.approx(
        0.5, rel=0.05
    )
