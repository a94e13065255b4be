"""Answers from a bundle equal the recommender's own, for one history, for many and for a file."""

import random

import polars as pl
import pytest
import torch

from seqrec.catalog import Catalog
from seqrec.data.errors import InputError
from seqrec.export.answers import recommend
from seqrec.export.bundle import build_recommender, write_bundle
from seqrec.export.retriever import Retriever
from seqrec.sequences import Sequences

pytest.importorskip("faiss")

LENGTH = 20


def recipe(dim):
    return {
        "class_path": "seqrec.recommenders.sequential.SequentialRecommender",
        "init_args": {
            "embedding": {"class_path": "seqrec.embeddings.ids.IdEmbedding", "init_args": {"dim": dim}},
            "backbone": {"class_path": "seqrec.backbones.sasrec.SASRec", "init_args": {"dim": dim, "n_heads": 2}},
            "position": {
                "class_path": "seqrec.positions.learned.LearnedPosition",
                "init_args": {"dim": dim, "max_length": LENGTH},
            },
        },
    }


def exported(folder, catalog, dim=16, change=None):
    torch.manual_seed(0)
    recommender = build_recommender(recipe(dim), catalog).eval()
    if change is not None:
        with torch.no_grad():
            change(recommender)
    write_bundle(recommender, folder, recipe=recipe(dim), config={}, max_length=LENGTH)
    return recommender, Retriever.load(folder)


@pytest.fixture(scope="module")
def shop():
    ids = [f"{place:03d}" for place in range(300)]
    return Catalog(pl.DataFrame({"item_id": ids, "title": [f"thing {raw}" for raw in ids], "count": [1] * 300}))


@pytest.fixture(scope="module")
def served(tmp_path_factory, shop):
    return exported(tmp_path_factory.mktemp("served") / "bundle", shop)


def some_histories(catalog, n, longest=60):
    draw = random.Random(0)
    return [draw.choices(catalog.ids.to_list(), k=draw.randint(1, longest)) for _ in range(n)]


def expected(recommender, histories, k, exclude_seen=True):
    rows = [recommender.catalog.rows(history)[0] for history in histories]
    window = Sequences.pack([history[-LENGTH:] for history in rows])
    return recommender.recommend(window, k, Sequences.pack(rows) if exclude_seen else None)


@pytest.mark.parametrize("exclude_seen", [True, False])
@pytest.mark.parametrize("k", [1, 10, 300, 400])
def test_lists_equal_those_of_the_recommender(served, k, exclude_seen):
    recommender, retriever = served
    histories = some_histories(recommender.catalog, 50)
    own = expected(recommender, histories, k, exclude_seen)
    found = retriever.top_k(histories, k, exclude_seen)
    assert torch.equal(found.items, own.items)
    assert torch.equal(found.scores, own.scores)


def test_equal_keys_come_by_row_however_many_there_are(tmp_path, shop):
    def all_alike(recommender):
        recommender.embedding.table.weight[20:280] = recommender.embedding.table.weight[20]

    recommender, retriever = exported(tmp_path / "bundle", shop, change=all_alike)
    histories = some_histories(shop, 20)
    assert torch.equal(retriever.top_k(histories, 10).items, expected(recommender, histories, 10).items)


def test_an_answer_carries_raw_ids_titles_and_falling_scores(served):
    _, retriever = served
    answer = retriever.recommend(["007", "011"], k=5)
    assert len(answer) == 5
    assert all(item.title == f"thing {item.item_id}" for item in answer)
    assert [item.score for item in answer] == sorted((item.score for item in answer), reverse=True)
    assert not {"007", "011"} & {item.item_id for item in answer}


def test_whole_numbers_are_ids_by_their_digits(served):
    _, retriever = served
    assert retriever.recommend([107, 211], deny=[150]) == retriever.recommend(["107", "211"], deny=["150"])
    best = retriever.recommend(["107"])[0].item_id
    try:
        retriever.blocked = [int(best)]
        assert retriever.recommend([107])[0].item_id != best
    finally:
        retriever.blocked = []


def test_a_text_is_no_list_of_ids_and_no_list_is_longer_than_the_catalog(served):
    _, retriever = served
    with pytest.raises(InputError, match="history is the text '007'; give a list of ids"):
        retriever.recommend("007")
    with pytest.raises(InputError, match="blocked is the text '007'; give a list"):
        retriever.blocked = "007"
    assert len(retriever.recommend(["007"], k=10**12)) == 299


def test_unknown_ids_are_named_and_skipped(served):
    _, retriever = served
    with pytest.warns(UserWarning, match="skipped: nonsense, 7"):
        answer = retriever.recommend(["007", "nonsense", "011", "7"])
    assert answer == retriever.recommend(["007", "011"])


def test_a_history_without_a_known_item_has_no_answer(served):
    _, retriever = served
    with pytest.warns(UserWarning, match="skipped"), pytest.raises(InputError, match="None of the 1 items"):
        retriever.recommend(["nonsense"])
    with pytest.warns(UserWarning, match="skipped"):
        many = retriever.recommend_many([["nonsense"], [], ["007"]])
    assert [len(answer) for answer in many] == [0, 0, 10]


def test_an_answer_for_many_is_the_answer_for_each(served):
    _, retriever = served
    histories = some_histories(retriever.catalog, 7)
    together = retriever.recommend_many(histories)
    assert [[i.item_id for i in answer] for answer in together] == [
        [i.item_id for i in retriever.recommend(history)] for history in histories
    ]


def test_the_command_prints_a_table(served, tmp_path, shop, capsys):
    exported(tmp_path / "bundle", shop)
    recommend(tmp_path / "bundle", history="007, 011", k=3)
    printed = capsys.readouterr().out
    assert printed.count("thing") == 3


def test_the_command_answers_files_of_events_and_of_lists_alike(tmp_path, shop):
    _, retriever = exported(tmp_path / "bundle", shop)
    histories = some_histories(shop, 30)
    lists = pl.DataFrame({"user_id": range(30), "item_id": histories})
    lists.write_parquet(tmp_path / "lists.parquet")
    events = lists.explode("item_id").with_columns(timestamp=pl.int_range(pl.len()))
    events.sample(fraction=1.0, shuffle=True, seed=0).write_parquet(tmp_path / "events.parquet")
    for name in ("lists", "events"):
        recommend(
            tmp_path / "bundle", histories=tmp_path / f"{name}.parquet", out=tmp_path / f"{name}-out.parquet", k=4
        )
    answers = pl.read_parquet(tmp_path / "lists-out.parquet").sort("user_id", "rank")
    assert answers.equals(pl.read_parquet(tmp_path / "events-out.parquet").sort("user_id", "rank"))
    assert answers.columns == ["user_id", "rank", "item_id", "title", "score"]
    assert answers.filter(pl.col("user_id") == 3)["item_id"].to_list() == [
        item.item_id for item in retriever.recommend(histories[3], k=4)
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [".bundle.lock", "bundle", "lists.parquet", "events.parquet", "lists-out.parquet", "events-out.parquet"]
    )


def test_lists_of_one_length_may_be_arrays(tmp_path, shop):
    exported(tmp_path / "bundle", shop)
    lists = pl.DataFrame({"user_id": [1, 2], "item_id": [["007", "011"], ["020", "021"]]})
    lists.write_parquet(tmp_path / "lists.parquet")
    lists.with_columns(pl.col("item_id").list.to_array(2)).write_parquet(tmp_path / "arrays.parquet")
    for name in ("lists", "arrays"):
        recommend(
            tmp_path / "bundle", histories=tmp_path / f"{name}.parquet", out=tmp_path / f"{name}-out.parquet", k=4
        )
    assert pl.read_parquet(tmp_path / "lists-out.parquet").equals(pl.read_parquet(tmp_path / "arrays-out.parquet"))


def test_a_large_file_of_events_is_read_in_passes(tmp_path, shop, monkeypatch):
    exported(tmp_path / "bundle", shop)
    lists = pl.DataFrame({"user_id": [f"u{n}" for n in range(40)], "item_id": some_histories(shop, 40)})
    lists.explode("item_id").write_parquet(tmp_path / "events.parquet")
    recommend(tmp_path / "bundle", histories=tmp_path / "events.parquet", out=tmp_path / "whole.parquet")
    monkeypatch.setattr("seqrec.export.histories._EVENTS_PER_PASS", 100)
    monkeypatch.setattr("seqrec.export.histories._USERS_PER_PART", 3)
    recommend(tmp_path / "bundle", histories=tmp_path / "events.parquet", out=tmp_path / "passes.parquet")
    whole, passes = (
        pl.read_parquet(tmp_path / name).sort("user_id", "rank") for name in ("whole.parquet", "passes.parquet")
    )
    assert whole.drop("score").equals(passes.drop("score"))
    assert whole["user_id"].n_unique() == 40


def test_bad_questions_are_answered_with_a_sentence(tmp_path, shop):
    exported(tmp_path / "bundle", shop)
    pl.DataFrame({"user": ["a"], "item_id": ["007"]}).write_parquet(tmp_path / "wrong.parquet")
    (tmp_path / "text.parquet").write_text("user_id,item_id")
    with pytest.raises(InputError, match="Give either --history"):
        recommend(tmp_path / "bundle")
    for name, value in (("user", "ann"), ("history", "007"), ("times", "1")):
        with pytest.raises(InputError, match=f"many users and --{name} speaks of one; give either"):
            recommend(tmp_path, histories=tmp_path / "wrong.parquet", out=tmp_path / "out.parquet", **{name: value})
    with pytest.raises(InputError, match="belong together"):
        recommend(tmp_path / "bundle", histories=tmp_path / "wrong.parquet")
    with pytest.raises(
        InputError, match=r"--out is .*out\.csv, but what is written is Parquet; name it .*out\.parquet"
    ):
        recommend(tmp_path / "bundle", histories=tmp_path / "wrong.parquet", out=tmp_path / "out.csv")
    for name, complaint in (("wrong", "no column user_id"), ("text", "not a Parquet"), ("none", "does not exist")):
        with pytest.raises(InputError, match=complaint):
            recommend(tmp_path / "bundle", histories=tmp_path / f"{name}.parquet", out=tmp_path / "out.parquet")
    for column, complaint in (
        (["9", "10"], "the type String in the column timestamp; give whole seconds since 1970 or dates"),
        ([5, None], "an event without a time"),
    ):
        pl.DataFrame({"user_id": ["a"] * 2, "item_id": ["007"] * 2, "timestamp": column}).write_parquet(
            tmp_path / "t.parquet"
        )
        with pytest.raises(InputError, match=complaint):
            recommend(tmp_path / "bundle", histories=tmp_path / "t.parquet", out=tmp_path / "out.parquet")
    pl.DataFrame({"user_id": ["a"], "item_id": [{"x": "007"}]}).write_parquet(tmp_path / "t.parquet")
    with pytest.raises(InputError, match=r"ids of the type Struct.* write texts or whole numbers"):
        recommend(tmp_path / "bundle", histories=tmp_path / "t.parquet", out=tmp_path / "out.parquet")
    with pytest.raises(InputError, match="k is 0"):
        recommend(tmp_path / "bundle", history="007", k=0)
