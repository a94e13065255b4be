"""Numbers of a short table: the counted gradient equals that of indexing."""

import torch

from seqrec.ops.dispatch import using
from seqrec.ops.lookup import look_up


def test_implementations_agree_with_the_reference():
    torch.manual_seed(0)
    for shape in [(3, 5, 7), (1,), (0,), (2, 0)]:
        table = torch.randn(9).requires_grad_()
        places, upstream = torch.randint(9, shape, dtype=torch.int32), torch.randn(shape)

        def run(name, table=table, places=places, upstream=upstream):
            with using(name):
                out = look_up(table, places)
            return out, *torch.autograd.grad((out * upstream).sum(), table)

        torch.testing.assert_close(run("counted"), run("reference"))
