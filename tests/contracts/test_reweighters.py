"""What every reweighter must obey. A new one adds one line to ``CASES``."""

from functools import partial

import numpy as np
import polars as pl
import pytest
import torch

from seqrec.audience import Audience
from seqrec.batch import Batch
from seqrec.catalog import Catalog
from seqrec.objectives.base import EqualWeights
from seqrec.objectives.isolation import IsolationForest
from seqrec.objectives.lorec import LoRec
from seqrec.objectives.text_detector import TextDetector
from seqrec.recommenders.base import Encoded
from seqrec.sequences import Sequences

N_ITEMS, N_USERS = 12, 30
SMALL = {"active_from": 2, "period": 1, "late_period": 1, "batch_users": 10, "hidden_dim": 8}
CASES = [
    pytest.param(EqualWeights, {}, id="EqualWeights"),
    pytest.param(LoRec, SMALL, id="LoRec"),
    pytest.param(partial(LoRec, vectors="vectors.parquet"), SMALL, id="LoRec with texts"),
    pytest.param(partial(TextDetector, vectors="vectors.parquet"), {"hidden_dim": 8, "passes": 3}, id="TextDetector"),
    pytest.param(IsolationForest, {"share": 0.1, "n_trees": 10}, id="IsolationForest"),
]
each_reweighter = pytest.mark.parametrize(("build", "arguments"), CASES)


@pytest.fixture(autouse=True)
def vectors(tmp_path, monkeypatch):
    """Text vectors of all items but one, in the folder where the tests run."""
    monkeypatch.chdir(tmp_path)
    numbers = np.random.default_rng(0).standard_normal((N_ITEMS - 1, 3)).tolist()
    table = pl.DataFrame({"item_id": [str(row) for row in range(N_ITEMS - 1)], "vector": numbers})
    table.write_parquet("vectors.parquet")


def encoded_of(histories, dtype=torch.float32):
    """Histories encoded by hand, each predicting behind its newest event."""
    history = Sequences.pack(histories)
    return read(Batch(torch.arange(len(history)), history, history.newest, torch.arange(len(history))), dtype)


def read(batch, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(N_ITEMS, 4, generator=generator, requires_grad=True)
    states = table[batch.history.items[batch.predict_at]] * 2
    return Encoded(
        batch,
        states,
        states.to(dtype),
        lambda rows: (table if rows is None else table[rows]).to(dtype),
        torch.arange(N_ITEMS),
    )


def audience() -> Audience:
    """Thirty users, the last two of whom have no history, and six known fraudsters."""
    random = np.random.default_rng(3)

    def drawn(n, items):
        histories = [random.integers(0, items, random.integers(1, 9)).tolist() for _ in range(n)]
        return Sequences.pack(histories, [list(range(len(history))) for history in histories])

    catalog = Catalog(pl.DataFrame({"item_id": [str(row) for row in range(N_ITEMS)], "count": [1] * N_ITEMS}))
    return Audience(catalog, N_USERS, torch.arange(28), drawn(28, 6), drawn(6, N_ITEMS))


def trained(build, arguments, epochs=3):
    reweighter = build(**arguments)
    reweighter.begin(audience)
    for epoch in range(1, epochs + 1):
        reweighter.end_epoch(epoch, read)
    return reweighter


def weights_of(reweighter):
    """The weight of every user."""
    return reweighter(encoded_of([[user % N_ITEMS] for user in range(N_USERS)])).weights


@each_reweighter
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("histories", [[[3, 1, 4], [1], [5, 9, 2, 6]], []], ids=["three", "none"])
@pytest.mark.parametrize("epochs", [None, 3], ids=["new", "after epochs"])
def test_every_prediction_has_a_weight_and_the_batch_one_penalty_in_float32(build, arguments, histories, dtype, epochs):
    reweighter = trained(build, arguments, epochs) if epochs else build(**arguments)
    weighting = reweighter(encoded_of(histories, dtype))
    assert weighting.weights.shape == (len(histories),)
    assert weighting.penalty.shape == ()
    for value in (weighting.weights, weighting.penalty):
        assert value.dtype == torch.float32
        assert value.isfinite().all()
        assert not value.requires_grad
    assert (weighting.weights >= 0).all()


@each_reweighter
def test_a_batch_that_predicts_weighs_something(build, arguments):
    """The loss is divided by the sum of the weights."""
    assert build(**arguments)(encoded_of([[3, 1, 4], [1]])).weights.sum() > 0
    assert weights_of(trained(build, arguments)).sum() > 0


@each_reweighter
def test_what_it_learns_is_no_parameter_of_the_run_and_disturbs_no_chance(build, arguments):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    reweighter = trained(build, arguments)
    assert torch.equal(torch.get_rng_state(), before)
    assert list(reweighter.parameters()) == []


@each_reweighter
def test_one_that_was_stopped_and_goes_on_weighs_as_one_that_was_not(build, arguments, tmp_path):
    whole = trained(build, arguments, epochs=5)
    half = trained(build, arguments, epochs=2)
    torch.save(half.state_dict(), tmp_path / "kept.pt")
    resumed = build(**arguments)
    resumed.load_state_dict(torch.load(tmp_path / "kept.pt", weights_only=True))
    resumed.begin(audience)
    for epoch in (3, 4, 5):
        resumed.end_epoch(epoch, read)
    assert torch.equal(weights_of(resumed), weights_of(whole))
    assert str(resumed.state_dict()) == str(whole.state_dict())


@each_reweighter
def test_its_state_says_the_same_where_nothing_begins(build, arguments):
    """A test of a run builds the reweighter and loads its state, but never trains."""
    reweighter = trained(build, arguments)
    idle = build(**arguments)
    idle.load_state_dict(reweighter.state_dict())
    assert torch.equal(weights_of(idle), weights_of(reweighter))


@each_reweighter
def test_a_user_without_a_history_in_training_counts_in_full(build, arguments):
    assert weights_of(trained(build, arguments))[-2:].tolist() == [1.0, 1.0]
