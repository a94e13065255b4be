"""Training goes on from an exported model: items keep what was learned of them by raw id, and results say so."""

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from seqrec.catalog import Catalog
from seqrec.cli import main
from seqrec.data.errors import InputError
from seqrec.data.log import Log
from seqrec.data.prepare import prepare_log
from seqrec.data.protocol import LeaveOneOut
from seqrec.data.simulated import SimulatedShop
from seqrec.data.withhold import withhold
from seqrec.embeddings.ids import IdEmbedding
from seqrec.export.bundle import WEIGHTS, build_recommender, write_bundle
from seqrec.export.changes import add_items
from seqrec.lightning_cli import differing
from seqrec.sequences import Sequences
from seqrec.warm_start import start_from

pytest.importorskip("faiss")

SASREC = Path(__file__).parents[1] / "configs" / "model" / "sasrec.yaml"
QUIET = [f"--trainer.{each}" for each in ("accelerator=cpu", "enable_progress_bar=false", "enable_model_summary=false")]
SMALL = ["--trainer.max_epochs=1", "--data.max_length=20", "--data.events_per_batch=200"]
IDS = {"class_path": "seqrec.embeddings.ids.IdEmbedding", "init_args": {"dim": 8}}


def recipe(embedding=IDS, backbone="seqrec.backbones.gru4rec.GRU4Rec", dim=8, **others):
    parts = {"embedding": embedding, "backbone": {"class_path": backbone, "init_args": {"dim": dim}}}
    return {"class_path": "seqrec.recommenders.sequential.SequentialRecommender", "init_args": parts | others}


def catalog(*ids):
    return Catalog(pl.DataFrame({"item_id": ids, "count": range(1, len(ids) + 1)}))


def vectors_of(folder, *ids, seed=0):
    """A file of vectors, of which that of an id is always the same."""
    numbers = [np.random.default_rng([seed, *raw.encode()]).standard_normal(12).tolist() for raw in ids]
    path = folder / f"{len(ids)}.parquet"
    pl.DataFrame({"item_id": ids, "vector": numbers}).write_parquet(path)
    return str(path)


def bundled(folder, items, made, about=None):
    """A model of these items in a bundle, with weights that no other has."""
    recommender = build_recommender(made, items)
    with torch.no_grad():
        for weight in recommender.parameters():
            weight.normal_()
    write_bundle(recommender, folder, recipe=made, config={}, max_length=20, about=about)
    return recommender


OLD, NEW = catalog("a", "b", "c", "d"), catalog("n", "d", "b", "a", "c", "m")
# Of the items that both know, as rows of either.
ROWS = [(OLD.rows(["a", "b", "c", "d"])[0]), (NEW.rows(["a", "b", "c", "d"])[0])]


def test_items_keep_what_was_learned_of_them_by_raw_id(tmp_path):
    before = bundled(tmp_path / "bundle", OLD, recipe())
    after = build_recommender(recipe(), NEW)
    own = after.embedding.table.weight.detach().clone()
    began = start_from(after, tmp_path / "bundle", trained_on="now")
    assert (began.known_items, began.fresh, began.unused) == (4, [], [])
    assert torch.equal(after.counts, torch.arange(1, 7))
    fresh = NEW.rows(["n", "m"])[0]
    assert torch.equal(after.embedding.table.weight[fresh], own[fresh])
    histories = [[0, 2, 1], [3, 1]], [[ROWS[1][row] for row in history] for history in ([0, 2, 1], [3, 1])]
    scores = []
    for recommender, history, rows in zip((before, after), histories, ROWS, strict=True):
        packed = Sequences.pack(history)
        scores.append(recommender.eval().queries(packed, packed.newest) @ recommender.item_keys(torch.tensor(rows)).T)
    torch.testing.assert_close(scores[1], scores[0], rtol=0, atol=0)


OTHERS = catalog("d", "x", "y", "a")  # as many as OLD


@pytest.mark.parametrize("output", [None, IDS], ids=["tied", "scored by a table of its own"])
def test_as_many_other_items_are_not_taken_for_those_of_then(tmp_path, output):
    made = recipe(output=output)
    before = bundled(tmp_path / "bundle", OLD, made)
    after = build_recommender(made, OTHERS)
    tables = [(each.embedding, *([] if output is None else [each.output])) for each in (before, after)]
    own = [each.table.weight.detach().clone() for each in tables[1]]
    start_from(after, tmp_path / "bundle", trained_on="now")
    for then, now, fresh in zip(*tables, own, strict=True):
        then = then.table.weight
        assert torch.equal(now.table.weight, torch.stack([then[3], fresh[1], fresh[2], then[0]]))


def test_texts_and_counts_are_those_of_the_items_of_now(tmp_path):
    def fused(items):
        tower = {"class_path": "seqrec.embeddings.pretrained.TextTower", "init_args": {}}
        tower["init_args"]["vectors"] = vectors_of(tmp_path, *items.ids)
        arguments = {"dim": 8, "text": tower, "n_bins": 2}
        return recipe({"class_path": "seqrec.embeddings.fusion.FadingEmbedding", "init_args": arguments})

    bundled(tmp_path / "bundle", OLD, fused(OLD))
    items = Catalog(OTHERS.table.with_columns(count=pl.Series([9, 0, 1, 1])))
    after = build_recommender(fused(items), items)
    vectors, bins = after.embedding.text.texts.vectors.clone(), after.embedding.bins.clone()
    start_from(after, tmp_path / "bundle", trained_on="now")
    assert torch.equal(after.embedding.text.texts.vectors, vectors)
    assert torch.equal(after.embedding.bins, bins)


def test_a_table_that_began_as_texts_keeps_what_it_learned_by_raw_id(tmp_path):
    def initialised(items):
        arguments = {"dim": 3, "vectors": vectors_of(tmp_path, *items.ids)}
        return recipe({"class_path": "seqrec.embeddings.pretrained.TextInitialised", "init_args": arguments}, dim=3)

    before = bundled(tmp_path / "bundle", OLD, initialised(OLD))
    after = build_recommender(initialised(NEW), NEW)
    start_from(after, tmp_path / "bundle", trained_on="now")
    assert torch.equal(after.embedding.table.weight[ROWS[1]], before.embedding.table.weight)


class Undeclared(IdEmbedding):
    by_item = ()


def test_a_table_of_which_nobody_says_what_its_rows_are_is_refused_where_items_are_others(tmp_path):
    made = recipe({"class_path": f"{__name__}.Undeclared", "init_args": {"dim": 8}})
    before = bundled(tmp_path / "bundle", OLD, made)
    with pytest.raises(InputError, match=r"embedding\.table\.weight has as many rows as there are items"):
        start_from(build_recommender(made, OTHERS), tmp_path / "bundle", trained_on="now")
    after = build_recommender(made, OLD)
    start_from(after, tmp_path / "bundle", trained_on="now")
    assert torch.equal(after.embedding.table.weight, before.embedding.table.weight)


@pytest.mark.parametrize("fusion", ["SumEmbedding", "ConcatEmbedding", "GatedEmbedding", "FadingEmbedding"])
def test_a_table_becomes_the_free_vectors_beside_those_of_texts(tmp_path, fusion):
    before = bundled(tmp_path / "bundle", OLD, recipe())
    tower = {"class_path": "seqrec.embeddings.pretrained.TextTower", "init_args": {}}
    tower["init_args"]["vectors"] = vectors_of(tmp_path, *NEW.ids)
    fused = {"class_path": f"seqrec.embeddings.fusion.{fusion}", "init_args": {"dim": 8, "text": tower}}
    after = build_recommender(recipe(fused), NEW)
    bins = getattr(after.embedding, "bins", torch.zeros(0)).clone()
    began = start_from(after, tmp_path / "bundle", trained_on="now")
    assert torch.equal(after.embedding.ids.table.weight[ROWS[1]], before.embedding.table.weight)
    for mine, theirs in zip(after.backbone.parameters(), before.backbone.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert began.fresh
    assert all(name.startswith("embedding.") and ".ids." not in name for name in began.fresh)
    assert torch.equal(getattr(after.embedding, "bins", torch.zeros(0)), bins)


def reads(tmp_path, kind):
    """A recipe of a model that reads texts made narrower, of items that its file has or, for the last one, lacks."""

    def of(items, seed=0, lacks=0):
        arguments = {"dim": 3, "vectors": vectors_of(tmp_path, *items.ids[: len(items) - lacks], seed=seed)}
        arguments["missing"] = "mean" if lacks else "refuse"
        if kind == "TextTower":
            arguments["reduction"] = {"class_path": "seqrec.embeddings.reduction.PCA", "init_args": {"dim": 2}}
        return recipe({"class_path": f"seqrec.embeddings.pretrained.{kind}", "init_args": arguments}, dim=3)

    return of


@pytest.mark.parametrize("lacks", [0, 1], ids=["all have texts", "one lacks it"])
@pytest.mark.parametrize("kind", ["TextTower", "FrozenText"])
def test_texts_are_made_narrower_as_they_were_then(tmp_path, kind, lacks):
    of = reads(tmp_path, kind)
    before = bundled(tmp_path / "bundle", OLD, of(OLD))
    after = build_recommender(of(NEW, lacks=lacks), NEW)
    assert not torch.allclose(after.eval().item_keys(torch.tensor(ROWS[1])), before.eval().item_keys())
    start_from(after, tmp_path / "bundle", trained_on="now")
    torch.testing.assert_close(after.item_keys(torch.tensor(ROWS[1])), before.item_keys(), rtol=1e-6, atol=1e-6)
    texts = after.embedding.texts.vectors
    assert len(texts) == 6
    assert lacks == 0 or torch.allclose(texts[5], texts[:5].mean(0), atol=1e-6)


@pytest.mark.parametrize("kind", ["TextTower", "FrozenText"])
def test_texts_that_another_encoder_read_are_refused(tmp_path, kind):
    of = reads(tmp_path, kind)
    bundled(tmp_path / "bundle", OLD, of(OLD))
    with pytest.raises(InputError, match="Most items have other text vectors here than in"):
        start_from(build_recommender(of(NEW, seed=1), NEW), tmp_path / "bundle", trained_on="now")


def test_items_that_were_added_without_training_are_new(tmp_path):
    made = recipe({"class_path": "seqrec.embeddings.pretrained.TextTower", "init_args": {"dim": 8}})
    made["init_args"]["embedding"]["init_args"]["vectors"] = vectors_of(tmp_path, *OLD.ids)
    bundled(tmp_path / "bundle", OLD, made)
    add_items(tmp_path / "bundle", Path(vectors_of(tmp_path, "n")))
    made["init_args"]["embedding"]["init_args"]["vectors"] = vectors_of(tmp_path, *NEW.ids)
    after = build_recommender(made, NEW)
    assert start_from(after, tmp_path / "bundle", trained_on="now").known_items == 4


def test_what_does_not_fit_is_refused(tmp_path):
    bundled(tmp_path / "bundle", OLD, recipe())
    wider = recipe(IDS | {"init_args": {"dim": 12}}, dim=12)
    with pytest.raises(InputError, match=r"embedding\.table\.weight has the shape \(6, 12\) here and \(4, 8\) in"):
        start_from(build_recommender(wider, NEW), tmp_path / "bundle", trained_on="now")
    text = {"class_path": "seqrec.embeddings.pretrained.TextTower", "init_args": {"dim": 8}}
    text["init_args"]["vectors"] = vectors_of(tmp_path, *NEW.ids)
    other = build_recommender(recipe(text, "seqrec.backbones.sasrec.SASRec"), NEW)
    with pytest.raises(InputError, match=r"Nothing in .* has the name of a part of this SequentialRecommender"):
        start_from(other, tmp_path / "bundle", trained_on="now")
    with pytest.raises(InputError, match="is not a bundle"):
        start_from(other, tmp_path / "nothing", trained_on="now")


def test_what_was_learned_before_is_handed_on(tmp_path):
    about = {"trained_on": "then", "learned_before": ["long ago", "now"]}
    bundled(tmp_path / "told", OLD, recipe(), about)
    bundled(tmp_path / "untold", OLD, recipe())
    after = build_recommender(recipe(), NEW)
    assert start_from(after, tmp_path / "told", trained_on="now").learned_before == ["long ago", "then"]
    assert start_from(after, tmp_path / "told", trained_on="then").learned_before == ["long ago", "now"]
    (untold,) = start_from(after, tmp_path / "untold", trained_on="now").learned_before
    mark = json.loads((tmp_path / "untold" / "manifest.json").read_text())["model_fingerprint"]
    assert untold == f"unknown to {mark}"


@pytest.fixture(scope="module")
def yesterday(tmp_path_factory) -> Path:
    """A shop of yesterday, one of today with more items, and what was trained on the former."""
    folder = tmp_path_factory.mktemp("days")
    prepare_log(SimulatedShop(users=60, items=50, mean_events=12.0), folder / "shop")
    prepare_log(SimulatedShop(users=80, items=60, mean_events=12.0), folder / "today")
    fit(folder, "yesterday", "shop")
    assert main(["test", f"--run={folder / 'yesterday'}", "--verbose=false"]) == 0
    assert main(["export", f"--run={folder / 'yesterday'}", f"--out={folder / 'bundle'}", "--format=none"]) == 0
    return folder


def fit(folder, run, data, *others):
    told = [f"--data.prepared={folder / data}", f"--run={folder / run}", *SMALL, *QUIET, *others]
    assert main(["fit", f"--config={SASREC}", *told]) == 0


def result_of(folder, run, *others):
    assert main(["test", f"--run={folder / run}", "--verbose=false", *others]) == 0
    return json.loads((folder / run / "result.json").read_text())


def test_a_run_on_the_same_events_goes_on_and_stands_beside_the_others(yesterday, capsys):
    # A step too small for float32: what is trained is what was there.
    fit(yesterday, "again", "shop", f"--starts_from={yesterday / 'bundle'}", "--model.learning_rate=1e-30")
    said = capsys.readouterr()
    n_items = len(Log.open(yesterday / "shop").catalog)
    assert f"Starts from {yesterday / 'bundle'}, which knows {n_items} of {n_items} items." in said.out
    assert "Begin anew" not in said.out
    assert "learned from other events" not in said.err
    weights = torch.load(yesterday / "again" / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    for name, weight in load_file(yesterday / "bundle" / WEIGHTS).items():
        assert torch.equal(weights[f"recommender.{name}"], weight)
    result, before = (result_of(yesterday, run) for run in ("again", "yesterday"))
    assert result["metrics"] == before["metrics"]
    assert result["starts_from"]["bundle"] == result["config"]["starts_from"] == str(yesterday / "bundle")
    assert result["passport"] == before["passport"]
    assert before["starts_from"] is None
    assert "starts_from" not in before["config"]
    assert main(["compare", str(yesterday / "again"), str(yesterday / "yesterday")]) == 0


def test_what_learned_from_other_events_is_kept_apart(yesterday, capsys):
    fit(yesterday, "today-run", "today", f"--starts_from={yesterday / 'bundle'}")
    said = capsys.readouterr()
    assert "learned from other events than this run trains on" in said.err
    fit(yesterday, "cold", "today")
    result, other = (result_of(yesterday, run) for run in ("today-run", "cold"))
    log = Log.open(yesterday / "shop")
    assert result["passport"]["learned_before"] == [LeaveOneOut().split(log).train.digest(log)]
    assert "learned_before" not in other["passport"]
    capsys.readouterr()
    assert main(["compare", str(yesterday / "today-run"), str(yesterday / "cold")]) == 2
    assert "other events that it learned from before (learned_before)" in capsys.readouterr().err
    assert main(["leaderboard", str(yesterday / "today-run"), str(yesterday / "cold"), f"--out={yesterday / 'p'}"]) == 0
    page = (yesterday / "p.md").read_text()
    assert page.count("starts from a trained model") >= 1
    assert "other events that it learned from before" in page
    # Whoever starts from it knows of both.
    assert main(["export", f"--run={yesterday / 'today-run'}", f"--out={yesterday / 'b2'}", "--format=none"]) == 0
    about = json.loads((yesterday / "b2" / "manifest.json").read_text())["about"]
    today = Log.open(yesterday / "today")
    assert about["learned_before"] == result["passport"]["learned_before"]
    assert about["trained_on"] == LeaveOneOut().split(today).train.digest(today)


def test_a_run_that_goes_on_after_a_kill_needs_no_bundle_and_forgets_nothing(yesterday, tmp_path):
    bundle = shutil.copytree(yesterday / "bundle", tmp_path / "bundle")
    fit(yesterday, "killed", "today", f"--starts_from={bundle}")
    shutil.rmtree(bundle)
    config = f"--config={yesterday / 'killed' / 'config.yaml'}"
    assert main(["fit", config, "--ckpt_path=last", "--trainer.max_epochs=2"]) == 0
    result = result_of(yesterday, "killed")
    assert result["epochs"] == 2
    assert result["starts_from"]["bundle"] == str(bundle)
    assert result["passport"]["learned_before"]


def test_a_bundle_that_is_not_there_is_told_before_anything_is_written(yesterday, tmp_path, capsys):
    data = f"--data.prepared={yesterday / 'shop'}"
    assert main(["fit", f"--config={SASREC}", data, f"--run={tmp_path / 'run'}", "--starts_from=nowhere", *QUIET]) == 2
    assert "nowhere is not a bundle" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_weights_themselves_know_what_they_learned_before(yesterday, tmp_path):
    fit(tmp_path, "warm", yesterday / "today", f"--starts_from={yesterday / 'bundle'}")
    fit(tmp_path, "cold", yesterday / "today")
    (tmp_path / "warm" / "fit.json").unlink()  # as where training was stopped
    learned = result_of(tmp_path, "warm")["passport"]["learned_before"]
    assert len(learned) == 1
    assert "learned_before" not in result_of(tmp_path, "cold")["passport"]
    best = tmp_path / "warm" / "checkpoints" / "best.ckpt"
    assert result_of(tmp_path, "cold", f"--ckpt_path={best}")["passport"]["learned_before"] == learned
    torch.save(torch.load(best, weights_only=True) | {"trained_on": "what was there then"}, best)
    assert main(["export", f"--run={tmp_path / 'warm'}", f"--out={tmp_path / 'bundle'}", "--format=none"]) == 0
    about = json.loads((tmp_path / "bundle" / "manifest.json").read_text())["about"]
    assert (about["trained_on"], about["learned_before"]) == ("what was there then", learned)


def test_a_run_cannot_start_from_two_models(yesterday, capsys):
    config = f"--config={yesterday / 'yesterday' / 'config.yaml'}"
    assert main(["fit", config, "--ckpt_path=last", f"--starts_from={yesterday / 'bundle'}"]) == 2
    assert "last.ckpt began from nothing, not from" in capsys.readouterr().err


def test_a_run_whose_bundle_holds_another_model_now_is_not_reproduced(yesterday, tmp_path, capsys):
    bundle = shutil.copytree(yesterday / "bundle", tmp_path / "bundle")
    fit(tmp_path, "run", yesterday / "shop", f"--starts_from={bundle}")
    recorded = result_of(tmp_path, "run")["metrics"]
    assert main(["reproduce", str(tmp_path / "run"), f"--out={tmp_path / 'again'}"]) == 0
    (again,) = (json.loads(path.read_text()) for path in (tmp_path / "again").glob("*/result.json"))
    assert again["metrics"] == recorded
    assert main(["export", f"--run={tmp_path / 'run'}", f"--out={bundle}", "--format=none"]) == 0
    assert main(["reproduce", str(tmp_path / "run"), f"--out={tmp_path / 'again'}"]) == 2
    assert "holds another model now" in capsys.readouterr().err


def test_items_that_a_model_may_have_met_before_are_not_called_cold(yesterday, tmp_path, capsys):
    withhold(yesterday / "today", tmp_path / "withheld", share=0.2, seed=3)
    fit(tmp_path, "run", tmp_path / "withheld", f"--starts_from={yesterday / 'bundle'}")
    capsys.readouterr()
    assert main(["cold", f"--run={tmp_path / 'run'}", "--vectors=none.parquet"]) == 2
    assert "started from a model that had learned from other events" in capsys.readouterr().err


def test_a_config_that_starts_from_a_model_is_another_than_one_that_does_not():
    assert list(differing({"data": 1}, {"data": 1, "starts_from": None})) == []
    assert list(differing({"data": 1}, {"data": 1, "starts_from": "bundle"})) == ["starts_from"]
    assert list(differing({"starts_from": "bundle"}, {"starts_from": None})) == ["starts_from"]
    assert list(differing({"starts_from": "bundle"}, {"starts_from": "bundle"})) == []
