"""The full softmax is plain cross-entropy over the whole catalog."""

import torch
from torch.nn import functional as F

from seqrec.batch import Batch
from seqrec.objectives.softmax import FullSoftmax
from seqrec.recommenders.base import Encoded
from seqrec.sequences import Sequences


def test_it_equals_plain_cross_entropy_in_value_and_gradient():
    torch.manual_seed(0)
    table, queries = torch.randn(11, 4, requires_grad=True), torch.randn(3, 4, requires_grad=True)
    batch = Batch(torch.arange(1), Sequences.pack([[5, 2, 7]]), torch.arange(3), torch.tensor([2, 7, 10]))
    encoded = Encoded(
        batch, queries, queries, lambda rows: table if rows is None else table[rows], torch.ones(11, dtype=torch.long)
    )
    losses = FullSoftmax()(encoded)
    expected = F.cross_entropy(queries @ table.T, batch.targets, reduction="none")
    torch.testing.assert_close(losses, expected)
    torch.testing.assert_close(
        torch.autograd.grad(losses.sum(), (queries, table)), torch.autograd.grad(expected.sum(), (queries, table))
    )
