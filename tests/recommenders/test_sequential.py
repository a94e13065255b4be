"""Embedding, backbone and scorer in a row: what is read, what is refused, and what its blocks compute."""

from functools import partial

import numpy as np
import polars as pl
import pytest
import torch

from seqrec.backbones.compressed import Compressed
from seqrec.backbones.hmamba import HMamba
from seqrec.backbones.ligr import LiGR
from seqrec.backbones.mamba4rec import Mamba4Rec
from seqrec.backbones.sasrec import Activation, Norm, SASRec
from seqrec.batch import Batch
from seqrec.catalog import Catalog
from seqrec.data.errors import InputError
from seqrec.embeddings.experts import TextExperts
from seqrec.embeddings.ids import IdEmbedding
from seqrec.embeddings.pretrained import TextInitialised, TextTower
from seqrec.export.added import extend
from seqrec.nn.hyperbolic import LearnedCurvature
from seqrec.objectives.softmax import FullSoftmax
from seqrec.ops.attention import causal_attention
from seqrec.positions.contextual import CAPE
from seqrec.positions.learned import LearnedPosition
from seqrec.recommenders.keyed import Start
from seqrec.recommenders.sequential import SequentialRecommender
from seqrec.scorers import Lorentz
from seqrec.sequences import Sequences


class Reader(SASRec):
    """Keeps what it was given to read."""

    def states_at(self, events, history, at):
        self.read = events
        return super().states_at(events, history, at)

    def forward(self, events, history):
        self.read = events
        return super().forward(events, history)


def _catalog(n_items):
    return Catalog(pl.DataFrame({"item_id": [f"i{row}" for row in range(n_items)], "count": np.ones(n_items, int)}))


def _recommender(n_items=40, dim=8, backbone=None, **arguments):
    torch.manual_seed(0)
    return SequentialRecommender(
        _catalog(n_items),
        lambda catalog: IdEmbedding(catalog, dim, init_std=1.0),
        backbone or SASRec(dim),
        position=LearnedPosition(dim, 20),
        **arguments,
    ).eval()


def _batch():
    history = Sequences.pack([[3, 1, 4], [1], [5, 9, 2, 6]])
    return Batch(torch.arange(3), history, history.newest, torch.tensor([7, 8, 11]))


def test_views_are_read_in_the_same_pass_as_histories():
    recommender, batch = _recommender(), _batch()
    view = Sequences.pack([[2, 2], [7]])
    encoded = recommender.encode(Batch(**{**vars(batch), "views": {"other": view}}))
    torch.testing.assert_close(encoded.states, recommender.states(batch.history)[batch.predict_at])
    torch.testing.assert_close(encoded.views["other"], recommender.states(view)[view.newest])


def test_queries_are_float32_whatever_the_precision_of_training():
    recommender, batch = _recommender(), _batch()
    exact = recommender.queries(batch.history, batch.predict_at)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(recommender.queries(batch.history, batch.predict_at), exact)


def test_a_width_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="Give both the same dim"):
        _recommender(dim=8, backbone=SASRec(16))


def test_a_history_longer_than_the_positions_is_refused():
    with pytest.raises(ValueError, match=r"data\.max_length"):
        _recommender().states(Sequences.pack([list(range(21))]))


@pytest.mark.parametrize("norm", list(Norm))
def test_sasrec_has_the_parameters_that_the_paper_counts(norm):
    items, dim, places, layers = 100, 16, 20, 3
    recommender = _recommender(items, dim, SASRec(dim, layers, norm=norm, projects_output=False))
    attention, feed_forward, norms = 3 * (dim * dim + dim), 2 * (dim * dim + dim), 2 * 2 * dim
    by_hand = items * dim + places * dim + layers * (attention + feed_forward + norms) + 2 * dim
    assert sum(p.numel() for p in recommender.parameters()) == by_hand


@pytest.mark.parametrize(("norm", "drops_inside"), [(Norm.original, True), (Norm.pre, True), (Norm.post, False)])
def test_a_feed_forward_network_drops_inside_as_its_layout_does(norm, drops_inside):
    backbone = SASRec(64, n_layers=1, dropout=0.5, norm=norm, activation=Activation.gelu).train()
    read = []
    backbone.blocks[0].feed_forward.narrow.register_forward_hook(lambda _, inputs, __: read.append(inputs[0]))
    backbone(torch.randn(200, 64), Sequences.pack([[0] * 200]))
    share = (read[0] == 0).double().mean().item()
    assert share == pytest.approx(0.5 if drops_inside else 0.0, abs=0.02)


def test_keys_may_be_a_table_of_their_own():
    tied, own = _recommender(), _recommender(output=lambda catalog: IdEmbedding(catalog, 8, init_std=1.0))
    torch.testing.assert_close(tied.item_keys(), tied.embedding())
    torch.testing.assert_close(own.item_keys(), own.output())
    assert not torch.equal(own.output(), own.embedding())
    encoded = own.encode(_batch())
    FullSoftmax()(encoded).sum().backward()
    unread = torch.ones(40, dtype=torch.bool).index_fill(0, _batch().history.items, False)
    assert (own.embedding.table.weight.grad[unread] == 0).all()
    assert (own.output.table.weight.grad != 0).any(1).all()
    grown = Catalog(pl.concat([own.catalog.table, pl.DataFrame({"item_id": ["new"], "count": [0]})]))
    with pytest.raises(InputError, match="a table of their own"):
        extend(own, grown, torch.randn(1, 8))


def test_all_weights_begin_as_xavier_has_them_where_asked():
    own, xavier = (_recommender(900, 64, LiGR(64), start=start) for start in Start)
    weights = {name: weight for name, weight in xavier.named_parameters() if weight.ndim > 1}
    assert {"embedding.table.weight", "position.table.weight"} <= weights.keys()
    for name, weight in xavier.named_parameters():
        if name in weights:
            assert weight.std().item() == pytest.approx((2 / sum(weight.shape)) ** 0.5, rel=0.1), name
        elif "norm" in name:
            assert torch.equal(weight, own.get_parameter(name))


def test_what_begins_as_its_method_says_keeps_that_start():
    def begun(start):
        torch.manual_seed(0)
        parts = (Mamba4Rec(16, d_state=4), Compressed(SASRec(16, position=CAPE)))
        return [_recommender(30, 16, backbone, start=start) for backbone in parts]

    for own, xavier in zip(begun(Start.own), begun(Start.xavier_normal), strict=True):
        kept = [name for name, _ in own.named_parameters() if name.rpartition(".")[2] in ("decay_log", "tokens")]
        kept += [name for name, _ in own.named_parameters() if name.endswith("position.columns.table")]
        assert kept
        for name in kept:
            assert torch.equal(own.get_parameter(name), xavier.get_parameter(name)), name


def test_a_scorer_shares_the_curvature_of_what_is_compressed():
    backbone = Compressed(HMamba(8, d_state=4, curvature=LearnedCurvature(4.0)))
    model = SequentialRecommender(_catalog(20), lambda catalog: IdEmbedding(catalog, 8), backbone, Lorentz())
    assert model.scorer.curvature is backbone.inner.curvature
    assert Compressed(SASRec(8)).curvature is None


def _as_told(monkeypatch, backbone, share):
    """Attention without chance, which is told the share of weights that it would have dropped, here and now."""

    def attend(q, k, v, offsets, told):
        assert told == (share if backbone.training else 0)
        return causal_attention(q, k, v, offsets)

    monkeypatch.setattr("seqrec.nn.attention.causal_attention", attend)


@pytest.mark.parametrize("trains", [False, True])
@pytest.mark.parametrize("norm", list(Norm))
def test_where_a_block_normalises_drops_and_what_its_residuals_start_from(norm, trains, drop, monkeypatch):
    torch.manual_seed(0)
    share = 0.3
    backbone = SASRec(8, 1, 1, share, norm=norm, projects_output=False, final_norm=False).train(trains)
    _as_told(monkeypatch, backbone, share)
    (block,) = backbone.blocks
    for name, weight in block.named_parameters():
        torch.nn.init.normal_(weight, mean=float("norm.weight" in name), std=0.5)  # so that no two norms are alike
    h = torch.randn(3, 8)

    def dropped(x):
        return drop(x, share) if trains else x

    def attended(queries, others):
        attention = block.attention
        logits = attention.query(queries) @ attention.key(others).T / 8**0.5
        shares = logits.masked_fill(torch.ones(3, 3).triu(1).bool(), -torch.inf).softmax(-1)
        return shares @ attention.value(others)

    def fed(x):
        hidden = torch.relu(block.feed_forward.widen(x))
        return dropped(block.feed_forward.narrow(hidden if norm is Norm.post else dropped(hidden)))

    first, second = block.attention_norm, block.feed_forward_norm
    if norm is Norm.original:  # whose attention drops weights alone
        z = second(first(h) + attended(first(h), h))
        by_hand = z + fed(z)
    elif norm is Norm.pre:
        u = h + dropped(attended(first(h), first(h)))
        by_hand = u + fed(second(u))
    else:
        u = first(h + dropped(attended(h, h)))
        by_hand = second(u + fed(u))
    torch.testing.assert_close(backbone(h, Sequences.pack([[0, 1, 2]])), by_hand)


@pytest.mark.parametrize("trains", [False, True])
def test_ligr_by_hand_its_gates_read_the_stream_that_is_added_to(trains, drop, monkeypatch):
    torch.manual_seed(0)
    share = 0.3
    backbone = LiGR(8, 1, dropout=share).train(trains)
    _as_told(monkeypatch, backbone, share)
    (block,) = backbone.blocks
    for name, weight in block.named_parameters():
        torch.nn.init.normal_(weight, mean=float("norm.weight" in name), std=0.5)
    # D = 8: query, key, value and output with biases, two norms, two gates, and three maps to and from 32 without.
    assert sum(weight.numel() for weight in backbone.parameters()) == 4 * 72 + 2 * 16 + 2 * 72 + 3 * 256

    def dropped(x):
        return drop(x, share) if trains else x

    h, attention = torch.randn(3, 8), block.attention
    q = block.attention_norm(h)
    logits = (attention.query(q) @ attention.key(q).T / 8**0.5).masked_fill(torch.ones(3, 3).triu(1).bool(), -torch.inf)
    mixed = attention.output(logits.softmax(-1) @ attention.value(q))
    u = h + torch.sigmoid(block.attention_gate(h)) * dropped(mixed)
    z, ffn = block.feed_forward_norm(u), block.feed_forward
    gated = ffn.gate(z)
    fed = ffn.narrow(dropped(gated * torch.sigmoid(gated) * ffn.widen(z)))
    by_hand = u + torch.sigmoid(block.feed_forward_gate(u)) * dropped(fed)
    torch.testing.assert_close(backbone(h, Sequences.pack([[0, 1, 2]])), by_hand)


def test_what_begins_from_texts_keeps_that_where_all_else_begins_as_xavier_says(tmp_path):
    numbers = np.random.default_rng(0).standard_normal((40, 12)).astype("float32")
    catalog, path = _catalog(40), tmp_path / "vectors.parquet"
    pl.DataFrame({"item_id": catalog.ids, "vector": numbers.tolist()}).write_parquet(path)

    def begun(build, start):
        torch.manual_seed(0)
        model = SequentialRecommender(catalog, lambda catalog: build(catalog, 8, str(path)), SASRec(8), start=start)
        return model.eval().embedding()

    for build in (TextInitialised, partial(TextTower, init_std=0.02), partial(TextExperts, init_std=0.02)):
        torch.testing.assert_close(begun(build, Start.xavier_normal), begun(build, Start.own))
    assert not torch.equal(begun(TextTower, Start.xavier_normal), begun(TextTower, Start.own))


@pytest.mark.parametrize("scales_input", [False, True])
def test_item_vectors_are_scaled_where_they_are_read_and_never_where_they_score(scales_input):
    recommender = _recommender(scales_input=scales_input, backbone=(reader := Reader(8)))
    history = Sequences.pack([[3, 1], [4]])
    recommender.states(history)
    vectors = recommender.embedding(history.items)
    torch.testing.assert_close(reader.read, recommender.position(vectors * (8**0.5 if scales_input else 1.0), history))
    torch.testing.assert_close(recommender.item_keys(), recommender.embedding())


@pytest.mark.parametrize("normalises_input", [False, True])
def test_what_a_backbone_reads_is_dropped_last(normalises_input, drop):
    recommender = _recommender(dropout=0.3, normalises_input=normalises_input, backbone=(reader := Reader(8)))
    history = Sequences.pack([[3, 1], [4]])
    placed = recommender.position(recommender.embedding(history.items), history)
    if normalises_input:
        placed = (placed - placed.mean(1, keepdim=True)) / placed.std(1, keepdim=True, unbiased=False)
    for trains in (False, True):
        recommender.train(trains).states(history)
        torch.testing.assert_close(reader.read, drop(placed, 0.3) if trains else placed)


def test_ligr_gates_shut_make_the_block_the_identity():
    backbone = LiGR(8).eval()
    for block in backbone.blocks:
        for gate in (block.attention_gate, block.feed_forward_gate):
            torch.nn.init.constant_(gate.bias, -1e4)
    events = torch.randn(4, 8)
    torch.testing.assert_close(backbone(events, Sequences.pack([[0, 1], [2, 3]])), events)


def test_ligr_gates_open_make_the_block_plain_pre_norm_swiglu():
    backbone = LiGR(8, 1).eval()
    (block,) = backbone.blocks
    for gate in (block.attention_gate, block.feed_forward_gate):
        torch.nn.init.constant_(gate.bias, 1e4)
    events, history = torch.randn(4, 8), Sequences.pack([[0, 1], [2, 3]])
    q = block.attention_norm(events)
    h = events + block.attention(q, q, history, None)[0]
    torch.testing.assert_close(backbone(events, history), h + block.feed_forward(block.feed_forward_norm(h)))
