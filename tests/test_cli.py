"""The whole journey through the command line, on a shop of sixty users."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pytest
import torch
import yaml
from small_shop import a_shop, command, said_of

from seqrec.board.results import read
from seqrec.cli import main
from seqrec.data.batching import ShuffledBatches
from seqrec.data.datamodule import SequenceDataModule
from seqrec.data.errors import InputError
from seqrec.data.log import Log
from seqrec.data.poisoning.heuristic import Random
from seqrec.data.poisoning.poison import poisoned
from seqrec.training.task import NextItemTask


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    return a_shop(tmp_path_factory.mktemp("cli"))


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


class KillError(BaseException):
    """The program ends here, whatever it is at."""


@contextmanager
def killed_in_training() -> Iterator[None]:
    """What is done in here ends in the first step of training."""

    def killed(*_):
        raise KillError

    with pytest.MonkeyPatch.context() as at_once:
        at_once.setattr(NextItemTask, "training_step", killed)
        with pytest.raises(KillError):
            yield


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


def test_a_fit_that_is_interrupted_tells_how_it_goes_on(shop):
    program = started(*command(shop, "fit", "interrupted", "--trainer.max_epochs=2000"))
    last = shop / "interrupted" / "checkpoints" / "last.ckpt"
    while not last.exists():
        assert program.poll() is None, program.communicate()[0].decode()[-3000:]
        time.sleep(0.01)
    program.send_signal(signal.SIGINT)
    said = program.communicate()[0].decode()
    assert program.returncode == 130, said[-3000:]
    assert f"Go on with: seqrec fit --config {shop / 'interrupted' / 'config.yaml'} --ckpt_path last" in said
    assert "seqrec: stopped" in said
    assert "Traceback" not in said


def test_a_fit_tells_which_kernels_refused_and_why(shop):
    model = Path(__file__).parents[1] / "configs" / "model" / "mamba4rec.yaml"
    stack = [f"--config={shop / 'data.yaml'}", f"--config={model}", f"--run={shop / 'told'}"]
    said, _ = (program := started("fit", *stack, "--trainer.max_epochs=1", "--trainer.accelerator=cpu")).communicate()
    assert program.returncode == 0, said.decode()[-3000:]
    told = [line for line in said.decode().splitlines() if " runs as '" in line]
    assert len(told) == len(set(told))
    assert "causal_conv1d runs as 'shifted' (triton: tensors are on cpu)" in told


def test_a_run_that_went_on_is_tested_at_its_best_epoch(shop):
    assert main(command(shop, "fit", "went-on", "--trainer.max_epochs=1")) == 0
    assert main(command(shop, "fit", "went-on", "--trainer.max_epochs=2", "--ckpt_path=last")) == 0
    config = shop / "went-on" / "config.yaml"
    assert yaml.safe_load(config.read_text())["ckpt_path"] is None
    config.write_text(config.read_text().replace("ckpt_path: null", "ckpt_path: last"))  # as it once was kept
    (shop / "went-on" / "checkpoints" / "last.ckpt").unlink()
    assert main(["test", f"--run={shop / 'went-on'}", "--verbose=false"]) == 0
    assert main(["test", "--ckpt_path=last", f"--run={shop / 'went-on'}", "--verbose=false"]) == 2


def test_a_run_that_begins_anew_leaves_nothing_of_the_model_before_it(shop, capsys):
    assert main(command(shop, "fit", "anew", "--trainer.max_epochs=1")) == 0
    assert main(command(shop, "fit", "elsewhere", "--trainer.max_epochs=1")) == 0
    elsewhere = shop / "elsewhere" / "checkpoints" / "last.ckpt"
    for more in ([], [f"--ckpt_path={elsewhere}", "--trainer.max_epochs=2"]):
        with killed_in_training():
            main(command(shop, "fit", "anew", "--model.learning_rate=0.9", *more))
        assert list((shop / "anew").glob("checkpoints/*.ckpt")) == []
        assert f"lies in {shop / 'anew' / '.previous'} now" in capsys.readouterr().out
        assert main(["test", f"--run={shop / 'anew'}"]) == 2
        assert "best.ckpt" in capsys.readouterr().err
        assert main(command(shop, "fit", "anew", "--trainer.max_epochs=1")) == 0


def test_a_fit_in_the_folder_of_another_run_lays_that_aside_and_not_what_came_to_nothing(shop, capsys):
    assert main(command(shop, "fit", "twice", "--trainer.max_epochs=1")) == 0
    assert main(["test", f"--run={shop / 'twice'}", "--verbose=false"]) == 0
    found = json.loads((shop / "twice" / "result.json").read_text())["metrics"]
    for _ in range(2):  # the second finds nothing to lay aside
        with killed_in_training():
            main(command(shop, "fit", "twice", "--model.learning_rate=0.9"))
        assert main(["test", f"--run={shop / 'twice' / '.previous'}", "--verbose=false"]) == 0
        assert json.loads((shop / "twice" / ".previous" / "result.json").read_text())["metrics"] == found
    with pytest.raises(InputError, match=r"No result\.json was found"):
        read([shop / "twice"])


def test_a_run_goes_on_from_its_own_checkpoint_however_its_path_is_written(shop, monkeypatch):
    monkeypatch.chdir(shop)
    assert main(command(shop, "fit", "own", "--run=own", "--trainer.max_epochs=1")) == 0
    for path in (shop / "own/checkpoints/last.ckpt", Path("own/../own/checkpoints/best.ckpt")):
        with killed_in_training():
            main(["fit", "--config=own/config.yaml", f"--ckpt_path={path}", "--trainer.max_epochs=2"])
        assert sorted(path.name for path in Path("own/checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


def test_two_fits_in_one_folder_do_not_take_each_others_checkpoints(shop, capsys):
    """A run is let go when its program ends, however it ends."""
    program = started(*command(shop, "fit", "shared", "--trainer.max_epochs=2000"))
    while not (shop / "shared" / "checkpoints" / "last.ckpt").exists():
        assert program.poll() is None, program.communicate()[0].decode()[-3000:]
        time.sleep(0.01)
    said = said_of(capsys, *command(shop, "fit", "shared", "--trainer.max_epochs=1"))
    assert f"Another fit is at work in {shop / 'shared'}; wait for it, or name another --run." in said
    assert (shop / "shared" / "checkpoints" / "last.ckpt").exists()
    program.kill()
    program.communicate()
    assert main(command(shop, "fit", "shared", "--trainer.max_epochs=1")) == 0


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
    """Some batches leave one of the two without a history, and users are weighed on both alike."""
    plain = [
        "--trainer.max_epochs=3",
        "--data.events_per_batch=40",
        "--model.recommender.init_args.dropout=0",
        "--model.recommender.init_args.backbone.init_args.dropout=0",
        "--data.fraudsters=seqrec.data.poisoning.known.KnownFraudsters",
        "--model.reweighter=seqrec.objectives.lorec.LoRec",
        "--model.reweighter.init_args.vectors=null",
        "--model.reweighter.init_args.active_from=1",
        "--model.reweighter.init_args.period=1",
    ]
    whole = SequenceDataModule(str(shop / "shop"), max_length=20, events_per_batch=40).train_dataloader().sampler
    assert any(not len(share.rows) for share in ShuffledBatches(whole.lengths, whole.budget, seed=42, rank=1, world=2))
    assert main(command(shop, "fit", "alone", *plain)) == 0
    seqrec(*command(shop, "fit", "together", *plain, "--trainer.devices=2", "--trainer.strategy=ddp"))
    alone, together = (
        pl.read_csv(shop / run / "logs" / "csv" / "version_0" / "metrics.csv") for run in ("alone", "together")
    )
    for column in ("train/loss", "val/ndcg@10", "val/recall@5"):
        one, two = alone[column].drop_nulls(), together[column].drop_nulls()
        assert len(one) == len(two) > 1
        assert two.to_list() == pytest.approx(one.to_list(), rel=1e-4)


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
