"""A convolution over packed histories equals torch's over each history alone."""

import pytest
import torch
from torch.nn import functional as F

from seqrec.nn.convolution import NeighbourConvolution
from seqrec.sequences import Sequences

HISTORIES = [[0, 1, 2], [], [3], [4, 5, 6, 7, 8, 9], [10, 11]]


@pytest.mark.parametrize(("before", "after"), [(1, 1), (2, 0), (0, 0), (0, 2)])
def test_it_equals_torch_over_each_history_padded_with_zeros(before, after):
    torch.manual_seed(0)
    convolution, history = NeighbourConvolution(4, before, after).double(), Sequences.pack(HISTORIES)
    x = torch.randn(12, 4, dtype=torch.float64, requires_grad=True)
    expected = torch.cat(
        [
            F.conv1d(F.pad(x[rows].T[None], (before, after)), convolution.filters.weight, convolution.filters.bias)[0].T
            for rows in HISTORIES
            if rows
        ]
    )
    filtered, _ = convolution(x, history)
    torch.testing.assert_close(filtered, expected)
    weights = torch.randn_like(expected)
    leaves = [x, *convolution.parameters()]
    gradients = [torch.autograd.grad((y * weights).sum(), leaves) for y in (filtered, expected)]
    torch.testing.assert_close(*gradients)


def test_it_goes_on_from_the_inputs_it_remembers():
    torch.manual_seed(0)
    convolution = NeighbourConvolution(4, before=2, after=0).double()
    x = torch.randn(2, 7, 4, dtype=torch.float64)
    whole = Sequences.pack([range(7)] * 2)
    expected = convolution(x.flatten(0, 1), whole)[0].unflatten(0, (2, 7))
    past, parts = None, []
    for begin, end in ((0, 1), (1, 2), (2, 6), (6, 7)):
        part = Sequences.pack([range(end - begin)] * 2)
        filtered, past = convolution(x[:, begin:end].flatten(0, 1), part, past)
        parts.append(filtered.unflatten(0, (2, end - begin)))
    torch.testing.assert_close(torch.cat(parts, dim=1), expected)


def test_the_order_of_the_filter_is_from_the_oldest_neighbour_to_the_newest():
    convolution = NeighbourConvolution(1, before=1, after=1)
    with torch.no_grad():
        convolution.filters.weight.copy_(torch.tensor([[[100.0, 10.0, 1.0]]]))
        convolution.filters.bias.fill_(0.5)
    filtered, _ = convolution(torch.tensor([[1.0], [2.0], [3.0], [4.0]]), Sequences.pack([[0, 0, 0], [0]]))
    assert filtered[:, 0].tolist() == [12.5, 123.5, 230.5, 40.5]
