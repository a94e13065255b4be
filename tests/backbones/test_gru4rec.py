"""GRU4Rec refuses what torch's cells would take without a word."""

import pytest

from seqrec.backbones.gru4rec import GRU4Rec


@pytest.mark.parametrize("n_layers", [1, 2])
@pytest.mark.parametrize("dropout", [-0.1, 1.0, 20.0])
def test_a_dropout_that_is_no_share_or_leaves_nothing_is_refused(n_layers, dropout):
    with pytest.raises(ValueError, match=rf"dropout is {dropout}; it must be at least 0 and below 1, e\.g\. 0\.2"):
        GRU4Rec(8, n_layers, dropout)
    assert GRU4Rec(8, n_layers, 0.5).cells.dropout == (0.5 if n_layers > 1 else 0)
