"""Requests that filter are answered with the best of what they admit, whatever the index; blocked items never come."""

import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seqrec.catalog import Catalog
from seqrec.cli import main
from seqrec.data.errors import InputError
from seqrec.export.answers import recommend
from seqrec.export.bundle import build_recommender, write_bundle
from seqrec.export.filters import Filters, names_in
from seqrec.export.index_kinds import IndexKind
from seqrec.export.retriever import Retriever

pytest.importorskip("faiss")

N, DIM = 900, 8
RECIPE = {
    "class_path": "seqrec.recommenders.sequential.SequentialRecommender",
    "init_args": {
        "embedding": {"class_path": "seqrec.embeddings.ids.IdEmbedding", "init_args": {"dim": DIM, "init_std": 1.0}},
        "backbone": {"class_path": "seqrec.backbones.gru4rec.GRU4Rec", "init_args": {"dim": DIM}},
    },
}
KINDS = ["flat", "ivf", "hnsw"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("filters")
    ids = [f"{row:03d}" for row in range(N)]
    kinds = [[f"kind {row % 7}"] + (["rare"] if row % 100 == 3 else []) for row in range(N)]
    catalog = Catalog(pl.DataFrame({"item_id": ids, "count": [1] * N, "categories": [*kinds[:-1], None]}))
    torch.manual_seed(0)
    recommender = build_recommender(RECIPE, catalog)
    for kind in KINDS:
        write_bundle(recommender, folder / kind, recipe=RECIPE, config={}, max_length=20, index=IndexKind[kind])
    return folder


@pytest.fixture(scope="module")
def served(folder):
    return {kind: Retriever.load(folder / kind) for kind in KINDS}


def everything(served, history):
    """All items from best to worst, by the exact index."""
    return [item.item_id for item in served["flat"].recommend(history, N, exclude_seen=False)]


rows = st.integers(0, N - 1).map(lambda row: f"{row:03d}")


@settings(max_examples=40)
@given(
    history=st.lists(rows, min_size=1, max_size=8),
    allow=st.none() | st.sets(rows, max_size=40) | st.just({f"{row:03d}" for row in range(0, N, 2)}),
    deny=st.sets(rows, max_size=30),
    categories=st.none() | st.sets(st.sampled_from(["kind 0", "kind 5", "rare"]), min_size=1),
    blocked=st.sets(rows, max_size=20),
    exclude_seen=st.booleans(),
    k=st.sampled_from([1, 10, 60]),
)
def test_the_best_of_what_is_admitted(served, history, allow, deny, categories, blocked, exclude_seen, k):
    def admitted(item):
        row = int(item)
        mine = {f"kind {row % 7}"} | ({"rare"} if row % 100 == 3 else set()) if row < N - 1 else set()
        return (
            (allow is None or item in allow)
            and item not in deny
            and item not in blocked
            and (categories is None or bool(mine & categories))
            and not (exclude_seen and item in history)
        )

    served["flat"].blocked = ()
    expected = [item for item in everything(served, history) if admitted(item)][:k]
    filters = {"allow": allow, "deny": deny, "categories": categories}
    for kind, retriever in served.items():
        retriever.blocked = blocked
        found = [item.item_id for item in retriever.recommend(history, k, exclude_seen, **filters)]
        if kind == "flat" or allow is not None or deny or categories is not None:
            assert found == expected, kind
        else:
            assert len(found) == len(expected)
            assert not set(found) & blocked
        retriever.blocked = ()


def test_many_histories_share_the_filters(served):
    retriever = served["ivf"]
    histories = [["001", "002"], ["003"], ["899", "4"]]
    filters = {"categories": ["rare"], "deny": ["003"]}
    with pytest.warns(UserWarning, match="skipped: 4"):
        together = retriever.recommend_many(histories, 5, **filters)
    histories[2].remove("4")
    alone = [retriever.recommend(history, 5, **filters) for history in histories]
    assert [[item.item_id for item in answer] for answer in together] == [
        [item.item_id for item in answer] for answer in alone
    ]
    assert all(int(item.item_id) % 100 == 3 and item.item_id != "003" for answer in together for item in answer)


def test_what_nobody_knows_admits_nothing_and_denies_nothing(served):
    retriever = served["flat"]
    assert retriever.recommend(["001"], allow=["nonsense"]) == []
    assert retriever.recommend(["001"], allow=[]) == []
    assert retriever.recommend(["001"], deny=["nonsense"]) == retriever.recommend(["001"])
    with pytest.raises(InputError, match=r"deny is the text '001'; give a list, say \['001'\]"):
        retriever.recommend(["002"], deny="001")
    with pytest.raises(InputError, match="No item has the category 'rar', the nearest is 'rare'"):
        retriever.recommend(["001"], categories=["rar"])


def test_blocking_takes_effect_at_once_and_unknown_ids_are_named(served):
    retriever = served["flat"]
    (best, *_) = retriever.recommend(["001"], 3)
    retriever.blocked = [best.item_id]
    assert retriever.blocked == {best.item_id}
    assert best.item_id not in {item.item_id for item in retriever.recommend(["001"], N)}
    assert best.item_id not in {item.item_id for item in retriever.similar("001", N)}
    assert retriever.recommend([best.item_id], 3)  # it may still stand in a history
    with pytest.raises(InputError, match="'nonsense' is not an item of the bundle"):
        retriever.blocked = ["nonsense"]
    retriever.blocked = ()
    assert retriever.recommend(["001"], 3)[0] == best


@pytest.mark.parametrize("kind", KINDS)
def test_similar_items_are_nearest_by_cosine_and_not_the_item_itself(served, kind):
    retriever = served[kind]
    keys = retriever.index.keys
    cosines = torch.nn.functional.cosine_similarity(keys[[17]], keys)
    cosines[17] = -2
    found = retriever.similar("017", 12)
    assert [item.item_id for item in found] == [f"{row:03d}" for row in cosines.topk(12).indices.tolist()]
    torch.testing.assert_close(torch.tensor([item.score for item in found]), cosines.topk(12).values)
    with pytest.raises(InputError, match="'nonsense' is not in the catalog"):
        retriever.similar("nonsense")


def test_the_command_filters_too(folder, tmp_path, capsys):
    with pytest.warns(UserWarning, match=r"Not in the catalog, so neither allowed nor denied: nonsense\."):
        recommend(folder / "ivf", history="001,002", k=20, allow="003,103,nonsense", deny="103")
    printed = capsys.readouterr().out
    assert "003" in printed
    assert "103" not in printed
    pl.DataFrame({"user_id": ["a", "b"], "item_id": [["001"], ["003", "005"]]}).write_parquet(tmp_path / "in.parquet")
    out = tmp_path / "out.parquet"
    recommend(folder / "ivf", histories=tmp_path / "in.parquet", out=out, k=4, categories="rare", deny="103")
    answers = pl.read_parquet(out)
    assert answers.height == 8
    assert all(int(item) % 100 == 3 and item != "103" for item in answers["item_id"])


def test_names_with_commas_are_read_as_far_as_they_are_known():
    known = ["a", "Clothing, Shoes & Jewelry", "Clothing", "null"]
    assert names_in("Clothing, Shoes & Jewelry", known) == ["Clothing, Shoes & Jewelry"]
    assert names_in("a, Clothing, Shoes & Jewelry ,b,Clothing", known) == [
        "a",
        "Clothing, Shoes & Jewelry",
        "b",
        "Clothing",
    ]
    assert names_in(" ,a,, b ", known) == ["a", "b"]
    assert names_in("", known) == []


def test_ids_are_shown_as_they_are_and_null_is_an_id(tmp_path, capsys):
    ids = ["[a7]", "[/z]", "null", *(f"{row:08d}-bc00-0000-0000-000000000000" for row in range(5))]
    catalog = Catalog(
        pl.DataFrame({"item_id": ids, "title": [f"a long title {raw} " * 4 for raw in ids], "count": [1] * len(ids)})
    )
    where = tmp_path / "bundle"
    write_bundle(build_recommender(RECIPE, catalog), where, recipe=RECIPE, config={}, max_length=20)
    assert main(["recommend", f"--bundle={where}", "--history=null", "-k=20"]) == 0
    printed = capsys.readouterr().out
    assert all(raw in printed for raw in ids if raw != "null")
    assert main(["recommend", f"--bundle={where}", f"--history={ids[3]}", "-k=20", "--deny=null"]) == 0
    assert "title null" not in capsys.readouterr().out
    assert main(["recommend", f"--bundle={where}", f"--history={ids[3]}", "-k=20", "--allow=null"]) == 0
    printed = capsys.readouterr().out
    assert "title null" in printed
    assert ids[4] not in printed


def test_a_file_is_answered_with_all_items_however_many_are_asked_for(folder, tmp_path):
    pl.DataFrame({"user_id": ["a", "b"], "item_id": [["001"], ["003", "005"]]}).write_parquet(tmp_path / "in.parquet")
    out = tmp_path / "out.parquet"
    recommend(folder / "flat", histories=tmp_path / "in.parquet", out=out, k=10**9)
    assert pl.read_parquet(out).height == 2 * N - 3


def test_a_catalog_without_categories_says_so(tmp_path):
    catalog = Catalog(pl.DataFrame({"item_id": ["a", "b"], "count": [1, 1]}))
    write_bundle(build_recommender(RECIPE, catalog), tmp_path / "bundle", recipe=RECIPE, config={}, max_length=20)
    with pytest.raises(InputError, match="items of this bundle have no categories"):
        Retriever.load(tmp_path / "bundle").recommend(["a"], categories=["x"])


def test_categories_that_are_no_lists_are_named():
    catalog = Catalog(pl.DataFrame({"item_id": ["a"], "count": [1], "categories": ["x"]}))
    with pytest.raises(InputError, match="categories of this bundle are String, not lists of words"):
        Filters(catalog).admitted(None, (), ["x"])


def test_an_unknown_category_among_very_many_is_answered_briefly():
    kinds = [[f"kind {row:05d}"] for row in range(10_000)]
    catalog = Catalog(
        pl.DataFrame({"item_id": [f"{row}" for row in range(10_000)], "count": [1] * 10_000, "categories": kinds})
    )
    with pytest.raises(InputError, match="and 9,950 more; ask") as refusal:
        Filters(catalog).admitted(None, (), ["Shoes"])
    assert len(str(refusal.value)) < 2_000
