"""GRU4Rec refuses what it could not do."""

import pytest

from seqrec.backbones.gru4rec import GRU4Rec


@pytest.mark.parametrize("n_layers", [1, 2])
@pytest.mark.parametrize("dropout", [-0.1, 1.0])
def test_a_share_that_cannot_be_dropped_is_refused(n_layers, dropout):
    with pytest.raises(ValueError, match=f"dropout is {dropout}"):
        GRU4Rec(8, n_layers, dropout)
