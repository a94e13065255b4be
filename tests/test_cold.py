"""Items are withheld whole, and what is asked of a run about them is what their texts say and nothing else."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import yaml

from seqrec.cli import main
from seqrec.data.errors import InputError
from seqrec.data.folders import digests_of_named, name_of
from seqrec.data.log import Log
from seqrec.data.poisoning.heuristic import Random
from seqrec.data.poisoning.poison import poisoned
from seqrec.data.prepare import prepare_log
from seqrec.data.protocol import LeaveOneOut
from seqrec.data.simulated import SimulatedShop
from seqrec.data.withhold import withhold
from seqrec.export.changes import add_items
from seqrec.export.retriever import Retriever
from seqrec.lightning_cli import complete_config
from seqrec.ops import ranking
from seqrec.run_cold import cold_keys
from seqrec.runs import open_run
from seqrec.semantics.vectors import write_vectors
from seqrec.sequences import Sequences

CONFIGS = Path(__file__).parents[1] / "configs"
QUICK = [
    *("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"),
    *("--trainer.max_epochs=2", "--data.max_length=20", "--data.events_per_batch=200"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cold")
    prepare_log(SimulatedShop(users=150, items=80, mean_events=12.0), folder / "shop")
    withhold(folder / "shop", folder / "cold", share=0.2, seed=3)
    catalog = Log.open(folder / "shop").catalog
    numbers = np.random.default_rng(0).standard_normal((len(catalog), 16)).astype("float32")
    pl.DataFrame({"item_id": catalog.ids, "vector": numbers.tolist()}).write_parquet(folder / "shop-vectors.parquet")
    return folder


@pytest.fixture(scope="module")
def run(folder) -> Path:
    return trained(folder, "run")


@pytest.fixture(scope="module")
def timed(folder) -> Path:
    """It knows when it is asked, reads few events, and seen items stay candidates."""
    configs = [CONFIGS / "plugin" / "attention-time.yaml", CONFIGS / "protocol" / "seen-ranked.yaml"]
    return trained(folder, "timed", *(f"--config={config}" for config in configs), "--data.max_length=5")


def trained(folder: Path, name: str, *more: str) -> Path:
    plugin = folder / "text-sum.yaml"
    text = (CONFIGS / "plugin" / "text-sum.yaml").read_text()
    plugin.write_text(text.replace("data/raw/{data}/minilm.parquet", str(folder / "{data}-vectors.parquet")))
    stack = [f"--config={CONFIGS / 'model' / 'sasrec.yaml'}", f"--config={plugin}"]
    assert main(["fit", *stack, f"--data.prepared={folder / 'cold'}", f"--run={folder / name}", *QUICK, *more]) == 0
    return folder / name


def test_a_withheld_item_is_nowhere_and_all_else_is_as_it_was(folder):
    before, after = Log.open(folder / "shop"), Log.open(folder / "cold")
    withheld = set(pl.read_parquet(folder / "cold" / "withheld_items.parquet")["item_id"])
    assert len(withheld) == 16
    assert not withheld & set(after.catalog.ids)
    assert withheld | set(after.catalog.ids) == set(before.catalog.ids)

    def histories(log):
        return {
            user: [
                (log.catalog.ids[int(row)], int(time)) for row, time in zip(log.items[a:b], log.times[a:b], strict=True)
            ]
            for user, a, b in zip(log.users, log.offsets[:-1], log.offsets[1:], strict=True)
        }

    left = {user: [each for each in events if each[0] not in withheld] for user, events in histories(before).items()}
    assert histories(after) == {user: events for user, events in left.items() if events}
    assert after.catalog.table.drop("count").equals(
        before.catalog.table.drop("count").filter(~pl.col("item_id").is_in(list(withheld)))
    )


def test_targets_are_newest_items_and_their_histories_all_that_is_left_before(folder):
    before = Log.open(folder / "shop")
    targets = pl.read_parquet(folder / "cold" / "withheld_targets.parquet")
    withheld = set(pl.read_parquet(folder / "cold" / "withheld_items.parquet")["item_id"])
    expected = {}
    for user, start, end in zip(before.users, before.offsets[:-1], before.offsets[1:], strict=True):
        items = [before.catalog.ids[int(row)] for row in before.items[start:end]]
        *history, newest = zip(items, before.times[start:end].tolist(), strict=True)
        history = [each for each in history if each[0] not in withheld]
        if newest[0] in withheld and history:
            expected[user] = (history, newest)
    found = {
        line["user_id"]: (
            list(zip(line["history"], line["times"], strict=True)),
            (line["item_id"], line["asked_at"]),
        )
        for line in targets.iter_rows(named=True)
    }
    assert found == expected
    assert any(history[-1][1] < asked_at for history, (_, asked_at) in found.values())


def test_what_is_left_is_a_prepared_data_set_with_the_same_result_every_time(folder, tmp_path):
    withhold(folder / "shop", tmp_path / "again", share=0.2, seed=3)
    withhold(folder / "shop", tmp_path / "other", share=0.2, seed=4)
    fingerprints = [Log.open(each).manifest["fingerprint"] for each in (folder / "cold", tmp_path / "again")]
    assert fingerprints[0] == fingerprints[1] != Log.open(tmp_path / "other").manifest["fingerprint"]
    assert len(LeaveOneOut().split(Log.open(tmp_path / "again")).test)


def test_fake_users_are_never_asked_for_what_is_withheld(folder, tmp_path):
    assert (
        main(["poison", "--data", str(folder / "shop"), "--attack", "Random", "--out", str(tmp_path / "poisoned")]) == 0
    )
    with pytest.raises(InputError, match="fake users, who would be asked for withheld items"):
        withhold(tmp_path / "poisoned", tmp_path / "out", 0.2, 0)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("share", "seed"), [(0.0, 0), (1.0, 0), (0.1, -1)])
def test_a_share_that_makes_no_sense_is_refused(folder, tmp_path, share, seed):
    with pytest.raises(InputError, match="Withhold between 0 and 1"):
        withhold(folder / "shop", tmp_path / "out", share, seed)


@pytest.mark.parametrize(("name", "n_read"), [("run", 20), ("timed", 5)])
def test_the_figures_are_those_of_scores_computed_one_by_one(folder, name, n_read, request, capsys):
    run = request.getfixturevalue(name)
    assert main(["cold", f"--run={run}", f"--vectors={folder / 'shop-vectors.parquet'}"]) == 0
    assert "withheld targets" in capsys.readouterr().out
    result = json.loads((run / "cold.json").read_text())
    opened = open_run(run)
    items = pl.read_parquet(folder / "cold" / "withheld_items.parquet")["item_id"].to_list()
    targets = pl.read_parquet(folder / "cold" / "withheld_targets.parquet")
    model, catalog = opened.recommender, opened.data.catalog
    keys = torch.cat([model.item_keys(), cold_keys(model, folder / "shop-vectors.parquet", pl.Series(items))]).detach()
    ranks = {"among_all": [], "among_themselves": []}
    for line in targets.iter_rows(named=True):
        rows = catalog.rows(line["history"])[0]
        window = Sequences.pack([rows[-n_read:]], [line["times"][-n_read:]])
        if name == "timed":
            window = window.asking(window.newest, torch.tensor([line["asked_at"]]))
        scores = (model.queries(window, window.newest) @ keys.T).detach()[0]
        if name == "run":
            scores[rows] = -torch.inf
        at = len(catalog) + items.index(line["item_id"])
        ranks["among_all"].append(int((scores > scores[at]).sum()))
        ranks["among_themselves"].append(int((scores[len(catalog) :] > scores[at]).sum()))
    for whom, found in ranks.items():
        assert result[whom]["recall@10"] == pytest.approx(np.mean(np.array(found) < 10), abs=1e-6)
        assert result[whom]["ndcg@100"] == pytest.approx(np.mean(1 / np.log2(np.array(found) + 2)), abs=1e-6)
    assert result["targets"] == len(targets)


def test_a_bundle_to_which_the_items_are_added_serves_what_was_measured(folder, run, tmp_path):
    bundle, opened = tmp_path / "bundle", open_run(run)
    assert main(["export", f"--run={run}", f"--out={bundle}", "--format=none"]) == 0
    items = pl.read_parquet(folder / "cold" / "withheld_items.parquet")
    vectors = pl.read_parquet(folder / "shop-vectors.parquet")
    items.select("item_id").join(vectors, on="item_id", how="left", maintain_order="left").write_parquet(
        tmp_path / "new.parquet"
    )
    add_items(bundle, tmp_path / "new.parquet")
    retriever = Retriever.load(bundle)
    model, catalog = opened.recommender, opened.data.catalog
    keys = torch.cat([model.item_keys(), cold_keys(model, folder / "shop-vectors.parquet", items["item_id"])]).detach()
    ids = [*catalog.ids, *items["item_id"]]
    for line in pl.read_parquet(folder / "cold" / "withheld_targets.parquet").iter_rows(named=True):
        rows = catalog.rows(line["history"])[0]
        window = Sequences.pack([rows[-20:]])
        expected = ranking.top_k(
            model.queries(window, window.newest).detach(), keys, 10, torch.tensor(rows), torch.tensor([0, len(rows)])
        )[0][0]
        served = [each.item_id for each in retriever.recommend(line["history"], 10)]
        assert served == [ids[row] for row in expected.tolist()]


def test_texts_that_quote_who_chose_a_withheld_item_are_refused(folder, run, tmp_path, capsys):
    ids = pl.read_parquet(folder / "shop-vectors.parquet").select("item_id")
    numbers = np.ones((len(ids), 16), dtype=np.float32)
    for quotes, ends in ((5, 2), (0, 0)):
        write_vectors(tmp_path, ids, numbers, {"kind": "items", "quotes": quotes})
        assert main(["cold", f"--run={run}", f"--vectors={tmp_path}"]) == ends
    assert "quote histories, in which withheld items were chosen" in capsys.readouterr().err


def test_a_model_of_ids_alone_says_why_it_cannot(folder, tmp_path, capsys):
    run = f"--run={tmp_path / 'run'}"
    config = f"--config={CONFIGS / 'model' / 'sasrec.yaml'}"
    assert main(["fit", config, f"--data.prepared={folder / 'cold'}", run, *QUICK]) == 0
    capsys.readouterr()
    assert main(["cold", run, f"--vectors={folder / 'shop-vectors.parquet'}"]) == 2
    assert "IdEmbedding knows an item only by its training" in capsys.readouterr().err


def test_data_that_withhold_nothing_are_refused(folder, tmp_path, capsys):
    run = f"--run={tmp_path / 'run'}"
    config = f"--config={CONFIGS / 'model' / 'sasrec.yaml'}"
    assert main(["fit", config, f"--data.prepared={folder / 'shop'}", run, *QUICK]) == 0
    assert main(["cold", run, f"--vectors={folder / 'shop-vectors.parquet'}"]) == 2
    assert "withholds no items. Run `seqrec withhold" in capsys.readouterr().err


def test_text_vectors_are_found_by_the_name_of_what_the_data_were_made_from(folder, run):
    """`{data}` in a plug-in is the shop, of which items were withheld or which was poisoned."""
    wanted = str(folder / "shop-vectors.parquet")
    asked = [f"--config={CONFIGS / 'model' / 'sasrec.yaml'}", f"--config={folder / 'text-sum.yaml'}"]
    poisoned(folder / "shop", folder / "attacked", Random(), budget=0.05)
    configs = [complete_config([*asked, f"--data.prepared={folder / name}"]) for name in ("shop", "cold", "attacked")]
    configs.append(yaml.safe_load((run / "config.yaml").read_text()))
    for config in configs:
        embedding = config["model"]["init_args"]["recommender"]["init_args"]["embedding"]
        assert embedding["init_args"]["text"]["init_args"]["vectors"] == wanted
    assert name_of(folder / "attacked") == name_of(folder / "cold") == "shop"
    named = digests_of_named({"vectors": str(folder / "{data}-vectors.parquet")}, name_of(folder / "attacked"))
    assert named.keys() == {wanted}
