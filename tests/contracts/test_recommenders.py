"""What every recommender must obey. A new one adds one line to ``CASES``."""

import io
from functools import partial

import polars as pl
import pytest
import torch

from seqrec.backbones.bert4rec import BERT4Rec
from seqrec.backbones.gru4rec import GRU4Rec
from seqrec.backbones.hmamba import HMamba
from seqrec.backbones.sasrec import SASRec
from seqrec.batch import Batch
from seqrec.catalog import Catalog
from seqrec.embeddings.ids import IdEmbedding
from seqrec.ops.ranking import target_ranks
from seqrec.positions.learned import InversePosition, LearnedPosition
from seqrec.recommenders.counting import CountingRecommender
from seqrec.recommenders.markov import Markov
from seqrec.recommenders.masked import MaskedRecommender
from seqrec.recommenders.popularity import Popularity, RecentPopularity
from seqrec.recommenders.sequential import SequentialRecommender
from seqrec.scorers import Cosine, Lorentz
from seqrec.sequences import Sequences

N_ITEMS, DIM = 60, 8
ids = partial(IdEmbedding, dim=DIM, init_std=0.7)

# The arguments are made anew for every recommender, behind the same seed.
CASES = [
    pytest.param(
        SequentialRecommender,
        lambda: {"embedding": ids, "backbone": SASRec(DIM), "position": InversePosition(DIM, 10)},
        id="SequentialRecommender",
    ),
    pytest.param(
        SequentialRecommender,
        lambda: {"embedding": ids, "backbone": HMamba(DIM), "scorer": Lorentz()},
        id="SequentialRecommender, Lorentz",
    ),
    pytest.param(
        SequentialRecommender,
        lambda: {"embedding": ids, "backbone": GRU4Rec(DIM), "scorer": Cosine(), "scales_input": True},
        id="SequentialRecommender, Cosine",
    ),
    pytest.param(
        SequentialRecommender,
        lambda: {"embedding": ids, "backbone": GRU4Rec(DIM), "output": ids},
        id="SequentialRecommender, keys of their own",
    ),
    pytest.param(
        SequentialRecommender,
        lambda: {"embedding": ids, "backbone": BERT4Rec(DIM, init_std=0.3)},
        id="SequentialRecommender, not causal",
    ),
    pytest.param(
        MaskedRecommender,
        lambda: {
            "embedding": ids,
            "backbone": BERT4Rec(DIM, init_std=0.3),
            "position": LearnedPosition(DIM, 10, init_std=1.0),
            "init_std": 1.0,
        },
        id="MaskedRecommender",
    ),
    pytest.param(Markov, dict, id="Markov"),
    pytest.param(Popularity, dict, id="Popularity"),
    pytest.param(RecentPopularity, lambda: {"days": 30.0}, id="RecentPopularity"),
]
each_recommender = pytest.mark.parametrize(("build", "arguments"), CASES)

HISTORIES = [[3, 1, 4], [1], [5, 9, 2, 6, 5, 5], [7, 7]]
# Items of the history and others, nothing, the whole catalog, and one item twice.
SEEN = [[3, 1, 4, 11, 0], [], [*range(N_ITEMS)], [7, 7, 2]]
TARGETS = [[2], [9], [0], [13]]

# One long history in which no two items follow equally often: counting makes no ties.
COUNTS = torch.randperm(N_ITEMS, generator=torch.Generator().manual_seed(1))
FOLLOWED = torch.arange(N_ITEMS).repeat_interleave(COUNTS)
FOLLOWED = FOLLOWED[torch.randperm(FOLLOWED.numel(), generator=torch.Generator().manual_seed(2))]
TRAINING = Batch(
    users=torch.arange(1),
    history=Sequences(FOLLOWED.roll(1), torch.tensor([0, FOLLOWED.numel()]), 60 * torch.arange(FOLLOWED.numel())),
    predict_at=torch.arange(FOLLOWED.numel()),
    targets=FOLLOWED,
    asked_at=60 * torch.arange(1, FOLLOWED.numel() + 1),
)
CATALOG = Catalog(pl.DataFrame({"item_id": [f"i{row}" for row in range(N_ITEMS)], "count": COUNTS.numpy()}))


def untaught(build, arguments, seed=0):
    torch.manual_seed(seed)
    return build(CATALOG, **arguments()).eval()


def ready(build, arguments):
    recommender = untaught(build, arguments)
    if isinstance(recommender, CountingRecommender):
        recommender.count(TRAINING)
        recommender.finish()
    return recommender


def pack(histories):
    return Sequences.pack(histories, times=[[60 * place for place in range(len(history))] for history in histories])


def asking(histories, targets, seen=None):
    """A batch that asks for every one of ``targets[b]`` behind the newest event of history b."""
    history, n_targets = pack(histories), [len(asked) for asked in targets]
    repeated = None
    if seen is not None:
        repeated = Sequences.pack([left_out for left_out, n in zip(seen, n_targets, strict=True) for _ in range(n)])
    return Batch(
        users=torch.arange(len(history)),
        history=history,
        predict_at=history.newest.repeat_interleave(torch.tensor(n_targets, dtype=torch.long)),
        targets=torch.tensor([item for asked in targets for item in asked], dtype=torch.long),
        asked_at=torch.full((sum(n_targets),), 3600),
        seen=repeated,
    )


def answers(recommender):
    """Every list and every rank that can be asked for behind the histories."""
    best = recommender.recommend(pack(HISTORIES), N_ITEMS, Sequences.pack(SEEN))
    ranks = recommender.ranks(asking(HISTORIES, [range(N_ITEMS)] * len(HISTORIES), SEEN))
    return best.items, best.scores, ranks.view(len(HISTORIES), N_ITEMS)


@each_recommender
def test_a_target_of_rank_r_stands_at_place_r_of_the_list(build, arguments):
    recommender = ready(build, arguments)
    lists = recommender.recommend(pack(HISTORIES), N_ITEMS).items
    assert torch.equal(lists.sort(dim=1).values, torch.arange(N_ITEMS).expand_as(lists))
    ranks = recommender.ranks(asking(HISTORIES, lists.tolist())).view_as(lists)
    assert torch.equal(ranks, torch.arange(N_ITEMS).expand_as(lists))


@each_recommender
def test_what_was_seen_is_no_rival_and_is_not_recommended_and_the_rest_keeps_its_order(build, arguments):
    recommender = ready(build, arguments)
    everything = recommender.recommend(pack(HISTORIES), N_ITEMS).items.tolist()
    lists, _, ranks = answers(recommender)
    for row, (best, seen) in enumerate(zip(everything, SEEN, strict=True)):
        left = [item for item in best if item not in seen]
        assert [item for item in lists[row].tolist() if item >= 0] == left
        before = [sum(item not in seen for item in best[: best.index(target)]) for target in range(N_ITEMS)]
        assert ranks[row].tolist() == before  # also where the target itself was seen


@each_recommender
def test_a_shorter_list_is_the_beginning_of_a_longer_one_and_what_is_missing_is_marked(build, arguments):
    recommender, history, seen = ready(build, arguments), pack(HISTORIES), Sequences.pack(SEEN)
    longest = recommender.recommend(history, N_ITEMS + 5, seen)
    assert longest.items.shape == longest.scores.shape == (len(HISTORIES), N_ITEMS + 5)
    assert (longest.items >= 0).sum(1).tolist() == [N_ITEMS - len(set(items)) for items in SEEN]
    assert torch.equal(longest.items == -1, longest.scores == -torch.inf)
    assert not longest.scores.isnan().any()
    assert (longest.scores[:, :-1] >= longest.scores[:, 1:]).all()
    for k in (1, 5, N_ITEMS):
        best = recommender.recommend(history, k, seen)
        assert torch.equal(best.items, longest.items[:, :k])
        assert torch.equal(best.scores, longest.scores[:, :k])
    with pytest.raises(ValueError, match="k is 0"):
        recommender.recommend(history, 0, seen)


@each_recommender
def test_no_answer_depends_on_what_else_is_asked_at_the_same_time(build, arguments):
    recommender = ready(build, arguments)
    together, ranks = recommender.recommend(pack(HISTORIES), 7), recommender.ranks(asking(HISTORIES, TARGETS, SEEN))
    backwards = recommender.recommend(pack(HISTORIES[::-1]), 7)
    assert torch.equal(backwards.items.flip(0), together.items)
    assert torch.equal(recommender.ranks(asking(HISTORIES[::-1], TARGETS[::-1], SEEN[::-1])).flip(0), ranks)
    for row, (history, targets, seen) in enumerate(zip(HISTORIES, TARGETS, SEEN, strict=True)):
        alone = recommender.recommend(pack([history]), 7)
        assert torch.equal(alone.items[0], together.items[row])
        torch.testing.assert_close(alone.scores[0], together.scores[row], rtol=1e-4, atol=1e-4)
        assert recommender.ranks(asking([history], [targets], [seen])).tolist() == [ranks[row]]


@each_recommender
def test_what_comes_later_changes_no_rank_where_it_declares_itself_causal(build, arguments):
    recommender = ready(build, arguments)
    if not recommender.causal:
        pytest.skip(f"{build.__name__} declares that it reads later events")

    def ranks(history):
        packed = pack([history])
        at = torch.arange(3).repeat_interleave(N_ITEMS)
        each_item = torch.arange(N_ITEMS).repeat(3)
        return recommender.ranks(Batch(torch.arange(1), packed, at, each_item, torch.full((3 * N_ITEMS,), 3600)))

    assert torch.equal(ranks([5, 9, 2, 6, 5, 5]), ranks([5, 9, 2, 0, 17, 1]))


@each_recommender
def test_a_history_without_events_is_refused_or_answered_without_its_neighbours(build, arguments):
    recommender = ready(build, arguments)

    def answer(histories, row):
        try:
            return recommender.recommend(pack(histories), N_ITEMS).items[row].tolist()
        except ValueError as refusal:
            return str(refusal)

    alone = answer([[]], 0)
    assert answer([[], [3, 1]], 0) == answer([[], [9], [2]], 0) == alone
    assert isinstance(alone, list) or alone.endswith(".")


@each_recommender
def test_nothing_is_asked_in_an_empty_batch_and_nothing_answered(build, arguments):
    recommender = ready(build, arguments)
    best = recommender.recommend(pack([]), 3, Sequences.pack([]))
    assert best.items.shape == best.scores.shape == (0, 3)
    assert recommender.ranks(asking([], [], [])).shape == (0,)


@each_recommender
def test_scores_that_are_not_finite_raise(build, arguments):
    recommender = ready(build, arguments)
    parameters = list(recommender.parameters())
    if not parameters:
        pytest.skip(f"{build.__name__} has no parameter; its scores are sums of whole numbers")
    with torch.no_grad():
        for parameter in parameters:
            parameter.fill_(torch.nan)
    with pytest.raises(FloatingPointError):
        recommender.ranks(asking(HISTORIES, TARGETS))
    with pytest.raises(FloatingPointError):
        recommender.recommend(pack(HISTORIES), 3)


@each_recommender
def test_to_be_asked_changes_nothing_and_leaves_no_gradients(build, arguments):
    recommender = ready(build, arguments)
    before = {name: value.clone() for name, value in recommender.state_dict().items()}
    first, again = answers(recommender), answers(recommender)
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one, other)
        assert not one.requires_grad
    for name, value in recommender.state_dict().items():
        assert torch.equal(value, before[name]), name


@each_recommender
def test_evaluation_is_in_full_precision_whatever_that_of_training(build, arguments):
    recommender = ready(build, arguments)
    exact = answers(recommender)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        narrow = answers(recommender)
    assert all(torch.equal(one, other) for one, other in zip(exact, narrow, strict=True))


@each_recommender
def test_what_it_learned_travels_with_the_checkpoint(build, arguments):
    recommender, other, file = ready(build, arguments), untaught(build, arguments, seed=1), io.BytesIO()
    torch.save(recommender.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    for one, another in zip(answers(recommender), answers(other), strict=True):
        assert torch.equal(one, another)


@each_recommender
def test_what_is_trained_is_what_is_ranked(build, arguments):
    recommender, batch = ready(build, arguments), asking(HISTORIES, TARGETS)
    try:
        encoded = recommender.encode(Batch(**{**vars(batch), "hidden": batch.predict_at}))
    except TypeError as refusal:
        pytest.skip(str(refusal))
    keys, rows = encoded.keys(None), torch.tensor([7, 0, 7])
    assert encoded.states.shape[0] == batch.predict_at.numel()
    assert encoded.queries.shape == (4, keys.shape[1])
    assert keys.shape[0] == N_ITEMS
    torch.testing.assert_close(encoded.keys(rows), keys[rows])
    assert torch.equal(encoded.counts, COUNTS)
    if not recommender.learns_hidden_events:  # those that do are asked by a mask behind the history
        found = target_ranks(encoded.queries, keys, batch.targets)
        assert torch.equal(found, recommender.ranks(batch))
