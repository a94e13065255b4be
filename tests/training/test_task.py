"""One training step: the loss is the weighted mean, plug-ins add their terms, and impossible runs are refused."""

import warnings
from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import Mock

import polars as pl
import pytest
import torch
from lightning import Trainer
from torch import nn

from seqrec.batch import Batch
from seqrec.catalog import Catalog
from seqrec.data.supervision import EveryEventWithinSegments
from seqrec.nn.hyperbolic import LearnedCurvature
from seqrec.nn.mamba import Mamba
from seqrec.nn.mamba2 import Mamba2
from seqrec.objectives.base import Auxiliary, Objective, Reweighter, Weighting
from seqrec.objectives.info_nce import InfoNCE
from seqrec.recommenders.base import Encoded, Recommender, TopK
from seqrec.sequences import Sequences
from seqrec.training.task import NextItemTask

N = 5
BATCH = Batch(
    users=torch.arange(2),
    history=Sequences.pack([[0, 1], [2]]),
    predict_at=torch.arange(3),
    targets=torch.tensor([1, 2, 3]),
)


class Table(Recommender):
    """A query per item, learned directly."""

    def __init__(self, catalog: Catalog) -> None:
        super().__init__(catalog)
        self.vectors = nn.Parameter(torch.randn(len(catalog), 4, generator=torch.Generator().manual_seed(0)))

    def encode(self, batch: Batch) -> Encoded:
        states = self.vectors[batch.history.items]
        return Encoded(batch, states, states[batch.predict_at], lambda rows: self.vectors, self.counts)

    def ranks(self, batch: Batch) -> torch.Tensor:
        return batch.targets

    def recommend(self, history: Sequences, k: int, seen: Sequences | None = None) -> TopK:
        return TopK(torch.zeros(len(history), k, dtype=torch.long), torch.zeros(len(history), k))


class PastAndFuture(Table):
    causal = False


class SquaredQuery(Objective):
    def forward(self, encoded: Encoded):
        return encoded.queries.square().sum(1)


class GapFiller(PastAndFuture):
    learns_hidden_events = True


class FirstCountsTwice(Reweighter):
    def forward(self, encoded: Encoded) -> Weighting:
        return Weighting(torch.tensor([2.0, 1.0, 1.0]), torch.tensor(0.5))


class Seven(Auxiliary):
    name, weight = "seven", 0.1

    def forward(self, encoded: Encoded):
        return torch.tensor(7.0)


def task(recommender=Table, **arguments) -> NextItemTask:
    catalog = Catalog(pl.DataFrame({"item_id": [str(n) for n in range(N)], "count": [1] * N}))
    made = NextItemTask(catalog, recommender, SquaredQuery(), **arguments)
    made._trainer = SimpleNamespace(world_size=1, log_every_n_steps=1, global_step=0)
    made._fabric = None
    made.all_gather = lambda data, sync_grads: data
    made.log = lambda *_, **__: None
    return made


def losses(made: NextItemTask) -> torch.Tensor:
    return made.recommender.vectors[torch.tensor([0, 1, 2])].square().sum(1)


def test_the_loss_is_the_mean_over_predictions():
    made = task()
    torch.testing.assert_close(made.training_step(BATCH, 0), losses(made).mean())


class Peeks(Table):
    """A state knows the item after its event, also where that is of another history."""

    def encode(self, batch: Batch) -> Encoded:
        items = batch.history.items
        states = self.vectors[items] + 0.02 * self.vectors[items.roll(-1)]
        return Encoded(batch, states, states[batch.predict_at], lambda rows: self.vectors, self.counts)


def test_a_model_that_sees_what_comes_and_says_it_does_not_is_refused():
    made = task(Peeks)
    with pytest.raises(ValueError, match=r"Peeks says that it is causal, but other items later .* read its own an"):
        made.training_step(BATCH, 0)
    made.recommender.train()
    task().training_step(BATCH, 0)
    honest = task(type("Honest", (Peeks,), {"causal": False}))
    honest.training_step(BATCH, 0)


def test_the_look_for_what_comes_leaves_no_trace():
    made = task()
    made.recommender.train()
    state = torch.get_rng_state()
    made.training_step(BATCH, 0)
    assert torch.equal(torch.get_rng_state(), state)
    assert made.recommender.training


class Listing(Table):
    """Keeps what it was asked for."""

    def recommend(self, history: Sequences, k: int, seen: Sequences | None = None) -> TopK:
        self.asked = k, seen
        return super().recommend(history, k, seen)


def test_the_lists_of_a_test_leave_out_what_its_ranks_leave_out():
    made, seen = task(Listing, cutoffs=(1, 3)), Sequences.pack([[0, 4], [2]])
    asking = replace(BATCH, predict_at=BATCH.history.newest, targets=torch.tensor([2, 3]), seen=seen)
    made.test_step(asking, 0)
    assert made.recommender.asked == (3, seen)
    made.test_step(replace(asking, seen=None), 0)  # where a protocol ranks what users have
    assert made.recommender.asked == (3, None)


def test_an_objective_that_has_averaged_already_is_told_so():
    made = task()
    made.objective = type("Mean", (SquaredQuery,), {"forward": lambda self, encoded: encoded.queries.mean()})()
    with pytest.raises(ValueError, match=r"Mean returned losses of shape \(\); return one for each of the 3 predict"):
        made.training_step(BATCH, 0)


def test_a_loss_that_is_no_number_ends_training_at_once():
    made = task()
    made.objective = type("Log", (SquaredQuery,), {"forward": lambda self, encoded: -encoded.queries[:, 0].log()})()
    made.recommender.vectors.data.zero_()
    with pytest.raises(FloatingPointError, match=r"The loss is inf after 0 steps, by Log; lower model\.learning_rate"):
        made.training_step(BATCH, 0)


def test_weights_penalties_and_auxiliaries_join_in():
    made = task(reweighter=FirstCountsTwice(), auxiliaries=[Seven()])
    expected = (losses(made) * torch.tensor([2.0, 1.0, 1.0])).sum() / 4 + 0.5 + 0.7
    torch.testing.assert_close(made.training_step(BATCH, 0), expected)


def test_the_objective_is_told_the_weights_that_its_losses_get():
    told = []

    class Listens(SquaredQuery):
        def forward(self, encoded: Encoded):
            told.append(encoded.weights.tolist())
            return super().forward(encoded)

    made = task(reweighter=FirstCountsTwice())
    made.objective = Listens()
    made.training_step(BATCH, 0)
    assert told == [[2.0, 1.0, 1.0]]


def supervise(made: NextItemTask, predicts_every_event: bool, target_lag: int, precision: str = "32-true") -> None:
    supervision = SimpleNamespace(predicts_every_event=predicts_every_event, target_lag=target_lag, segments=None)
    data = SimpleNamespace(supervision=supervision, max_length=50)
    made._trainer = SimpleNamespace(datamodule=data, precision=precision)


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true"])
def test_a_precision_that_would_round_positions_is_refused(precision):
    made = task(Table)
    supervise(made, predicts_every_event=True, target_lag=1, precision=precision)
    with pytest.raises(
        ValueError, match=f"trainer.precision is {precision}, which .* pass --trainer.precision bf16-mixed"
    ):
        made.on_fit_start()


@pytest.mark.parametrize(
    ("processor", "precision", "is_slow"),
    [("AVX2", "bf16-mixed", True), ("AVX2", "32-true", False), ("AVX512", "bf16-mixed", False)],
)
def test_half_precision_that_the_processor_only_emulates_is_warned_of(monkeypatch, processor, precision, is_slow):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: processor)
    made = task(Table)
    supervise(made, predicts_every_event=True, target_lag=1, precision=precision)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        made.on_fit_start()
    assert ["--trainer.precision 32-true" in str(each.message) for each in said] == [True] * is_slow


@pytest.mark.parametrize("predicts_every_event", [True, False])
def test_a_model_that_sees_later_events_may_not_predict_every_event(predicts_every_event):
    made = task(PastAndFuture)
    supervise(made, predicts_every_event, target_lag=1)
    if predicts_every_event:
        with pytest.raises(ValueError, match="NewestEvent"):
            made.on_fit_start()
    else:
        made.on_fit_start()


@pytest.mark.parametrize(
    ("recommender", "target_lag", "remedy"),
    [
        (Table, 0, "EveryEvent"),
        (PastAndFuture, 0, "NewestEvent"),
        (GapFiller, 1, "MaskedEvents"),
        (GapFiller, 0, None),
    ],
)
def test_hidden_events_and_models_that_learn_from_them_go_together(recommender, target_lag, remedy):
    made = task(recommender)
    supervise(made, predicts_every_event=False, target_lag=target_lag)
    if remedy:
        with pytest.raises(ValueError, match=remedy):
            made.on_fit_start()
    else:
        made.on_fit_start()


@pytest.mark.parametrize(
    ("most", "longest", "is_refused"), [(200, None, True), (200, 201, True), (200, 200, False), (None, None, False)]
)
def test_a_window_needs_a_position_that_reads_it(monkeypatch, most, longest, is_refused):
    monkeypatch.setattr(Table, "max_length", most)
    made = task(Table)
    supervise(made, predicts_every_event=True, target_lag=1)
    made.trainer.datamodule.max_length = longest
    if is_refused:
        with pytest.raises(ValueError, match=r"places for 200 events; set data\.max_length to at most 200"):
            made.on_fit_start()
    else:
        made.on_fit_start()


@pytest.mark.parametrize(("leaves_room", "fits"), [(49, True), (50, False), (51, False)])
def test_a_window_that_leaves_nothing_to_compress_is_warned_of(monkeypatch, leaves_room, fits):
    monkeypatch.setattr(Table, "leaves_room", leaves_room)
    made = task(Table)
    supervise(made, predicts_every_event=True, target_lag=1)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        made.on_fit_start()
    told = [f"newest {leaves_room} events" in str(each.message) for each in said]
    assert told == ([] if fits else [True])


@pytest.mark.parametrize(
    ("backbone", "refusal"),
    [
        (SimpleNamespace(n_recent=5, n_segments=2), None),
        (SimpleNamespace(n_recent=5, n_segments=1), "has n_recent 5 and n_segments 2, but the backbone .* has 5 and 1"),
        (None, "has None and None; give both the same, or set data.supervision"),
    ],
)
def test_segments_that_are_left_out_are_those_of_the_backbone(backbone, refusal):
    made = task(Table)
    supervise(made, predicts_every_event=True, target_lag=1)
    made.trainer.datamodule.supervision = EveryEventWithinSegments(n_recent=5, n_segments=2)
    made.recommender.backbone = backbone
    if refusal:
        with pytest.raises(ValueError, match=refusal):
            made.on_fit_start()
    else:
        made.on_fit_start()


def test_a_learning_rate_that_cannot_learn_is_refused():
    with pytest.raises(ValueError, match="above 0"):
        task(learning_rate=0.0)


def test_weight_decay_spares_what_parts_name_and_pulls_all_else():
    class Read(Table):
        def __init__(self, catalog):
            super().__init__(catalog)
            self.parts = nn.ModuleList([Mamba(8), Mamba2(8, n_heads=2), LearnedCurvature(2.0), InfoNCE()])

    made = task(Read, weight_decay=0.5, learning_rate=0.1)
    made._trainer = Mock(spec=Trainer, estimated_stepping_batches=10, gradient_clip_val=None, precision="32-true")
    optimizer = made.configure_optimizers()["optimizer"]
    before = {name: weight.detach().clone() for name, weight in made.named_parameters()}
    for weight in made.parameters():
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    after = dict(made.named_parameters())
    kept = {name for name, weight in before.items() if weight.any() and torch.equal(weight, after[name])}
    parts = "recommender.parts."
    assert kept == {
        *(f"{parts}{name}" for name in ("0.decay_log", "0.skip", "1.decay_log", "1.skip", "1.step_bias")),
        *(f"{parts}{name}" for name in ("2.raw", "3.log_scale")),
    }
    for name in before.keys() - kept:
        torch.testing.assert_close(after[name], 0.95 * before[name])


def test_adam_goes_by_the_rates_it_is_told():
    made = task(learning_rate=0.25, betas=(0.5, 0.75))
    made._trainer = Mock(spec=Trainer, estimated_stepping_batches=10, gradient_clip_val=None, precision="32-true")
    (group,) = made.configure_optimizers()["optimizer"].param_groups
    assert (group["lr"], group["betas"]) == (0.25, (0.5, 0.75))
