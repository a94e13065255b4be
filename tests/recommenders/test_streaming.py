"""A recommender that goes on from what it remembers says what it would have said of the whole history."""

import polars as pl
import pytest
import torch

from seqrec.backbones.bert4rec import BERT4Rec
from seqrec.backbones.compressed import Compressed
from seqrec.backbones.gru4rec import GRU4Rec
from seqrec.backbones.hmamba import HMamba
from seqrec.backbones.hstu import HSTU
from seqrec.backbones.ligr import LiGR
from seqrec.backbones.mamba4rec import Mamba4Rec
from seqrec.backbones.sasrec import SASRec
from seqrec.backbones.sigma import CausalSIGMA
from seqrec.batch import Batch
from seqrec.catalog import Catalog
from seqrec.embeddings.ids import IdEmbedding
from seqrec.positions.contextual import CAPE
from seqrec.positions.learned import InversePosition, LearnedPosition
from seqrec.positions.rotary import RotaryPosition
from seqrec.positions.sinusoidal import SinusoidalPosition
from seqrec.positions.stacked import Stacked
from seqrec.positions.time import Calendar, TimeGap
from seqrec.positions.time_bias import TimeBias
from seqrec.recommenders.sequential import SequentialRecommender
from seqrec.sequences import Sequences

DIM = 8
LENGTHS = [7, 1, 0, 20, 3]
INPUT = [
    pytest.param(lambda: LearnedPosition(DIM, 20, init_std=1.0), id="learned"),
    pytest.param(lambda: SinusoidalPosition(DIM, scale=1.0), id="sinusoidal"),
    pytest.param(lambda: TimeGap(DIM, init_std=1.0), id="gap"),
    pytest.param(lambda: Calendar(DIM, init_std=1.0), id="calendar"),
    pytest.param(lambda: None, id="none"),
]
BACKBONES = [
    pytest.param(lambda: SASRec(DIM, n_heads=2, position=RotaryPosition), id="SASRec"),
    pytest.param(lambda: LiGR(DIM), id="LiGR"),
    pytest.param(lambda: HSTU(DIM, position=TimeBias), id="HSTU"),
    pytest.param(lambda: GRU4Rec(DIM), id="GRU4Rec"),
    pytest.param(lambda: Mamba4Rec(DIM, d_state=4, init_std=0.3), id="Mamba4Rec"),
    pytest.param(lambda: CausalSIGMA(DIM, d_state=4, init_std=0.3), id="CausalSIGMA"),
    pytest.param(lambda: HMamba(DIM, d_state=4), id="HMamba"),
    pytest.param(lambda: Compressed(SASRec(DIM), n_recent=50), id="Compressed"),
]


def recommender_of(backbone, position):
    torch.manual_seed(0)
    catalog = Catalog(pl.DataFrame({"item_id": [str(row) for row in range(30)], "count": [1] * 30}))
    return SequentialRecommender(
        catalog, lambda items: IdEmbedding(items, DIM, init_std=1.0), backbone(), position=position()
    ).eval()


def whole():
    generator = torch.Generator().manual_seed(0)
    history = Sequences.pack(
        [torch.randint(30, (n,), generator=generator).tolist() for n in LENGTHS],
        [torch.randint(1, 500_000, (n,), generator=generator).cumsum(0).tolist() for n in LENGTHS],
    )
    newest = history.newest[history.lengths > 0]
    return history.asking(newest, history.times[newest] + 99)


def part(history, begin, end):
    chosen = (history.places >= begin) & (history.places < end)
    lengths = (history.lengths.clamp(max=end) - begin).clamp(min=0)
    offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    return Sequences(history.items[chosen], offsets, history.times[chosen], history.asked_at[chosen]), chosen


def goes_on(recommender, cut):
    history = whole()
    expected = recommender.states(history)
    remembered = None
    for begin, end in ((0, cut), (cut, cut + 1), (cut + 1, 20)):
        some, chosen = part(history, begin, end)
        remembered = recommender.proceed(some, remembered)
        happened, happens = remembered.past.counts > 0, some.lengths > 0
        newest = expected[chosen][some.newest[happens]]
        torch.testing.assert_close(remembered.newest[happens], newest, rtol=1e-5, atol=1e-5)
        assert (remembered.newest[~happened] == 0).all()
    assert remembered.past.counts.tolist() == LENGTHS
    happened = history.lengths > 0
    torch.testing.assert_close(remembered.newest[happened], expected[history.newest[happened]], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("cut", [0, 1, 5])
def test_every_continuing_backbone_goes_on(backbone, cut):
    goes_on(recommender_of(backbone, lambda: LearnedPosition(DIM, 20, init_std=1.0)), cut)


@pytest.mark.parametrize("position", INPUT)
@pytest.mark.parametrize("cut", [0, 1, 5])
def test_every_position_that_continues_goes_on(position, cut):
    goes_on(recommender_of(lambda: SASRec(DIM), position), cut)


def test_what_cannot_go_on_says_so():
    history = whole()
    with pytest.raises(TypeError, match="InversePosition means something else"):
        recommender_of(lambda: SASRec(DIM), lambda: InversePosition(DIM, 20)).proceed(history)
    for padded in (lambda c: CAPE(c, mask_gates=False), lambda c: Stacked(c, [lambda c: CAPE(c, mask_gates=False)])):
        with pytest.raises(TypeError, match=r"(CAPE|Stacked) means something else"):
            recommender_of(lambda p=padded: SASRec(DIM, position=p), lambda: None).remember(history)
    with pytest.raises(TypeError, match="BERT4Rec cannot go on"):
        recommender_of(lambda: BERT4Rec(DIM), lambda: None).proceed(history)


def test_a_history_that_outgrows_its_places_is_refused():
    recommender = recommender_of(lambda: SASRec(DIM), lambda: LearnedPosition(DIM, 20))
    remembered = recommender.proceed(whole())
    with pytest.raises(ValueError, match="A history has 21 events"):
        recommender.proceed(Sequences.pack([[1]] * len(LENGTHS)), remembered)


def test_the_moment_of_asking_reaches_only_parts_that_declare_it():
    history = Sequences.pack([[1, 2, 3]], [[10, 20, 3_000]])
    batch = Batch(torch.arange(1), history, history.newest, torch.tensor([5]), torch.tensor([90_000]))
    knows, not_told = (recommender_of(lambda p=p: SASRec(DIM, position=p), lambda: None) for p in (TimeBias, None))
    assert not_told.informed(batch).history.asked_at is None
    assert knows.informed(batch).history.asked_at.tolist() == [20, 3_000, 90_000]
    assert (knows.reads_asked_at, not_told.reads_asked_at) == (True, False)
    with pytest.raises(ValueError, match="when a prediction is asked for"):
        knows.ranks(Batch(torch.arange(1), history, history.newest, torch.tensor([5])))


def test_views_are_asked_as_soon_as_their_newest_event_is_there():
    history, view = Sequences.pack([[1, 2]], [[10, 20]]), Sequences.pack([[3, 4, 5], [6]], [[1, 7, 50], [9]])
    asked = {"targets": torch.tensor([5]), "asked_at": torch.tensor([90])}
    batch = Batch(torch.arange(1), history, history.newest, **asked, views={"others": view})
    knows = recommender_of(lambda: SASRec(DIM, position=TimeBias), lambda: None)
    assert knows.informed(batch).views["others"].asked_at.tolist() == [7, 50, 50, 9]
    assert knows.encode(batch).views["others"].shape == (2, DIM)
    alone = Batch(torch.arange(2), view, view.newest, torch.tensor([0, 0]), torch.tensor([50, 9]))
    torch.testing.assert_close(knows.encode(batch).views["others"], knows.encode(alone).states)
    without = Batch(torch.arange(1), history, history.newest, **asked, views={"others": Sequences.pack([[3]])})
    with pytest.raises(ValueError, match="the view 'others' carries none"):
        knows.encode(without)
