"""A bundle that remembers users answers as one that reads their whole history, and only for its own model."""

import json
import shutil
from dataclasses import replace

import polars as pl
import pytest
import torch

from seqrec.catalog import Catalog
from seqrec.data.errors import InputError
from seqrec.export import bundle as room
from seqrec.export.bundle import build_recommender, read_bundle, write_bundle
from seqrec.export.manifest import read_fields, write_manifest
from seqrec.export.retriever import Retriever
from seqrec.export.users import Users, fingerprint, remember_users
from seqrec.sequences import Sequences

pytest.importorskip("faiss")

LENGTH, RECENT, DIM = 30, 8, 16


def recipe(inner="seqrec.backbones.sasrec.SASRec", arguments=None, n_recent=RECENT):
    inside = {"class_path": inner, "init_args": {"dim": DIM, **(arguments or {})}}
    place = {"class_path": "seqrec.positions.learned.LearnedPosition", "init_args": {"dim": DIM, "max_length": LENGTH}}
    return {
        "class_path": "seqrec.recommenders.sequential.SequentialRecommender",
        "init_args": {
            "embedding": {
                "class_path": "seqrec.embeddings.ids.IdEmbedding",
                "init_args": {"dim": DIM, "init_std": 1.0},
            },
            "backbone": {
                "class_path": "seqrec.backbones.compressed.Compressed",
                "init_args": {"inner": inside, "n_recent": n_recent, "init_std": 1.0},
            },
            "position": place,
        },
    }


TIMED = {
    "n_heads": 2,
    "position": {
        "class_path": "seqrec.positions.stacked.Stacked",
        "init_args": {
            "positions": [
                {"class_path": "seqrec.positions.relative.RelativeBias"},
                {"class_path": "seqrec.positions.time_bias.TimeBias"},
            ]
        },
    },
}


@pytest.fixture(scope="module")
def catalog():
    ids = [f"{place:03d}" for place in range(100)]
    return Catalog(pl.DataFrame({"item_id": ids, "title": [f"thing {raw}" for raw in ids], "count": [1] * 100}))


def exported(folder, catalog, described, pasts):
    torch.manual_seed(0)
    recommender = build_recommender(described, catalog).eval()
    window = Sequences.pack([items for items, _ in pasts.values()], [clock for _, clock in pasts.values()])
    newest = window.newest[window.lengths > 0]
    window = window.asking(newest, window.times[newest])
    users = remember_users(recommender, [(list(pasts), window, window)], described)
    write_bundle(recommender, folder, recipe=described, config={}, max_length=LENGTH, users=users)
    return Retriever.load(folder)


def some_pasts(longest=LENGTH - RECENT):
    draw = torch.Generator().manual_seed(0)
    pasts = {}
    for name, n in {"ann": longest, "bob": 1, "cid": 9}.items():
        items = torch.randperm(60, generator=draw)[:n].tolist()
        pasts[name] = items, (torch.randint(1, 5_000, (n,), generator=draw).cumsum(0) + 1_600_000_000).tolist()
    return pasts


@pytest.mark.parametrize(
    ("inner", "arguments"),
    [
        ("seqrec.backbones.sasrec.SASRec", {}),
        ("seqrec.backbones.ligr.LiGR", {"position": {"class_path": "seqrec.positions.rotary.RotaryPosition"}}),
        ("seqrec.backbones.hstu.HSTU", TIMED),
    ],
    ids=["SASRec", "LiGR, rotary", "HSTU, times"],
)
def test_a_remembered_user_is_answered_as_if_their_whole_history_were_read(tmp_path, catalog, inner, arguments):
    pasts = some_pasts()
    retriever = exported(tmp_path / "bundle", catalog, recipe(inner, arguments), pasts)
    recent = [70, 71, 72, 73, 74, 75, 76, 77]  # as many as a full pass reads as recent ones
    since = [1_700_000_000 + 1000 * place for place in range(RECENT)]
    for name, (items, clock) in pasts.items():
        ids = [catalog.ids[row] for row in [*items, *recent]]
        whole = retriever.recommend(ids, 10, times=[*clock, *since], asked_at=1_800_000_000)
        resumed = retriever.recommend_user(name, ids[len(items) :], 10, times=since, asked_at=1_800_000_000)
        assert [each.item_id for each in resumed] == [each.item_id for each in whole]
        torch.testing.assert_close(*(torch.tensor([each.score for each in some]) for some in (resumed, whole)))


def test_milliseconds_are_not_taken_for_seconds(tmp_path, catalog):
    retriever = exported(tmp_path / "bundle", catalog, recipe("seqrec.backbones.hstu.HSTU", TIMED), some_pasts())
    second = 1_700_000_000
    for times, asked_at in (([second, second * 1000], second), ([second, second], second * 1000)):
        with pytest.raises(InputError, match="The time 1700000000000 lies beyond the year 2100; give whole seconds"):
            retriever.recommend(catalog.ids[:2].to_list(), 5, times=times, asked_at=asked_at)
    with pytest.raises(InputError, match="The time 1700000000000 lies beyond"):
        retriever.recommend_user("cid", catalog.ids[:1].to_list(), times=[second * 1000], asked_at=second)


def test_a_user_who_did_nothing_since_is_answered_as_in_the_evaluation(tmp_path, catalog):
    pasts = some_pasts(longest=LENGTH)
    retriever = exported(tmp_path / "bundle", catalog, recipe(), pasts)
    for name, (items, _) in pasts.items():
        same(retriever.recommend_user(name, k=5), retriever.recommend([catalog.ids[row] for row in items], k=5))
    assert not {each.item_id for each in retriever.recommend_user("cid", k=5)} & {
        catalog.ids[row] for row in pasts["cid"][0]
    }


@pytest.mark.parametrize("tokens_predict", [True, False])
@torch.no_grad()
def test_a_user_who_did_nothing_since_is_answered_without_times_as_right_after_remembering(
    tmp_path, catalog, tokens_predict
):
    described, pasts = recipe("seqrec.backbones.hstu.HSTU", TIMED), some_pasts()
    described["init_args"]["backbone"]["init_args"]["tokens_predict"] = tokens_predict
    retriever = exported(tmp_path / "bundle", catalog, described, pasts)
    for name, (items, clock) in pasts.items():
        window = Sequences.pack([items], [clock])
        for later in (0, 200_000_000):  # nothing that is remembered depends on when what follows is asked for
            asking = window.asking(window.newest, window.times[window.newest] + later)
            (expected,) = retriever.following(retriever.recommender.remember(asking).newest, [items], 10)
            same(retriever.recommend_user(name), expected)
        expected = retriever.recommend([catalog.ids[row] for row in items], 10, times=clock, asked_at=1_800_000_000)
        with pytest.warns(UserWarning, match="Not in the catalog, so skipped: nobody"):
            same(retriever.recommend_user(name, ["nobody"], times=[1_700_000_000], asked_at=1_800_000_000), expected)
        same(retriever.recommend_user(name, asked_at=1_800_000_000), expected)


@pytest.mark.parametrize(
    ("inner", "arguments"), [("seqrec.backbones.sasrec.SASRec", {}), ("seqrec.backbones.hstu.HSTU", TIMED)]
)
def test_after_more_than_there_is_room_for_the_whole_history_is_read(tmp_path, catalog, inner, arguments):
    pasts = some_pasts()
    retriever = exported(tmp_path / "bundle", catalog, recipe(inner, arguments), pasts)
    recent = [catalog.ids[row] for row in range(70, 71 + RECENT)]
    since = [1_700_000_000 + 1000 * place for place in range(RECENT + 1)]
    for name, (items, clock) in pasts.items():
        whole = [*(catalog.ids[row] for row in items), *recent]
        expected = retriever.recommend(whole, 10, times=[*clock, *since], asked_at=1_800_000_000)
        same(retriever.recommend_user(name, recent, times=since, asked_at=1_800_000_000), expected)
    # An earlier version kept no times, so that a model of the clock has nothing of the past to read again.
    retriever.users = replace(retriever.users, seen=replace(retriever.users.seen, times=None))
    found = retriever.recommend_user("ann", recent, times=since, asked_at=1_800_000_000, exclude_seen=False)
    whole = [*(catalog.ids[row] for row in pasts["ann"][0]), *recent]
    read = (recent, since) if arguments else (whole, [*pasts["ann"][1], *since])
    same(found, retriever.recommend(read[0], times=read[1], asked_at=1_800_000_000, exclude_seen=False))


def same(found, expected):
    assert [each.item_id for each in found] == [each.item_id for each in expected]
    torch.testing.assert_close(*(torch.tensor([each.score for each in some]) for some in (found, expected)))


def test_a_user_of_whom_nothing_is_remembered_or_new_is_refused(tmp_path, catalog):
    retriever = exported(tmp_path / "bundle", catalog, recipe(), {"dan": ([], []), **some_pasts()})
    with pytest.raises(InputError, match=r"remembers no event of user 'dan'.*; give at least one"):
        retriever.recommend_user("dan")
    found, expected = retriever.recommend_user("dan", ["001"]), retriever.recommend(["001"])
    assert [each.item_id for each in found] == [each.item_id for each in expected]


def test_an_unknown_user_is_named(tmp_path, catalog):
    retriever = exported(tmp_path / "bundle", catalog, recipe(), some_pasts())
    with pytest.raises(InputError, match="'dan' is not among them"):
        retriever.recommend_user("dan")


def test_memories_of_other_weights_or_another_catalog_are_refused(tmp_path, catalog, monkeypatch):
    exported(tmp_path / "one", catalog, recipe(), some_pasts())
    torch.manual_seed(1)
    recommender = build_recommender(recipe(), catalog).eval()
    window = Sequences.pack([[1, 2]])
    users = remember_users(recommender, [(["eve"], window, window)], recipe())
    with torch.no_grad():
        recommender.embedding.table.weight[0, 0] += 1e-6
    write_bundle(recommender, tmp_path / "two", recipe=recipe(), config={}, max_length=LENGTH, users=users)
    with pytest.raises(InputError, match=r"users\.safetensors holds what a model with other weights"):
        Retriever.load(tmp_path / "two")
    # A file from another bundle is noticed before that, by its checksum.
    shutil.copy(tmp_path / "two" / "users.safetensors", tmp_path / "one" / "users.safetensors")
    with pytest.raises(InputError, match=r"users\.safetensors differs from what was exported"):
        Retriever.load(tmp_path / "one")
    assert "users.safetensors" in json.loads((tmp_path / "one" / "manifest.json").read_text())["files"]
    assert room.USERS == "users.safetensors"


ROTARY = {"class_path": "seqrec.positions.rotary.RotaryPosition"}
ALIKE = {
    "max_length": ("seqrec.backbones.hstu.HSTU", {"max_length": 200}, {"max_length": 20}),
    "n_heads": ("seqrec.backbones.sasrec.SASRec", {"n_heads": 1}, {"n_heads": 4}),
    "base": (
        "seqrec.backbones.ligr.LiGR",
        {"position": {**ROTARY, "init_args": {"base": 10_000.0}}},
        {"position": {**ROTARY, "init_args": {"base": 10.0}}},
    ),
}


@pytest.mark.parametrize(("inner", "one", "other"), ALIKE.values(), ids=ALIKE.keys())
def test_memories_of_a_model_with_equal_weights_that_is_made_otherwise_are_refused(
    tmp_path, catalog, inner, one, other
):
    mine = exported(tmp_path / "mine", catalog, recipe(inner, one), some_pasts())
    others = exported(tmp_path / "others", catalog, recipe(inner, other), some_pasts())
    weights, same = mine.recommender.state_dict(), others.recommender.state_dict()
    assert weights.keys() == same.keys()
    assert all(torch.equal(weights[name], same[name]) for name in weights)
    assert mine.fingerprint != others.fingerprint
    with pytest.raises(InputError, match="another recipe"):
        Users.load(tmp_path / "mine" / room.USERS, others.fingerprint)


def test_a_bundle_that_is_exported_again_has_the_same_fingerprint(tmp_path, catalog):
    described = recipe("seqrec.backbones.hstu.HSTU", TIMED)
    first = exported(tmp_path / "first", catalog, described, some_pasts())
    assert exported(tmp_path / "again", catalog, described, some_pasts()).fingerprint == first.fingerprint
    read = read_bundle(tmp_path / "first")
    assert fingerprint(read.recommender, read.recipe) == first.fingerprint

    def from_file(name, value, missing="refuse"):
        embedding = {"class_path": "texts", "init_args": {name: value, "missing": missing}}
        sum_of = {"class_path": "sum", "init_args": {"parts": [embedding]}}
        return fingerprint(read.recommender, {"init_args": {"embedding": sum_of}})

    for name in ("path", "vectors"):
        assert from_file(name, "here/texts.npz") == from_file(name, "there/texts.npz")
        assert from_file(name, "here/texts.npz") != from_file(name, "here/texts.npz", missing="mean")
    assert from_file("dim", 8) != from_file("dim", 16)


def test_a_bundle_of_an_earlier_version_keeps_its_users_and_its_fingerprint(tmp_path, catalog):
    folder = tmp_path / "bundle"
    answer = exported(folder, catalog, recipe(), some_pasts()).recommend_user("cid")
    replace(read_bundle(folder).users, fingerprint="e" * 64).save(folder / room.USERS)
    fields = read_fields(folder)
    write_manifest(folder, fields | {"model_fingerprint": "e" * 64}, fields["files"])
    older = Retriever.load(folder)
    assert older.fingerprint == "e" * 64
    assert older.recommend_user("cid") == answer


def test_a_model_that_remembers_every_event_cannot_be_kept(tmp_path, catalog):
    described = recipe()
    described["init_args"]["backbone"] = described["init_args"]["backbone"]["init_args"]["inner"]
    with pytest.raises(TypeError, match=r"wrap the backbone in\s+seqrec.backbones.compressed.Compressed"):
        exported(tmp_path / "bundle", catalog, described, some_pasts())


def test_a_model_that_reads_times_says_so_when_they_are_missing(tmp_path, catalog):
    retriever = exported(tmp_path / "bundle", catalog, recipe("seqrec.backbones.hstu.HSTU", TIMED), some_pasts())
    with pytest.raises(InputError, match="--times"):
        retriever.recommend(["001"])
    with pytest.raises(InputError, match="--asked_at"):
        retriever.recommend(["001"], times=[1_700_000_000])
    with pytest.raises(InputError, match="2 items and 1 times"):
        retriever.recommend(["001", "002"], times=[1_700_000_000], asked_at=1_800_000_000)
    assert retriever.recommend(["001"], times=[1_700_000_000], asked_at=1_800_000_000)
