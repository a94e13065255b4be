"""A user's memory as bytes is the memory, and nothing to another model."""

import polars as pl
import pytest
import torch

from seqrec.backbones.gru4rec import GRU4Rec
from seqrec.backbones.hmamba import HMamba
from seqrec.backbones.mamba4rec import Block, Mamba4Rec
from seqrec.backbones.sasrec import SASRec
from seqrec.backbones.sigma import SIGMA, CausalSIGMA
from seqrec.catalog import Catalog
from seqrec.data.errors import InputError
from seqrec.embeddings.ids import IdEmbedding
from seqrec.export.memories import from_bytes, to_bytes
from seqrec.export.users import fingerprint
from seqrec.recommenders.sequential import SequentialRecommender
from seqrec.sequences import Sequences

CATALOG = Catalog(pl.DataFrame({"item_id": [str(row) for row in range(30)], "count": [1] * 30}))
CASES = {
    "GRU4Rec": lambda: GRU4Rec(8, n_layers=2),
    "Mamba4Rec": lambda: Mamba4Rec(8, n_layers=2, d_state=4),
    "Mamba-2": lambda: Mamba4Rec(8, d_state=4, block=Block.mamba2),
    "CausalSIGMA": lambda: CausalSIGMA(8, d_state=4),
    "HMamba": lambda: HMamba(8, d_state=4),
    "SASRec": lambda: SASRec(8),
}


def ready(build, seed=0, catalog=CATALOG):
    torch.manual_seed(seed)
    return SequentialRecommender(catalog, lambda catalog: IdEmbedding(catalog, 8, init_std=1.0), build()).eval()


@pytest.mark.parametrize("build", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("times", [None, [[10, 20, 30, 40]]], ids=["no times", "times"])
@torch.no_grad()
def test_a_memory_through_bytes_goes_on_as_the_whole_history(build, times):
    recommender = ready(build)
    mark = fingerprint(recommender, {})
    content = to_bytes(recommender, recommender.remember(Sequences.pack([[3, 1, 4, 1]], times)), mark)
    assert isinstance(content, bytes)
    remembered = from_bytes(recommender, content, mark)
    assert remembered.past.counts.tolist() == [4]
    assert times is None or remembered.past.times.tolist() == [40]
    after = recommender.proceed(Sequences.pack([[5, 9]], None if times is None else [[50, 60]]), remembered)
    expected = recommender.states(Sequences.pack([[3, 1, 4, 1, 5, 9]]))
    torch.testing.assert_close(after.newest, expected[-1:], rtol=1e-5, atol=1e-5)


def test_the_same_weights_of_other_items_or_another_recipe_are_refused():
    mine, others = ready(CASES["GRU4Rec"]), ready(CASES["GRU4Rec"], catalog=Catalog(CATALOG.table.reverse()))
    for one, other in zip(mine.state_dict().values(), others.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    content = to_bytes(mine, mine.remember(Sequences.pack([[3, 1, 4]])), fingerprint(mine, {}))
    for mark in (fingerprint(others, {}), fingerprint(mine, {"init_args": {"dropout": 0.1}})):
        with pytest.raises(InputError, match="other weights, another recipe or another catalog"):
            from_bytes(others, content, mark)


def test_other_weights_and_broken_bytes_are_refused():
    mine, other = ready(CASES["GRU4Rec"]), ready(CASES["GRU4Rec"], seed=1)
    mark = fingerprint(mine, {})
    content = to_bytes(mine, mine.remember(Sequences.pack([[3, 1, 4]])), mark)
    with pytest.raises(InputError, match="other weights, another recipe or another catalog"):
        from_bytes(other, content, fingerprint(other, {}))
    for broken in (b"", content[:20], content[:-3], b"\xff" * 100):
        with pytest.raises(InputError, match="memory is broken"):
            from_bytes(mine, broken, mark)


def test_a_backbone_that_reads_later_events_remembers_nothing():
    recommender = ready(lambda: SIGMA(8, d_state=4))
    with pytest.raises(TypeError, match="SIGMA cannot go on from what it remembers"):
        recommender.remember(Sequences.pack([[3, 1, 4]]))
