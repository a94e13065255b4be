"""A hidden event is read as the mask, and asking for the next item is filling a gap behind the history."""

import numpy as np
import polars as pl
import pytest
import torch

from seqrec.backbones.bert4rec import BERT4Rec
from seqrec.batch import Batch
from seqrec.catalog import Catalog
from seqrec.data.supervision import MaskedEvents
from seqrec.embeddings.ids import IdEmbedding
from seqrec.objectives.softmax import FullSoftmax
from seqrec.positions.learned import InversePosition, LearnedPosition
from seqrec.positions.time import TimeGap
from seqrec.recommenders.masked import MaskedRecommender
from seqrec.sequences import Sequences

ITEMS, DIM = 40, 8
HISTORIES = [[3, 1, 4], [1], [5, 9, 2, 6]]
POSITIONS = [LearnedPosition, InversePosition]


def recommender(position=LearnedPosition, n_items=ITEMS, dim=DIM, n_layers=2, init_std=0.3, **arguments):
    torch.manual_seed(0)
    catalog = Catalog(pl.DataFrame({"item_id": [f"i{row}" for row in range(n_items)], "count": np.ones(n_items, int)}))
    return MaskedRecommender(
        catalog,
        lambda catalog: IdEmbedding(catalog, dim, init_std=3 * init_std),
        BERT4Rec(dim, n_layers, init_std=init_std),
        position=position(dim, 20, init_std=3 * init_std),
        init_std=3 * init_std,
        **arguments,
    ).eval()


def hiding(histories, hidden, views=None):
    history, at = Sequences.pack(histories), torch.tensor(hidden)
    return Batch(torch.arange(len(history)), history, at, history.items[at], views=views or {}, hidden=at)


@pytest.mark.parametrize("position", POSITIONS)
def test_what_is_asked_at_evaluation_is_what_a_hidden_newest_event_asked_in_training(position):
    model = recommender(position)
    history = Sequences.pack(HISTORIES)
    asked = model.queries(history, history.newest)
    encoded = model.encode(hiding([[*history, 17] for history in HISTORIES], [3, 5, 10]))
    torch.testing.assert_close(asked, encoded.queries)


def test_no_state_knows_what_is_hidden():
    model = recommender()
    states = model.encode(hiding([[3, 1, 4, 7], [2, 8]], [1, 3, 5])).states
    torch.testing.assert_close(model.encode(hiding([[3, 9, 4, 0], [2, 2]], [1, 3, 5])).states, states)
    assert not torch.allclose(model.encode(hiding([[9, 1, 4, 7], [2, 8]], [1, 3, 5])).states[:2], states[:2])


def test_the_mask_is_scaled_as_the_items_beside_it_are():
    """So a hidden event reads as one would whose item has the mask for a vector."""
    model = recommender(scales_input=True)
    hidden, history = torch.tensor([1, 3]), Sequences.pack([[3, 1, 4], [2]])
    with torch.no_grad():
        model.embedding.table.weight[7] = model.mask
    read = model.backbone(model.position(model.embedding(torch.tensor([3, 7, 4, 7])) * DIM**0.5, history), history)
    torch.testing.assert_close(model.states(history, hidden, hidden), read[hidden])


def test_no_gradient_reaches_a_hidden_item_through_the_history():
    model = recommender()
    model.encode(hiding([[3, 1, 4, 7], [2, 8]], [1, 3, 5])).queries.square().sum().backward()
    (gradient,) = (weight.grad.abs().sum(1) for weight in model.embedding.parameters())
    assert (gradient[[3, 4, 2]] > 0).all()
    assert (gradient[[1, 7, 8]] == 0).all()
    assert (model.mask.grad != 0).all()


@pytest.mark.parametrize("position", POSITIONS)
def test_an_event_in_the_middle_is_asked_about_as_if_it_were_the_newest(position):
    model, history = recommender(position), Sequences.pack([[3, 1, 4], [], [5, 9, 2, 6]])
    found = model.queries(history, torch.tensor([1, 6, 3, 2]))
    prefixes = Sequences.pack([[3, 1], [5, 9, 2, 6], [5], [3, 1, 4]])
    torch.testing.assert_close(found, model.queries(prefixes, prefixes.newest))


def test_views_are_read_whole_in_the_same_pass():
    model, view = recommender(), Sequences.pack([[2, 2], [7]])
    batch = hiding([[3, 1, 4], [1, 5]], [0, 4])
    encoded = model.encode(hiding([[3, 1, 4], [1, 5]], [0, 4], views={"other": view}))
    torch.testing.assert_close(encoded.queries, model.encode(batch).queries)
    torch.testing.assert_close(
        encoded.views["other"], model.states(view, torch.tensor([], dtype=torch.long), view.newest)
    )


def test_queries_are_float32_whatever_the_precision_of_training():
    model, history = recommender(), Sequences.pack(HISTORIES)
    exact = model.queries(history, history.newest)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(model.queries(history, history.newest), exact)
        assert model.encode(hiding(HISTORIES, [1, 3])).queries.isfinite().all()


def test_the_mask_is_one_vector_and_no_item():
    model = recommender()
    backbone, places = sum(p.numel() for p in model.backbone.parameters()), 20 * DIM
    assert sum(p.numel() for p in model.parameters()) == ITEMS * DIM + places + DIM + backbone
    assert model.item_keys().shape == (ITEMS, DIM)


def test_filling_gaps_teaches_it_what_comes_next():
    """Ten items in a ring, and histories that walk along it."""
    model = recommender(InversePosition, n_items=10, dim=32, n_layers=1, init_std=0.1)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        firsts = torch.randint(10, (32,), generator=generator).tolist()
        walks = [[(first + step) % 10 for step in range(6)] for first in firsts]
        hidden = MaskedEvents(0.3).predict_at(Sequences.pack(walks), generator)
        loss = FullSoftmax()(model.encode(hiding(walks, hidden.tolist()))).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    walks = Sequences.pack([[(first + step) % 10 for step in range(5)] for first in range(10)])
    assert model.recommend(walks, 1).items.flatten().tolist() == [(first + 5) % 10 for first in range(10)]


def test_a_position_that_reads_times_is_refused():
    with pytest.raises(ValueError, match="nobody knows when the item that a mask stands for"):
        recommender(lambda dim, *_, **__: TimeGap(dim))


def test_one_place_of_its_position_is_the_masks():
    model = recommender(LearnedPosition)
    assert model.max_length == 19
    longest = Sequences.pack([[1] * model.max_length])
    model.queries(longest, longest.newest)
