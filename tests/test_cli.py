"""The whole journey through the command line, on a shop of sixty users."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
import torch
import yaml

from seqrec.cli import ORDER, main
from seqrec.data.log import Log
from seqrec.data.poisoning.heuristic import Random
from seqrec.data.poisoning.poison import poisoned
from seqrec.data.prepare import prepare_log
from seqrec.data.simulated import SimulatedShop
from seqrec.training.task import NextItemTask

MODEL = """
trainer: {accelerator: cpu, enable_progress_bar: false, enable_model_summary: false, log_every_n_steps: 1}
model:
  recommender:
    class_path: seqrec.recommenders.sequential.SequentialRecommender
    init_args:
      embedding: {class_path: seqrec.embeddings.ids.IdEmbedding, init_args: {dim: 8}}
      backbone: {class_path: seqrec.backbones.sasrec.SASRec, init_args: {dim: 8, n_layers: 1, n_heads: 2, dropout: 0.1}}
      dropout: 0.1
  objective: seqrec.objectives.softmax.FullSoftmax
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    prepare_log(SimulatedShop(users=60, items=60, mean_events=12.0), folder / "shop")
    (folder / "data.yaml").write_text(f"data: {{prepared: {folder / 'shop'}, max_length: 20, events_per_batch: 200}}\n")
    (folder / "model.yaml").write_text(MODEL)
    return folder


def command(shop: Path, name: str, run: str, *more: str) -> list[str]:
    stack = [f"--config={shop / 'data.yaml'}", f"--config={shop / 'model.yaml'}"]
    return [name, *stack, f"--run={shop / run}", *more]


def started(*arguments: str) -> subprocess.Popen:
    """The real program, in a process of its own."""
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        [sys.executable, "-m", "seqrec.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
    )


def seqrec(*arguments: str) -> None:
    program = started(*arguments)
    said, _ = program.communicate()
    assert program.returncode == 0, said.decode()[-3000:]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


EPOCHS = "--trainer.max_epochs=20"


@pytest.fixture(scope="module")
def straight(shop) -> Path:
    """A run that nothing disturbed."""
    seqrec(*command(shop, "fit", "straight", EPOCHS))
    return shop / "straight"


def test_a_run_that_was_killed_and_resumed_equals_one_that_was_not(shop, straight):
    program = started(*command(shop, "fit", "killed", EPOCHS))
    last = shop / "killed" / "checkpoints" / "last.ckpt"
    while not last.exists():
        assert program.poll() is None, program.communicate()[0].decode()[-3000:]
        time.sleep(0.002)
    program.kill()
    assert program.wait() == -signal.SIGKILL
    program.stdout.close()
    when_killed = weights(shop / "killed")
    seqrec("fit", f"--config={shop / 'killed' / 'config.yaml'}", "--ckpt_path=last")
    whole, resumed = weights(straight), weights(shop / "killed")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert not all(torch.equal(when_killed[name], resumed[name]) for name in whole)


def test_a_run_that_went_on_is_tested_at_its_best_epoch(shop):
    assert main(command(shop, "fit", "went-on", "--trainer.max_epochs=1")) == 0
    assert main(command(shop, "fit", "went-on", "--trainer.max_epochs=2", "--ckpt_path=last")) == 0
    config = shop / "went-on" / "config.yaml"
    assert yaml.safe_load(config.read_text())["ckpt_path"] is None
    config.write_text(config.read_text().replace("ckpt_path: null", "ckpt_path: last"))  # as it once was kept
    (shop / "went-on" / "checkpoints" / "last.ckpt").unlink()
    assert main(["test", f"--run={shop / 'went-on'}", "--verbose=false"]) == 0
    assert main(["test", "--ckpt_path=last", f"--run={shop / 'went-on'}", "--verbose=false"]) == 2


def test_a_run_that_begins_anew_leaves_nothing_of_the_model_before_it(shop, monkeypatch, capsys):
    class KillError(BaseException):
        pass

    def killed(*_):
        raise KillError

    assert main(command(shop, "fit", "anew", "--trainer.max_epochs=1")) == 0
    assert main(command(shop, "fit", "elsewhere", "--trainer.max_epochs=1")) == 0
    elsewhere = shop / "elsewhere" / "checkpoints" / "last.ckpt"
    for more in ([], [f"--ckpt_path={elsewhere}", "--trainer.max_epochs=2"]):
        with monkeypatch.context() as at_once:
            at_once.setattr(NextItemTask, "training_step", killed)
            with pytest.raises(KillError):
                main(command(shop, "fit", "anew", "--model.learning_rate=0.9", *more))
        assert list((shop / "anew").glob("checkpoints/*.ckpt")) == []
        assert main(["test", f"--run={shop / 'anew'}"]) == 2
        assert "best.ckpt" in capsys.readouterr().err
        assert main(command(shop, "fit", "anew", "--trainer.max_epochs=1")) == 0


def test_a_model_is_not_tested_on_what_it_may_have_learned_from(shop, straight, capsys):
    """Under a protocol that sets other events aside, or on other data of the same items, the answers may be known."""
    by_ratio = ["--data.protocol=RatioByUser", "--data.protocol.init_args.test_share=0.5"]
    assert main(["test", f"--run={straight}", "--verbose=false", *by_ratio]) == 2
    assert "learned from other events than this data and protocol leave for training" in capsys.readouterr().err
    other = ["--data.protocol=LeaveOneOut", "--data.protocol.init_args.seen_is_excluded=false"]
    assert main(["test", f"--run={straight}", "--verbose=false", *other]) == 0
    poisoned(shop / "shop", shop / "other", Random(), budget=0.05)  # the same items
    assert main(["test", f"--run={straight}", "--verbose=false", f"--data.prepared={shop / 'other'}"]) == 2
    assert "learned from other events" in capsys.readouterr().err


def test_training_that_ends_before_its_first_validation_is_refused(shop, capsys):
    assert main(command(shop, "fit", "never", "--trainer.max_steps=1")) == 2
    assert "Training ended before its first validation" in capsys.readouterr().err


def test_who_stops_a_run_is_not_told_that_it_is_done(shop):
    program = started(*command(shop, "fit", "stopped", "--trainer.max_epochs=2000"))
    while not (shop / "stopped" / "checkpoints" / "last.ckpt").exists():
        assert program.poll() is None, program.communicate()[0].decode()[-3000:]
        time.sleep(0.01)
    program.terminate()
    program.communicate()
    assert program.returncode == 128 + signal.SIGTERM
    assert not (shop / "stopped" / "fit.json").exists()


def test_a_kill_while_checkpoints_are_written_leaves_those_before_whole(shop, monkeypatch):
    """Temporary files are on another file system, so that a move from there is a copy, which the kill cuts off."""

    class KillError(BaseException):
        pass

    def cut_off(source: str, target: str) -> None:
        if Path(source).parent == Path(target).parent:
            os.replace(source, target)
        else:
            Path(target).write_bytes(Path(source).read_bytes()[:1000])
            raise KillError

    assert main(command(shop, "fit", "cut-off", "--trainer.max_epochs=1")) == 0
    going_on = command(shop, "fit", "cut-off", "--trainer.max_epochs=2", "--ckpt_path=last")
    with monkeypatch.context() as other_file_system:
        other_file_system.setattr(shutil, "move", cut_off)
        with pytest.raises(KillError):
            main(going_on)
    for name in ("best", "last"):
        path = shop / "cut-off" / "checkpoints" / f"{name}.ckpt"
        assert torch.load(path, map_location="cpu", weights_only=True)["epoch"] == 0
    assert main(going_on) == 0
    assert sorted(path.name for path in (shop / "cut-off" / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


def test_a_test_leaves_a_result_that_says_all(straight, capsys):
    assert main(["test", f"--run={straight}", "--verbose=false"]) == 0
    result = json.loads((straight / "result.json").read_text())
    assert 0 <= result["metrics"]["ndcg@10"] <= 1
    assert result["seed"] == 42
    assert (result["model"], result["data"], result["epochs"]) == ("SASRec", "shop", 20)
    assert result["parameters"] > 60 * 8
    assert min(result[name] for name in ("wall_seconds", "peak_memory_bytes", "events_per_second")) > 0
    assert result["passport"]
    assert result["config"]["trainer"]["max_epochs"] == 20
    ranks = pl.read_parquet(straight / "ranks.parquet")
    assert 0 < ranks.height <= 60
    assert ranks.columns == ["user", "target", "rank", "history", "popularity"]
    assert ranks["history"].min() >= 2  # the validation event is read in the test, and one before it
    assert [point["epoch"] for point in result["curve"]] == list(range(20))
    assert {"seconds", "train/loss", "val/recall@10", "val/ndcg@10"} < set(result["curve"][0])


def test_a_compiled_run_learns_the_same(shop):
    """Without dropout, whose random numbers are others when it is compiled."""
    compiled = f"--config={Path(__file__).parents[1] / 'configs' / 'trainer' / 'compile.yaml'}"
    prefix = "--model.recommender.init_args."
    still = (f"{prefix}dropout=0", f"{prefix}backbone.init_args.dropout=0", "--trainer.max_epochs=2")
    assert main(command(shop, "fit", "eager", *still)) == 0
    seqrec(*command(shop, "fit", "compiled", compiled, *still))
    eager, other = weights(shop / "eager"), weights(shop / "compiled")
    assert eager.keys() == other.keys()
    for name in eager:
        torch.testing.assert_close(other[name], eager[name], rtol=1e-3, atol=1e-5)
    seqrec("test", f"--run={shop / 'compiled'}")
    assert json.loads((shop / "compiled" / "result.json").read_text())["config"]["model"]["init_args"]["compile"]


def test_checkpoints_hold_nothing_but_weights_and_plain_values(straight):
    for name in ("best", "last"):
        torch.load(straight / "checkpoints" / f"{name}.ckpt", weights_only=True)


def test_nothing_is_said_to_the_authors_of_lightning_alone(shop, capsys):
    for again in ("first", "second"):  # in one program, as the quickstart runs them
        capsys.readouterr()
        given = [f"--config={shop / 'data.yaml'}", "--config=configs/model/popularity.yaml"]
        given += ["--trainer.enable_progress_bar=false", "--trainer.log_every_n_steps=1"]
        assert main(["fit", *given, f"--run={shop / again}"]) == 0
        assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize("baseline", ["popularity", "recent_popularity", "markov"])
def test_a_baseline_counts_once_and_is_measured_alike(shop, baseline):
    quiet = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
    stack = [f"--config={shop / 'data.yaml'}", f"--config=configs/model/{baseline}.yaml", f"--run={shop / baseline}"]
    assert main(["fit", *stack, *quiet]) == 0
    assert main(["test", f"--run={shop / baseline}", "--verbose=false"]) == 0
    result = json.loads((shop / baseline / "result.json").read_text())
    assert result["metrics"]["ndcg@10"] > 0
    assert result["validation"].keys() == {"val/ndcg@10", "epoch"}  # what a search goes by


def test_what_happened_lately_is_not_counted_without_a_clock(shop, capsys):
    shutil.copytree(shop / "shop", shop / "no-clock")
    manifest = json.loads((shop / "no-clock" / "manifest.json").read_text())
    (shop / "no-clock" / "manifest.json").write_text(json.dumps(manifest | {"unit_of_times": "position"}))
    fit = ["fit", f"--data.prepared={shop / 'no-clock'}", f"--run={shop / 'no-week'}"]
    assert main([*fit, "--config=configs/model/recent_popularity.yaml"]) == 2
    assert "the times of this data set are positions in the histories; choose Popularity" in capsys.readouterr().err


def test_a_model_that_fills_gaps_goes_the_whole_way(shop, capsys):
    pytest.importorskip("faiss")
    quiet = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
    run, bundle = shop / "gaps", shop / "bundle"
    stack = [f"--config={shop / 'data.yaml'}", "--config=configs/model/bert4rec.yaml", f"--run={run}"]
    assert main(["fit", *stack, *quiet, "--trainer.max_epochs=2"]) == 0
    assert main(["test", f"--run={run}", "--verbose=false"]) == 0
    assert json.loads((run / "result.json").read_text())["metrics"]["ndcg@10"] > 0
    assert main(["export", f"--run={run}", f"--out={bundle}"]) == 0
    history = Log.open(shop / "shop").catalog.ids[:3].to_list()
    capsys.readouterr()
    assert main(["recommend", f"--bundle={bundle}", f"--history={','.join(history)}", "-k=5"]) == 0
    assert capsys.readouterr().out.count("item-") == 5
    # The same stack without the supervision that hides events is refused before it trains.
    assert main(["fit", *stack, *quiet, "--data.supervision=seqrec.data.supervision.EveryEvent"]) == 2
    assert "seqrec.data.supervision.MaskedEvents" in capsys.readouterr().err


def test_two_processes_equal_one_on_the_same_global_batches(shop):
    plain = [
        "--trainer.max_epochs=2",
        "--model.recommender.init_args.dropout=0",
        "--model.recommender.init_args.backbone.init_args.dropout=0",
    ]
    assert main(command(shop, "fit", "alone", *plain)) == 0
    seqrec(*command(shop, "fit", "together", *plain, "--trainer.devices=2", "--trainer.strategy=ddp"))
    alone, together = (
        pl.read_csv(shop / run / "logs" / "csv" / "version_0" / "metrics.csv") for run in ("alone", "together")
    )
    for column in ("train/loss", "val/ndcg@10", "val/recall@5"):
        one, two = alone[column].drop_nulls(), together[column].drop_nulls()
        assert len(one) == len(two) > 1
        assert two.to_list() == pytest.approx(one.to_list(), rel=1e-4)


@pytest.mark.parametrize(
    ("mistake", "meant"),
    [
        ("--trainer.max_epohcs=3", "trainer.max_epochs"),
        ("--data.max_lenght=3", "data.max_length"),
        ("--start_from=bundle", "starts_from"),
        ("--model.learning_rat=0.1", "learning_rate"),
        ("--model.recommender.init_args.backbone.init_args.n_layer=3", "n_layers"),
        ("--model.recommender.init_args.backbone=seqrec.backbones.sasrec.SASREC", "seqrec.backbones.sasrec.SASRec"),
        ("--model.objective=seqrec.objectives.softmx.FullSoftmax", "seqrec.objectives.softmax.FullSoftmax"),
    ],
)
def test_a_slip_is_answered_with_what_was_meant(shop, capsys, mistake, meant):
    assert main(command(shop, "fit", "slip", mistake)) == 2
    said = capsys.readouterr().err
    assert "seqrec: error:" in said
    assert f"Did you mean '{meant}'" in said or f"Did you mean {meant}?" in said
    assert "Traceback" not in said


def test_a_misspelt_key_in_a_file_is_answered_alike(shop, capsys):
    (shop / "slip.yaml").write_text("trainer: {max_epoch: 3}\n")
    assert main(command(shop, "fit", "slip", f"--config={shop / 'slip.yaml'}")) == 2
    assert "Did you mean 'trainer.max_epochs'?" in capsys.readouterr().err


def test_a_file_with_broken_yaml_is_named_with_the_place(shop, capsys):
    (shop / "broken.yaml").write_text("trainer: {max_epochs: 3\n")
    said = said_of(capsys, *command(shop, "fit", "slip", f"--config={shop / 'broken.yaml'}"))
    assert f"{shop / 'broken.yaml'} is not a config of keys and values; correct it: " in said
    assert "line 2" in said


def test_missing_things_are_named_with_the_remedy(shop, capsys):
    assert main(["test", f"--run={shop / 'nowhere'}"]) == 2
    assert "seqrec fit" in capsys.readouterr().err
    assert main(command(shop, "fit", "nodata", f"--data.prepared={shop / 'nothing'}")) == 2
    assert "seqrec prepare" in capsys.readouterr().err
    assert main(command(shop, "fit", "fresh", "--ckpt_path=last")) == 2
    assert "last.ckpt does not exist" in capsys.readouterr().err


def test_the_overview_names_every_command_and_a_slip_is_answered(capsys):
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    for name in ORDER:
        assert f"\n  {name} " in said
    assert main(["tets"]) == 2
    assert "'test'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ORDER)
def test_the_help_of_a_command_shows_its_use_and_an_example_on_a_line_of_its_own(capsys, name):
    if name in ("export", "recommend", "add-items", "block-items", "remove-items", "serve"):
        pytest.importorskip("faiss")
    with pytest.raises(SystemExit) as left:
        main([name, "--help"])
    assert left.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: seqrec {name} ")
    examples = [line for line in said.splitlines() if line.startswith(f"  seqrec {name} ")]
    assert examples
    assert said.index(examples[0]) < said.index("options:")


def test_options_may_be_spelt_as_people_spell_them():
    from seqrec.cli import _as_declared
    from seqrec.export.answers import recommend

    given = ["--bundle", "b", "-k", "3", "--exclude-seen", "--history=-1,2"]
    assert _as_declared(recommend, given) == ["--bundle", "b", "--k", "3", "--exclude_seen=true", "--history=-1,2"]
    assert _as_declared(recommend, ["--exclude-seen", "false"]) == ["--exclude_seen", "false"]


def said_of(capsys, *arguments: str) -> str:
    """The one sentence that a mistake is answered with."""
    capsys.readouterr()
    assert main(list(arguments)) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("seqrec: error: ")]
    assert len(said) == 1
    assert "Union" not in said[0]
    assert "Namespace" not in said[0]
    assert len(said[0]) < 400
    return said[0]


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ("--trainer.devices=0", "trainer.devices 0"),
        ("--early_stopping.monitor=val/ndgc@10", "never logged; the nearest is 'val/ndcg@10'"),
        ("--early_stopping.mode=maxx", "got maxx"),
        ("--model.recommender.init_args.backbone.init_args.n_heads=3", "dim must be a multiple of n_heads."),
        ("--model.recommender.init_args.backbone.init_args.dim=4", "Give both the same dim."),
        ("--model.learning_rate=-1", "learning_rate is -1.0; it must be above 0"),
        ("--model.recommender.init_args.backbone.init_args.norm=pree", "backbone.norm is 'pree', but must be one of"),
        ("--model.recommender.init_args.backbone=seqrec.scorers.Dot", "which is no Backbone; give seqrec.backbones."),
        ("--data.supervision=seqrec.scorers.Dot", "is seqrec.scorers.Dot, which is no Supervision; give seqrec.data."),
        ("--trainer.precision=bf17", "Did you mean 'bf16'?"),
        ("--trainer.max_epochs=many", "trainer.max_epochs is 'many', but must be a whole number or null."),
        ("--model.objective=FullSoftmx", "Did you mean seqrec.objectives.softmax.FullSoftmax?"),
        ("--data.supervision=EveryEven", "Did you mean seqrec.data.supervision.EveryEvent?"),
        ("--data.protocol.seen_is_exclude=true", "before its seen_is_excluded, to seqrec.data.protocol."),
        ("--traner.max_epochs=3", "Did you mean 'trainer.max_epochs'?"),
        ("--modle.learning_rate=3", "Did you mean 'model.learning_rate'?"),
        ("--config=configs/model/sasrek.yaml", "Did you mean configs/model/sasrec.yaml?"),
        ("--config=README.md", "README.md is not a config"),
        ("extra", "There is no place for 'extra'"),
    ],
)
def test_a_mistake_of_a_run_is_answered_with_one_sentence(shop, capsys, mistake, words):
    assert words in said_of(capsys, *command(shop, "fit", "mistake", mistake))
    assert not (shop / "mistake" / "checkpoints").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_device_that_is_not_there_is_named(shop, capsys):
    assert "trainer.accelerator gpu" in said_of(capsys, *command(shop, "fit", "gpu", "--trainer.accelerator=gpu"))


@pytest.mark.parametrize(("logger", "package"), [("WandbLogger", "wandb"), ("MLFlowLogger", "mlflow")])
def test_a_logger_without_its_package_names_the_extra(shop, capsys, logger, package):
    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed")
    given = command(shop, "fit", "logger", f"--trainer.logger=lightning.pytorch.loggers.{logger}")
    assert "pip install 'seqrec[track]'" in said_of(capsys, *given)


def test_a_run_without_a_model_or_data_says_so(shop, capsys):
    assert "--config configs/model/sasrec.yaml" in said_of(capsys, "fit", f"--config={shop / 'data.yaml'}")
    assert "--data.prepared" in said_of(capsys, "fit", f"--config={shop / 'model.yaml'}")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("prepare", "a.csv", "--usr_core=3"), "Did you mean 'user_core'?"),
        (("recommend", "--bundle=b", "--history=1", "--exclud-seen"), "Did you mean 'exclude_seen'?"),
        (("leaderboard", "--result=runs"), "Did you mean 'results'?"),
        (("leaderboard", "--results=runs"), "`seqrec leaderboard RESULTS`"),
        (("compare", "runs/nowhere", "runs/nowhere"), "runs/nowhere does not exist"),
        (("reproduce", "runs/nowhere"), "runs/nowhere does not exist"),
        (("leaderboard",), "give `seqrec leaderboard RESULTS`."),
        (("export", "--run=x"), "give --out."),
        (("prepare", "a.csv", "--min_rating=abc"), "min_rating is 'abc', but must be a number or null."),
        (("prepare", "a.csv", "--duplicates=keep_frist"), "Did you mean 'keep_first'?"),
    ],
)
def test_a_mistake_of_another_command_is_answered_alike(capsys, given, words):
    if given[0] in ("export", "recommend"):
        pytest.importorskip("faiss")
    assert words in said_of(capsys, *given)


def test_a_test_without_a_run_takes_the_default_one(shop, capsys, monkeypatch):
    monkeypatch.chdir(shop)
    for name in ("test", "validate"):
        said = said_of(capsys, name)
        assert "runs/latest/config.yaml does not exist" in said
        assert "--run" in said
    stack = ["--config=data.yaml", "--config=model.yaml"]
    assert main(["fit", *stack, "--trainer.max_epochs=1"]) == 0
    said = capsys.readouterr().out
    assert "The run lies in runs/latest." in said
    assert "Best epoch: 1 of 1, val/ndcg@10 0." in said
    assert "early stopping did not end it" in said
    assert "seqrec test --run runs/latest" in said
    assert main(["test", "--verbose=false"]) == 0
    assert (shop / "runs" / "latest" / "result.json").is_file()


def test_a_fit_says_that_early_stopping_ended_it(shop, capsys):
    given = command(shop, "fit", "early", "--early_stopping.patience=1", "--early_stopping.min_delta=1")
    assert main([*given, "--trainer.max_epochs=9"]) == 0
    assert "; early stopping ended it." in capsys.readouterr().out


def test_the_leaderboard_takes_several_folders_and_says_where_it_wrote(straight, shop, capsys):
    if not (straight / "result.json").is_file():
        assert main(["test", f"--run={straight}", "--verbose=false"]) == 0
    shutil.copytree(straight, shop / "again", dirs_exist_ok=True)
    page = shop / "page"
    capsys.readouterr()
    assert main(["leaderboard", str(straight), str(shop / "again"), f"--out={page}"]) == 0
    assert f"{page}.md and {page}.html: 2 runs in 1 table." in " ".join(capsys.readouterr().out.split())
