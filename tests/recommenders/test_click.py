"""A click model judges each candidate by itself, on items or on the states of any backbone."""

import numpy as np
import polars as pl
import pytest
import torch

from seqrec.backbones.bert4rec import BERT4Rec
from seqrec.backbones.gru4rec import GRU4Rec
from seqrec.backbones.sasrec import SASRec
from seqrec.catalog import Catalog
from seqrec.embeddings.ids import IdEmbedding
from seqrec.nn.target_attention import TargetAttention
from seqrec.positions.contextual import CAPE
from seqrec.positions.learned import LearnedPosition
from seqrec.positions.time import TimeGap
from seqrec.recommenders.click import ClickModel
from seqrec.sequences import Sequences

DIM, ITEMS = 8, 40
HISTORIES = [[3, 1, 4], [1], [5, 9, 2, 6]]
CANDIDATES = torch.tensor([[7, 8, 9], [1, 0, 2], [6, 5, 4]])


def model(backbone=None, position=None, **arguments):
    torch.manual_seed(0)
    catalog = Catalog(pl.DataFrame({"item_id": [f"i{row}" for row in range(ITEMS)], "count": np.ones(ITEMS, int)}))
    return ClickModel(
        catalog,
        lambda catalog: IdEmbedding(catalog, DIM, init_std=1.0),
        TargetAttention(DIM, position=lambda c: CAPE(c, 12)),
        position or LearnedPosition(DIM, 20, init_std=1.0),
        backbone,
        **arguments,
    ).eval()


@pytest.mark.parametrize("build", [lambda dim: None, SASRec, GRU4Rec, BERT4Rec])
def test_what_is_asked_about_others_changes_nothing(build):
    made, history = model(build(DIM)), Sequences.pack(HISTORIES)
    together = made(history, history.newest, CANDIDATES)
    for row, (own, candidates) in enumerate(zip(HISTORIES, CANDIDATES, strict=True)):
        alone = Sequences.pack([own])
        for column, candidate in enumerate(candidates):
            judged = made(alone, alone.newest, candidate[None, None])
            torch.testing.assert_close(judged[0, 0], together[row, column], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("build", [lambda dim: None, SASRec, GRU4Rec])
def test_asking_after_every_event_is_asking_each_prefix(build):
    made, history = model(build(DIM)), Sequences.pack(HISTORIES)
    candidates = torch.arange(16).view(8, 2)
    prefixes = Sequences.pack([own[: end + 1] for own in HISTORIES for end in range(len(own))])
    torch.testing.assert_close(
        made(history, torch.arange(8), candidates), made(prefixes, prefixes.newest, candidates), rtol=1e-4, atol=1e-5
    )


def test_it_says_what_it_reads():
    assert not model().reads_clock
    assert model(position=TimeGap(DIM)).reads_clock
    assert model().causal
    assert not model(BERT4Rec(DIM)).causal


def test_events_and_every_inner_layer_of_the_network_are_dropped_in_training(drop):
    judge = model(hidden=(6, 5), dropout=0.3)
    history, at = Sequences.pack(HISTORIES), torch.tensor([2, 3, 7])
    vectors, (first, second, last) = (
        judge.embedding(CANDIDATES),
        (part for part in judge.judge if hasattr(part, "weight")),
    )
    placed = judge.position(judge.embedding(history.items), history)
    for trains in (False, True):

        def dropped(x, trains=trains):
            return drop(x, 0.3) if trains else x

        taken = judge.attention(vectors, at, dropped(placed), history)
        hidden = dropped(first(torch.cat([vectors, taken, vectors * taken], -1)).relu())
        expected = last(dropped(second(hidden).relu())).squeeze(-1)
        torch.testing.assert_close(judge.train(trains)(history, at, CANDIDATES), expected)


def test_parts_of_other_widths_are_refused():
    with pytest.raises(ValueError, match=r"'TargetAttention': 8, 'SASRec': 16"):
        model(SASRec(16))
