"""Attack, defence and report, the whole way through the command line, on small simulated shops."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
import torch
from rich.console import Console

from seqrec import robustness
from seqrec.audit import _listed, judgements
from seqrec.cli import main
from seqrec.data.log import Log
from seqrec.data.poisoning.heuristic import Random
from seqrec.data.poisoning.poison import poisoned
from seqrec.data.prepare import prepare_log
from seqrec.data.simulated import SimulatedShop
from seqrec.objectives.trail import Trail
from seqrec.sequences import Sequences
from seqrec.training.record import write

CONFIGS = Path(__file__).parents[1] / "configs"
MODEL = """
trainer: {accelerator: cpu, enable_progress_bar: false, enable_model_summary: false, max_epochs: 3}
data: {max_length: 20, events_per_batch: 400}
model:
  recommender:
    class_path: seqrec.recommenders.sequential.SequentialRecommender
    init_args:
      embedding: {class_path: seqrec.embeddings.ids.IdEmbedding, init_args: {dim: 8}}
      backbone: {class_path: seqrec.backbones.sasrec.SASRec, init_args: {dim: 8, n_layers: 1, n_heads: 2, dropout: 0.1}}
      dropout: 0.1
  objective: seqrec.objectives.softmax.FullSoftmax
"""
LOREC = """
data: {fraudsters: {class_path: seqrec.data.poisoning.known.KnownFraudsters, init_args: {share: 0.2}}}
model:
  reweighter:
    class_path: seqrec.objectives.lorec.LoRec
    init_args: {active_from: %d, period: 1, late_period: 1, batch_users: 50, passes: %d}
"""
PREFIX = "--model.reweighter.init_args."


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("robustness")
    prepare_log(SimulatedShop(users=100, items=80, mean_events=12.0), folder / "clean")
    poisoned(folder / "clean", folder / "attacked", Random(), budget=0.05)
    (folder / "model.yaml").write_text(MODEL)
    (folder / "lorec.yaml").write_text(LOREC % (1, 4))
    (folder / "idle.yaml").write_text(LOREC % (100, 1))
    return folder


def fit(shop: Path, run: str, *more: str) -> Path:
    given = [f"--config={shop / 'model.yaml'}", f"--data.prepared={shop / 'attacked'}", f"--run={shop / run}"]
    assert main(["fit", *given, *more]) == 0
    return shop / run


def state(run: Path) -> dict:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def assert_equal(one: object, other: object) -> None:
    """Two states are the same, number by number."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            assert_equal(one[name], other[name])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_equal(left, right)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


@pytest.fixture(scope="module")
def idle(shop) -> Path:
    """A run with LoRec that ends before the weights count."""
    return fit(shop, "idle", f"--config={shop / 'idle.yaml'}")


def test_weights_that_would_count_only_when_training_is_over_are_announced(shop, capsys):
    for active_from, announced in ((1, True), (0, False)):
        given = (f"--config={shop / 'idle.yaml'}", "--trainer.max_epochs=1", f"{PREFIX}active_from={active_from}")
        fit(shop, f"late-{active_from}", *given)
        assert ("set model.reweighter.init_args.active_from lower" in capsys.readouterr().err) == announced


@pytest.fixture(scope="module")
def plain(shop) -> Path:
    """A run without a defence."""
    return fit(shop, "plain")


def test_weights_that_count_and_are_all_one_change_no_bit(shop, plain):
    counting = (f"{PREFIX}active_from=1", f"{PREFIX}period=100")
    kept = state(fit(shop, "ones", f"--config={shop / 'idle.yaml'}", *counting))
    weights = kept.pop("reweighter._extra_state")["weights"]
    assert weights.tolist() == [1.0] * len(weights)
    assert_equal(kept, state(plain))


def test_a_run_whose_weights_are_all_one_is_the_undefended_run_bit_for_bit(idle, plain):
    kept = state(idle)
    learnt = kept.pop("reweighter._extra_state")
    assert_equal(kept, state(plain))
    assert learnt["weights"] is None
    assert learnt["own"]["learner"] is not None  # it learned all the same
    for run in (plain, idle):
        assert main(["test", f"--run={run}", "--verbose=false"]) == 0
    assert pl.read_parquet(plain / "ranks.parquet").equals(pl.read_parquet(idle / "ranks.parquet"))


@pytest.fixture(scope="module")
def whole(shop) -> Path:
    """A defended run that nothing disturbed."""
    return fit(shop, "whole", f"--config={shop / 'lorec.yaml'}")


def test_a_defended_run_that_was_stopped_and_resumed_equals_one_that_was_not(shop, whole):
    lorec = f"--config={shop / 'lorec.yaml'}"
    fit(shop, "half", lorec, "--trainer.max_epochs=1")
    half = fit(shop, "half", lorec, "--ckpt_path=last")
    assert_equal(state(half), state(whole))
    assert state(whole)["reweighter._extra_state"]["weights"] is not None


ATTENDING = ("sasrec", "bert4rec", "hstu", "ligr", "compressed")
RECURRENT = ("gru4rec", "mamba4rec", "sigma", "hmamba", "hmamba_half")


@pytest.mark.parametrize("model", ATTENDING + RECURRENT)
def test_lorec_stacks_on_every_backbone(shop, tmp_path, model):
    stack = [
        f"--config={CONFIGS / part}.yaml" for part in (f"model/{model}", "plugin/lorec", "plugin/lorec-without-texts")
    ]
    data = [f"--data.prepared={shop / 'attacked'}", "--data.max_length=20", "--data.events_per_batch=400"]
    quick = [
        *("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"),
        *("--trainer.max_epochs=2", "--trainer.limit_train_batches=1"),
        *(f"{PREFIX}active_from=1", f"{PREFIX}period=1", f"{PREFIX}late_period=1"),
        *(f"{PREFIX}batch_users=60", f"{PREFIX}passes=1"),
    ]
    run = tmp_path / "run"
    assert main(["fit", *stack, *data, *quick, f"--run={run}"]) == 0
    assert state(run)["reweighter._extra_state"]["weights"].shape == (105,)
    assert main(["test", f"--run={run}", "--verbose=false"]) == 0
    assert json.loads((run / "result.json").read_text())["passport"]["fake_users"] == 5


@pytest.mark.parametrize("plugin", ["detector", "isolation-forest", "adversarial"])
def test_the_other_defences_stack_on_a_model(shop, tmp_path, plugin):
    titles = Log.open(shop / "attacked").catalog
    vectors = [[float(len(title)), float(ord(title[0]))] for title in titles.titles]
    pl.DataFrame({"item_id": titles.ids, "vector": vectors}).write_parquet(tmp_path / "vectors.parquet")
    named = [f"{PREFIX}vectors={tmp_path / 'vectors.parquet'}"] if plugin == "detector" else []
    run = fit(shop, plugin, f"--config={CONFIGS / 'plugin' / plugin}.yaml", "--trainer.max_epochs=1", *named)
    assert main(["test", f"--run={run}", "--verbose=false"]) == 0


def test_a_reweighter_that_lacks_its_food_says_what_to_set(shop, capsys):
    given = [f"--config={shop / 'model.yaml'}", f"--data.prepared={shop / 'attacked'}", f"--run={shop / 'hungry'}"]
    assert main(["fit", *given, "--model.reweighter=seqrec.objectives.lorec.LoRec"]) == 2
    assert "set data.fraudsters to seqrec.data.poisoning.known.KnownFraudsters" in capsys.readouterr().err


@pytest.fixture(scope="module")
def reported(shop) -> Path:
    out = shop / "report"
    assert main(command(shop, out)) == 0
    return out


def command(shop: Path, out: Path) -> list[str]:
    (shop / "forest.yaml").write_text(
        "model: {reweighter: {class_path: seqrec.objectives.isolation.IsolationForest, init_args: {share: 0.1}}}"
    )
    return [
        *("robustness", "--data", str(shop / "clean"), "--model", f"[{shop / 'model.yaml'}]", "--attacks", "[Random]"),
        *("--defences", f"[{shop / 'lorec.yaml'},{shop / 'forest.yaml'}]", "--budgets", "[0.05]", "--seeds", "[1]"),
        *("--out", str(out)),
    ]


def test_the_report_holds_every_run_and_says_what_each_reached(reported):
    results = [json.loads(path.read_text()) for path in (reported / "results").glob("*.json")]
    assert len(results) == 2 * 3
    for result in results:
        assert 0 <= result["metrics"]["t_hr@10"] <= result["metrics"]["t_hr@50"] <= 1
        assert result["metrics"]["t_rank"] >= 1
        assert bool(result["detection"]) <= (result["defence"] != "none")
        assert bool(result["detection"]) >= (result["defence"] == "forest")
        assert result["passport"]["fake_users"] == (5 if result["attack"] == "Random" else 0)
        assert result["passport"]["users"]["test"] == 100
    assert len({result["passport"]["target_hash"] for result in results}) == 1
    table = (reported / "robustness.md").read_text()
    assert table.count("\n| clean | – |") == 3
    assert table.count("\n| Random | 5.0% |") == 3
    assert (reported / "robustness.svg").read_text().count("<svg") == 1


def test_what_a_defence_draws_differs_between_seeds_and_a_report_says_so(reported):
    def config(defence: str) -> dict:
        return json.loads((reported / "results" / f"Random-0.05+{defence}-seed1.json").read_text())["config"]

    lorec, forest = config("lorec"), config("forest")
    assert lorec["model"]["init_args"]["reweighter"]["init_args"]["seed"] == 0 + 1
    assert lorec["data"]["fraudsters"]["init_args"]["seed"] == 271_828 + 1
    assert forest["model"]["init_args"]["reweighter"]["init_args"]["seed"] == 0 + 1
    assert config("none")["model"]["init_args"]["reweighter"] is None


def test_a_report_that_is_done_repeats_nothing_and_one_that_lacks_a_result_trains_nothing(shop, reported):
    files = {path: path.stat().st_mtime_ns for path in [*reported.rglob("*.json"), *reported.rglob("*.ckpt")]}
    assert main(command(shop, reported)) == 0
    assert {path: path.stat().st_mtime_ns for path in files} == files
    lost = reported / "results" / "Random-0.05+lorec-seed1.json"
    before = json.loads(lost.read_text())
    lost.unlink()
    assert main(command(shop, reported)) == 0
    assert json.loads(lost.read_text())["metrics"] == before["metrics"]
    assert all(path.stat().st_mtime_ns == files[path] for path in files if path.suffix == ".ckpt")


@pytest.fixture
def again(shop, reported, tmp_path):
    """A copy of the report, and what begins its undefended part again: says which results are new, and which models."""
    out = shutil.copytree(reported, tmp_path / "report")

    def run(*more: str, model: str = "model.yaml") -> tuple[set[str], set[str]]:
        def moments(pattern: str) -> dict[Path, int]:
            return {path: path.stat().st_mtime_ns for path in out.glob(pattern)}

        patterns = ("results/*.json", "runs/*/checkpoints/best.ckpt")
        before = [moments(pattern) for pattern in patterns]
        given = ["--data", str(shop / "clean"), "--model", f"[{shop / model}]", "--attacks", "[Random]"]
        assert main(["robustness", *given, "--budgets", "[0.05]", "--seeds", "[1]", "--out", str(out), *more]) == 0
        results, models = (
            {path for path, moment in moments(pattern).items() if old[path] != moment}
            for pattern, old in zip(patterns, before, strict=True)
        )
        return {path.stem for path in results}, {path.parents[1].name for path in models}

    run.out = out
    return run


CLEAN, ATTACKED = "clean+none-seed1", "Random-0.05+none-seed1"


def test_other_targets_are_looked_for_anew_and_what_they_do_not_touch_is_not_trained_again(again):
    assert again() == (set(), set())
    assert again("--attack_seed", "1") == ({CLEAN, ATTACKED}, {ATTACKED})
    table = (again.out / "robustness.md").read_text()
    assert table.count("\n| clean | – |") == table.count("\n| Random | 5.0% |") == 1  # without defences


def test_a_config_that_is_no_longer_the_same_is_trained_again(shop, again):
    (shop / "shorter.yaml").write_text(MODEL.replace("max_epochs: 3", "max_epochs: 2"))
    assert again(model="shorter.yaml") == ({CLEAN, ATTACKED}, {CLEAN, ATTACKED})
    assert again("--cutoffs", "[5]", model="shorter.yaml") == ({CLEAN, ATTACKED}, set())
    assert (again.out / "robustness.md").read_text().count("| 1 |") == 2  # without defences, which trained longer


def test_what_other_code_made_is_made_again_unless_any_will_do(again, monkeypatch):
    kept = again.out / "results" / f"{CLEAN}.json"
    before = json.loads(kept.read_text())["code"]
    monkeypatch.setattr(robustness, "code_fingerprint", lambda: "other")
    assert again("--any-code") == (set(), set())
    assert again("--any-code", "--cutoffs", "[5]") == ({CLEAN, ATTACKED}, set())
    result = json.loads(kept.read_text())
    assert result["code"] == before
    del result["config"]["data"]["mixes_lengths"], result["code"], result["files"]  # of before they existed
    write(kept, json.dumps(result))
    assert again("--any-code", "--cutoffs", "[5]") == (set(), set())
    assert again() == ({CLEAN, ATTACKED}, {CLEAN, ATTACKED})
    assert json.loads(kept.read_text())["code"] == "other"


def test_a_baseline_that_counts_is_reported_too(shop):
    out, config = shop / "counted", CONFIGS / "model" / "popularity.yaml"
    given = ["--data", str(shop / "clean"), "--model", f"[{config}]", "--attacks", "[Random]", "--budgets", "[0.05]"]
    assert main(["robustness", *given, "--seeds", "[1]", "--out", str(out)]) == 0
    assert (out / "robustness.md").read_text().count("| none | 1 |") == 2


def test_an_audit_lists_the_least_trusted_and_tells_marked_fakes_apart(shop, reported, capsys):
    run = reported / "runs" / "Random-0.05+forest-seed1"
    assert main(["audit", "--run", str(run), "--shown", "3"]) == 0
    said = capsys.readouterr().out
    assert "5 marked fakes: precision" in " ".join(said.split())
    assert "among users with as many events" in " ".join(said.split())
    weights = state(run)["reweighter._extra_state"]["weights"]
    table = pl.read_csv(run / "audit.csv", schema_overrides={"items": pl.String, "flagged_after": pl.String})
    assert table.height == int((weights != 1).sum()) > 0
    assert table["suspicion"].is_sorted(descending=True)
    assert set(table["user_id"]) <= set(Log.open(shop / "attacked").users)
    assert table["marked_fake"].to_list() == [user.startswith("fake-") for user in table["user_id"]]
    assert (run / "audit.svg").read_text().count("<svg") == 1


def test_an_audit_says_when_a_user_was_flagged_and_which_known_fraud_is_nearest(shop):
    log = Log.open(shop / "attacked")
    own = log.items[log.offsets[7] : log.offsets[8]].tolist()
    trail = Trail(known=Sequences.pack([[0, 1], own[:2]]))
    for epochs, weight, flags in ((5, 1.0, [7, 9]), (10, 0.6, [9]), (15, 0.2, [7])):
        weights, flagged = torch.ones(105), torch.zeros(105, dtype=torch.bool)
        weights[7], weights[9], flagged[flags] = weight, 1.04, True
        trail.decided(epochs, weights, flagged, torch.zeros(105))
    trail.nearest, trail.similarity = torch.full((105,), 1), torch.full((105,), 0.9)
    table = judgements(trail, log)
    assert table["user_id"].to_list() == [log.users[7]]  # the other is trusted more than most
    assert table["weight"].to_list() == pytest.approx([0.2])
    assert table["flagged_after"].to_list() == [[5, 15]]
    assert table["nearest_known"].to_list() == [1]
    assert table["items"][0].to_list() == log.catalog.ids.gather(own).to_list()
    Trail.restored(trail.state())


def test_an_audit_prints_raw_ids_as_they_are(shop, capsys):
    log, trail = Log.open(shop / "attacked"), Trail()
    trail.decided(1, torch.full((105,), 0.5), torch.ones(105, dtype=torch.bool), torch.zeros(105))
    table = judgements(trail, log).head(1).with_columns(user_id=pl.lit("[/u1]"), items=pl.lit(["[red]"]))
    Console(width=200).print(_listed(table, trail, log))
    said = capsys.readouterr().out
    assert "[/u1]" in said
    assert "[red]" in said


def test_an_audit_of_a_run_whose_data_were_made_anew_is_refused(reported, tmp_path, capsys):
    run = shutil.copytree(reported / "runs" / "Random-0.05+forest-seed1", tmp_path / "run")
    kept = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    kept["trained_on"] = "other events"
    torch.save(kept, run / "checkpoints" / "last.ckpt")
    assert main(["audit", "--run", str(run)]) == 2
    assert "holds other events than" in capsys.readouterr().err
    assert (
        not (run / "audit.csv").exists()
        or (run / "audit.csv").stat().st_mtime
        == (reported / "runs" / "Random-0.05+forest-seed1" / "audit.csv").stat().st_mtime
    )


def test_an_audit_of_a_checkpoint_that_was_cut_short_says_so(tmp_path, capsys):
    path = tmp_path / "checkpoints" / "last.ckpt"
    path.parent.mkdir()
    path.write_bytes(b"PK")
    assert main(["audit", "--run", str(tmp_path)]) == 2
    assert "is cut short or no checkpoint" in " ".join(capsys.readouterr().err.split())


def test_another_protocol_is_refused_before_anything_is_trained(shop, tmp_path, capsys):
    (tmp_path / "time.yaml").write_text("data: {protocol: {class_path: seqrec.data.protocol.GlobalTimeSplit}}\n")
    given = [f"--data={shop / 'clean'}", f"--model=[{shop / 'model.yaml'},{tmp_path / 'time.yaml'}]"]
    assert main(["robustness", *given, "--attacks=[Random]", "--seeds=[1]", f"--out={tmp_path / 'out'}"]) == 2
    assert "poisoned data go with LeaveOneOut alone" in capsys.readouterr().err
    assert not (tmp_path / "out" / "runs").exists()


def test_an_audit_of_weights_that_never_counted_says_so(idle, tmp_path, capsys):
    run, trail = shutil.copytree(idle, tmp_path / "run"), Trail(active_from=100)
    trail.decided(2, torch.full((105,), 0.5), torch.ones(105, dtype=torch.bool), torch.zeros(105))
    kept = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    kept["state_dict"]["reweighter._extra_state"]["trail"] = trail.state()
    torch.save(kept, run / "checkpoints" / "last.ckpt")
    assert main(["audit", "--run", str(run)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "No weight counted: they do after 100 epochs, and training took 3." in said
    assert "precision" not in said


def test_an_audit_of_a_run_that_weighed_nobody_says_so(shop, reported, capsys):
    assert main(["audit", "--run", str(reported / "runs" / "clean+none-seed1")]) == 2
    assert "configs/study/lorec.yaml" in capsys.readouterr().err
    assert main(["audit", "--run", str(shop / "nowhere")]) == 2
    assert "seqrec fit" in capsys.readouterr().err
