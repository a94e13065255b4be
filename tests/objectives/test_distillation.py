"""A history learns from its neighbours by text, and they nothing from it."""

import torch

from seqrec.batch import Batch
from seqrec.objectives.distillation import NeighbourDistillation
from seqrec.recommenders.base import Encoded
from seqrec.sequences import Sequences


def encoded(states, n, k):
    history = Sequences.pack([[1, 2]] * n)
    view = Sequences.pack([[1]] * (n * (k + 1)))
    batch = Batch(torch.arange(n), history, history.newest, torch.arange(n), views={"neighbours": view})
    at = torch.zeros(n, states.shape[1])
    return Encoded(batch, at, at, lambda rows: at, torch.ones(3, dtype=torch.long), {"neighbours": states})


def test_it_is_the_mean_squared_distance_to_the_mean_of_the_neighbours_of_each_history():
    states = torch.tensor(
        [[1.0, 0], [3, 0], [5, 4], [0, 0], [0, 2], [2, 0]]
    )  # own, two neighbours; own, two neighbours
    found = NeighbourDistillation()(encoded(states, 2, 2))
    plain = (((states[0] - states[1:3].mean(0)) ** 2).mean() + ((states[3] - states[4:].mean(0)) ** 2).mean()) / 2
    torch.testing.assert_close(found, plain)


def test_the_gradient_reaches_the_history_alone():
    states = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    NeighbourDistillation()(encoded(states, 2, 2)).backward()
    assert states.grad.abs().sum(1).gt(0).tolist() == [True, False, False, True, False, False]
