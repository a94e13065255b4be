"""LoRec: the algebra of its weights, its schedule, and that nothing flows between calibrator and recommender."""

import copy
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seqrec.audience import Audience, as_batch
from seqrec.backbones.mamba4rec import Mamba4Rec
from seqrec.backbones.sasrec import SASRec
from seqrec.catalog import Catalog
from seqrec.embeddings.ids import IdEmbedding
from seqrec.objectives import knowledge, standing
from seqrec.objectives.calibrator import Calibrator, seen_by
from seqrec.objectives.lorec import LoRec
from seqrec.recommenders.sequential import SequentialRecommender
from seqrec.semantics.questions import FraudQuestion
from seqrec.semantics.vectors import write_vectors
from seqrec.sequences import Sequences

N_ITEMS, N_USERS, N_FAKES = 40, 60, 6
CATALOG = Catalog(pl.DataFrame({"item_id": [f"i{row}" for row in range(N_ITEMS)], "count": [1] * N_ITEMS}))


def audience(seed=0) -> Audience:
    """Users who walk round a ring of twenty items; the last six jump about among all forty, as known fraudsters do."""
    random = np.random.default_rng(seed)

    def walk():
        return ((random.integers(20) + np.arange(random.integers(6, 15))) % 20).tolist()

    def jumps():
        return random.choice(N_ITEMS, random.integers(6, 15), replace=False).tolist()

    users = Sequences.pack([walk() for _ in range(N_USERS - N_FAKES)] + [jumps() for _ in range(N_FAKES)])
    return Audience(CATALOG, N_USERS, torch.arange(N_USERS), users, Sequences.pack([jumps() for _ in range(12)]))


def recommender(build=SASRec, **arguments) -> SequentialRecommender:
    torch.manual_seed(0)
    backbone = build(dim=8, **arguments)
    return SequentialRecommender(CATALOG, lambda catalog: IdEmbedding(catalog, 8, init_std=0.5), backbone).eval()


def read(model):
    return torch.no_grad()(model.encode)


@given(st.lists(st.sets(st.integers(0, 29), max_size=14), max_size=12))
def test_whatever_is_flagged_the_standing_sums_to_three_each_and_weights_lie_where_they_may(rounds):
    now = torch.full((30,), standing.FIRST, dtype=torch.double)
    for flags in rounds:
        flagged = torch.zeros(30, dtype=torch.bool)
        flagged[list(flags)] = True
        after = standing.moved(now, flagged)
        assert (after is None) == (len(flags) >= 10)
        now = now if after is None else after
        assert float(now.sum()) == pytest.approx(90)
        weights = standing.weights_of(now)
        assert (weights > 0).all()
        assert (weights <= 1 / torch.sigmoid(torch.tensor(3.0)) + 1e-6).all()
        assert not ((weights > 0.5) & (weights < 1)).any()


def test_the_weights_of_whole_steps_down_by_hand():
    weights = standing.weights_of(torch.tensor([3.0, 2.0, 1.0, 0.0, -1.0, -2.0], dtype=torch.double))
    assert weights.tolist() == pytest.approx([1, 1, 1, 1, 0.2823, 0.1251], abs=1e-4)
    assert standing.weights_of(torch.tensor([50.0], dtype=torch.double)).item() == pytest.approx(1.0498, abs=1e-4)


def begun(**arguments) -> LoRec:
    lorec = LoRec(batch_users=20, hidden_dim=8, **arguments)
    lorec.begin(audience)
    return lorec


def judge(lorec, epochs, fakes):
    scores = torch.full((N_USERS,), 0.1)
    scores[fakes] = 0.9
    lorec.update(epochs, scores, torch.zeros(N_USERS, dtype=torch.long), torch.zeros(N_USERS))


def test_an_oracle_puts_fakes_below_three_tenths_in_exactly_four_updates_and_nobody_else_below_one():
    lorec, fakes = begun(), torch.arange(N_USERS - N_FAKES, N_USERS)
    for number in range(1, 5):
        judge(lorec, 5 * number, fakes)
        weights = lorec.trail.weights[-1]
        assert bool((weights[fakes] < 0.3).all()) == (number == 4)
        assert (weights[: N_USERS - N_FAKES] >= 1).all()
    assert len(lorec.trail.epochs) == 4


def test_updates_fall_every_five_epochs_until_the_weights_count_and_every_ten_after_that():
    lorec = begun()
    for epoch in range(1, 66):
        if epoch >= lorec.due:
            judge(lorec, epoch, torch.tensor([1]))
    assert lorec.trail.epochs == [5, 10, 15, 20, 25, 30, 40, 50, 60]


def test_an_update_that_would_flag_a_third_changes_nothing_and_is_tried_again_an_epoch_later():
    lorec = begun()
    judge(lorec, 5, torch.arange(N_USERS // 3))
    assert lorec.due == 6
    assert (lorec.standing == 3).all()
    assert lorec.trail.epochs == []
    judge(lorec, 6, torch.arange(N_USERS // 3 - 1))
    assert lorec.due == 11


def test_weights_count_once_their_epoch_is_done():
    model = recommender()
    lorec = begun(active_from=2, period=1)
    for epoch, counts in ((1, False), (2, True)):
        lorec.end_epoch(epoch, read(model))
        assert (lorec.weights is not None) == counts


@pytest.mark.parametrize("build", [SASRec, Mamba4Rec])
def test_the_calibrator_learns_and_the_recommender_feels_nothing(build):
    model = recommender(build)
    lorec = begun(period=100)
    before = copy.deepcopy(model.state_dict())
    lorec.learn(
        torch.arange(N_USERS), torch.arange(12), lorec.look(model.encode)
    )  # even where gradients would be possible
    calibrator = lorec._learner[0][0]
    first = copy.deepcopy(calibrator.state_dict())
    lorec.learn(torch.arange(N_USERS), torch.arange(12), lorec.look(model.encode))
    assert not all(torch.equal(first[name], value) for name, value in calibrator.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_the_calibrator_lowers_the_loss_of_the_paper(tmp_path):
    """CE of everyone, the entropy of users alone, and the agreement with texts, which it raises."""
    file = tmp_path / "vectors.parquet"
    numbers = np.random.default_rng(0).standard_normal((N_ITEMS, 3)).astype("float32")
    pl.DataFrame({"item_id": CATALOG.ids, "vector": numbers.tolist()}).write_parquet(file)
    lorec = begun(period=100, vectors=str(file), dropout=0.0, entropy_weight=0.3, knowledge_weight=0.7, dim=8)
    users, known = torch.tensor([0, 7, 59, 3]), torch.tensor([2, 11])
    seen = lorec.look(read(recommender()))
    calibrator, _ = lorec._calibrator(seen)
    calibrator.train()
    vectors = calibrator(*lorec._seen_of(torch.cat([users, known + N_USERS]), seen))
    fake = calibrator.logits(vectors).double().sigmoid()
    right = torch.cat([1 - fake[:4], fake[4:]])
    entropy = -(fake * fake.log() + (1 - fake) * (1 - fake).log())[:4]
    histories = Sequences.concat([audience().histories.chosen(users), audience().fraudsters.chosen(known)])
    texts = torch.stack(
        [torch.from_numpy(numbers)[histories.items[histories.owners == row]].mean(0) for row in range(6)]
    )
    meant = torch.nn.functional.gelu(calibrator.knowledge(texts))
    agreement = torch.nn.functional.cosine_similarity(vectors, meant).mean()
    by_hand = -right.log().mean() + 0.3 * entropy.sum() / 6 - 0.7 * agreement
    torch.testing.assert_close(lorec.loss(users, known, seen).double(), by_hand, rtol=1e-4, atol=1e-4)


def test_a_step_of_the_recommender_leaves_the_calibrator_as_it_is():
    model, lorec = recommender().train(), begun(active_from=1, period=1)
    lorec.end_epoch(1, read(model))
    calibrator = lorec._learner[0][0]
    before = copy.deepcopy(calibrator.state_dict())
    calibrator.zero_grad()
    encoded = model.encode(replace(as_batch(audience().histories), users=torch.arange(N_USERS)))
    weighting = lorec(encoded)
    (weighting.weights * encoded.queries.sum(1)).sum().backward()
    assert all(weight.grad is None for weight in calibrator.parameters())
    assert all(torch.equal(before[name], value) for name, value in calibrator.state_dict().items())


def test_fakes_who_jump_about_are_found_beside_users_who_walk():
    model = recommender()
    lorec = begun(period=100, passes=20, learning_rate=1e-3)
    lorec.end_epoch(1, read(model))
    scores, nearest, similarity = lorec.scores(lorec.look(read(model)))
    genuine, fakes = scores.split([N_USERS - N_FAKES, N_FAKES])
    assert (fakes[:, None] > genuine).double().mean() > 0.85
    assert nearest.max() < 12
    assert similarity[-N_FAKES:].mean() > similarity[:-N_FAKES].mean()


def test_a_score_does_not_depend_on_who_else_is_scored():
    model, lorec = recommender(), begun(period=100)
    lorec.end_epoch(1, read(model))
    together = lorec.scores(lorec.look(read(model)))[0]
    lorec.batch_users = 7
    torch.testing.assert_close(lorec.scores(lorec.look(read(model)))[0], together)


def test_the_calibrator_counts_places_from_the_newest_event(monkeypatch):
    torch.manual_seed(0)
    calibrator = Calibrator(6, None, dim=8, n_layers=1, n_heads=2, hidden_dim=8, dropout=0.0).eval()
    monkeypatch.setattr(calibrator.last, "newest", lambda rows, whole: rows)
    seen, histories = torch.randn(5, 6), Sequences.pack([[0] * 2, [0] * 3])
    angles = torch.tensor([1, 0, 2, 1, 0])[:, None] * 10_000.0 ** -torch.tensor([0, 0.25, 0.5, 0.75])
    placed = calibrator.enter(seen / (1 + 1e-5) ** 0.5) + torch.cat([angles.sin(), angles.cos()], 1)
    expected = torch.cat([placed[:2], calibrator.asking[None], placed[2:], calibrator.asking[None]])
    torch.testing.assert_close(calibrator(seen, histories), expected)


def test_the_last_block_reads_the_learned_event_as_a_whole_block_would():
    torch.manual_seed(0)
    calibrator = Calibrator(6, None, dim=8, n_layers=1, n_heads=2, hidden_dim=8, dropout=0.0).eval()
    rows, histories = torch.randn(9, 8), Sequences.pack([[0] * 4, [0] * 5])
    whole = calibrator.last(rows, histories)[histories.newest]
    torch.testing.assert_close(calibrator.last.newest(rows, histories), whole)


def test_the_calibrator_sees_key_and_state_of_each_event_without_gradients():
    model = recommender()
    encoded = model.encode(as_batch(audience().histories))
    seen = seen_by(encoded)
    assert seen.shape == (encoded.states.shape[0], 16)
    assert not seen.requires_grad
    torch.testing.assert_close(seen[:, :8], model.embedding(encoded.batch.history.items))
    torch.testing.assert_close(seen[:, 8:], encoded.states)


def test_what_texts_say_of_a_user_is_their_mean_over_items_that_have_one(tmp_path):
    file = tmp_path / "vectors.parquet"
    pl.DataFrame({"item_id": ["i0", "i2", "else"], "vector": [[1.0, 0.0], [0.0, 3.0], [9.0, 9.0]]}).write_parquet(file)
    vectors = knowledge.text_vectors(str(file), CATALOG)
    assert vectors.shape == (N_ITEMS, 2)
    found = knowledge.of_users(vectors, Sequences.pack([[0, 2, 1], [0], [5]]))
    assert found.tolist() == [[0.5, 1.5], [1.0, 0.0], [0.0, 0.0]]


def test_how_a_text_fits_the_others_of_its_history_by_hand():
    vectors = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    found = knowledge.fit(vectors, Sequences.pack([[0, 1, 2], [0], [1, 3]]))
    half = 0.5**0.5
    # (1, 0) and the sum of (0, 1) and (h, h), and so on; those of the other histories have nothing to be compared with.
    first = torch.nn.functional.cosine_similarity(
        torch.tensor([[1.0, 0.0], [0.0, 1.0], [half, half]]),
        torch.tensor([[half, 1 + half], [1 + half, half], [1.0, 1.0]]),
    )
    torch.testing.assert_close(found[:3, 0], first)
    torch.testing.assert_close(found[3:, 0], first.mean().expand(3))


def test_what_fits_does_not_depend_on_the_histories_beside_it():
    histories = [torch.randint(0, 50, (n,)).tolist() for n in (3, 40, 7, 12) * 200]
    vectors = torch.randn(50, 5)
    together = knowledge.fit(vectors, Sequences.pack(histories))
    some = knowledge.fit(vectors, Sequences.pack(histories[600:]))
    torch.testing.assert_close(together[-len(some) :], some)


def test_few_events_at_a_time_say_the_same(monkeypatch):
    histories = Sequences.pack([torch.randint(0, 50, (n,)).tolist() for n in (3, 0, 40, 7, 12)])
    vectors = torch.randn(50, 5)
    whole = knowledge.fit(vectors, histories), knowledge.of_users(vectors, histories)
    monkeypatch.setattr(knowledge, "_EVENTS", 5)
    torch.testing.assert_close((knowledge.fit(vectors, histories), knowledge.of_users(vectors, histories)), whole)


def test_nothing_to_compare_fits_as_zero():
    assert knowledge.fit(torch.randn(3, 2), Sequences.pack([[0], [2]])).tolist() == [[0], [0]]


def test_what_fits_is_seen_without_asking_the_recommender(tmp_path):
    file = tmp_path / "vectors.parquet"
    random = np.random.default_rng(0)
    pl.DataFrame({"item_id": CATALOG.ids, "vector": random.standard_normal((N_ITEMS, 3)).tolist()}).write_parquet(file)
    lorec = begun(vectors=str(file), sees="fit", period=1)

    def never(_):
        raise AssertionError("the recommender was asked")

    lorec.end_epoch(1, never)
    texts = knowledge.text_vectors(str(file), CATALOG)
    parts = [knowledge.fit(texts, part) for part in (audience().histories, audience().fraudsters)]
    torch.testing.assert_close(lorec.look(never), torch.cat(parts))  # users first


def test_texts_may_lie_in_a_folder_of_the_embed_command_unless_it_quotes_other_training(tmp_path):
    ids = pl.DataFrame({"item_id": CATALOG.ids})
    vectors = np.random.default_rng(0).standard_normal((len(CATALOG), 3)).astype(np.float32)
    write_vectors(tmp_path / "v", ids, vectors, {"kind": "items"})
    assert np.array_equal(knowledge.text_vectors(str(tmp_path / "v"), CATALOG).numpy(), vectors)
    write_vectors(tmp_path / "q", ids, vectors, {"kind": "items", "quotes": 3, "training": "another"})
    with pytest.raises(ValueError, match="quote histories of another training part"):
        LoRec(vectors=str(tmp_path / "q")).begin(audience)


def test_what_is_asked_about_users_takes_the_place_of_their_items_texts(tmp_path):
    """The calibrator is to agree with the answers, of users and of known fraudsters, in their order."""
    asked = []

    class Lengths(FraudQuestion):
        def __init__(self):
            pass

        def about(self, histories, catalog):
            asked.append(histories)
            return torch.stack([histories.lengths.float(), torch.full((len(histories),), float(len(catalog)))], 1)

    lorec = begun(asks=Lengths(), period=1)
    (everyone,) = asked
    met = audience()
    assert everyone.items.tolist() == [*met.histories.items.tolist(), *met.fraudsters.items.tolist()]
    of_users, of_known = lorec._texts
    assert of_users[:, 0].tolist() == met.histories.lengths.tolist()
    assert of_known[:, 0].tolist() == met.fraudsters.lengths.tolist()
    lorec.end_epoch(1, read(recommender()))
    assert lorec._learner[0][0].knowledge.in_features == 2
    assert len(asked) == 1


def test_a_mistake_is_answered_with_the_remedy(tmp_path):
    with pytest.raises(ValueError, match="set sees to 'states', or to 'fit' and vectors"):
        LoRec(sees="fit")
    with pytest.raises(ValueError, match=r"data\.fraudsters"):
        LoRec().begin(lambda: Audience(CATALOG, 1, torch.arange(1), Sequences.pack([[1]]), Sequences.pack([])))
    with pytest.raises(ValueError, match="does not exist"):
        LoRec(vectors=str(tmp_path / "none.parquet")).begin(audience)
    with pytest.raises(ValueError, match="period of LoRec is 0"):
        LoRec(period=0)


def test_nobody_is_more_suspicious_than_others_who_are_just_as_suspicious():
    assert not standing.judged(torch.full((5,), 0.25)).any()
    assert standing.judged(torch.tensor([0.0, 0.5, 1.0])).tolist() == [False, False, True]
