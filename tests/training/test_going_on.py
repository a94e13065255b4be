"""Runs that go on elsewhere, after early stopping, with clipped gradients, or without a number for a seed."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from small_shop import a_shop, command, said_of

from seqrec.cli import main
from seqrec.training.task import NextItemTask


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    return a_shop(tmp_path_factory.mktemp("going-on"))


def best_of(run: Path) -> dict:
    return torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)


def falling(monkeypatch) -> None:
    """From the second epoch on validation is worse and worse."""
    log = NextItemTask.log

    def logged(task, name, value, **more):
        log(task, name, 1 / (1 + task.current_epoch) if name == "val/ndcg@10" else value, **more)

    def logged_all(task, values, **more):
        for name, value in values.items():
            logged(task, name, value, **more)

    monkeypatch.setattr(NextItemTask, "log", logged)
    monkeypatch.setattr(NextItemTask, "log_dict", logged_all)


@pytest.mark.parametrize("goes_on", ["moved", "beside"])
def test_the_best_epoch_is_kept_where_a_run_goes_on_in_another_folder(shop, goes_on, monkeypatch, tmp_path, recwarn):
    falling(monkeypatch)
    assert main(command(shop, "fit", f"of-{goes_on}", "--trainer.max_epochs=2")) == 0
    before, there = best_of(shop / f"of-{goes_on}"), tmp_path / "there"
    assert before["epoch"] == 0
    if goes_on == "moved":
        shutil.move(shop / f"of-{goes_on}", there)
        last = "last"
    else:
        last = str(shop / f"of-{goes_on}" / "checkpoints" / "last.ckpt")
    assert main(command(shop, "fit", str(there), "--trainer.max_epochs=4", f"--ckpt_path={last}")) == 0
    after = best_of(there)
    assert after["epoch"] == 0
    assert all(torch.equal(after["state_dict"][name], weight) for name, weight in before["state_dict"].items())
    fitted = json.loads((there / "fit.json").read_text())
    assert fitted["epochs"] == 4
    assert fitted["validation"] == {"val/ndcg@10": 1.0, "epoch": 0}
    assert not [each for each in recwarn if "dirpath" in str(each.message)]


def test_without_the_best_epoch_of_the_other_folder_the_next_is_kept(shop, monkeypatch, tmp_path):
    falling(monkeypatch)
    assert main(command(shop, "fit", "alone", "--trainer.max_epochs=2")) == 0
    last = shutil.copy(shop / "alone" / "checkpoints" / "last.ckpt", tmp_path / "last.ckpt")
    told = command(shop, "fit", str(tmp_path / "there"), "--trainer.max_epochs=4", f"--ckpt_path={last}")
    assert main(told) == 0
    assert best_of(tmp_path / "there")["epoch"] == 2


def test_what_early_stopping_ended_stays_ended_unless_it_is_told_to_wait_longer(shop, monkeypatch):
    falling(monkeypatch)
    told = ["--trainer.max_epochs=9", "--early_stopping.patience=2"]
    assert main(command(shop, "fit", "stopped", *told)) == 0
    fitted = shop / "stopped" / "fit.json"
    assert json.loads(fitted.read_text())["epochs"] == 3
    assert main(command(shop, "fit", "stopped", *told, "--ckpt_path=last")) == 0
    assert json.loads(fitted.read_text())["epochs"] == 3
    last = shop / "stopped" / "checkpoints" / "last.ckpt"
    assert main(command(shop, "fit", "stopped-elsewhere", *told, f"--ckpt_path={last}")) == 0
    assert json.loads((shop / "stopped-elsewhere" / "fit.json").read_text())["validation"]["epoch"] == 0
    assert best_of(shop / "stopped-elsewhere")["epoch"] == 0
    longer = ["--trainer.max_epochs=9", "--early_stopping.patience=4", "--ckpt_path=last"]
    assert main(command(shop, "fit", "stopped", *longer)) == 0
    assert json.loads(fitted.read_text())["epochs"] == 5


def test_a_run_goes_on_with_the_rate_and_the_decay_that_its_config_says(shop):
    assert main(command(shop, "fit", "rate", "--trainer.max_epochs=1", "--model.learning_rate=0.001")) == 0
    told = ["--model.learning_rate=0.01", "--model.weight_decay=0.3", "--model.betas=[0.8,0.99]"]
    assert main(command(shop, "fit", "rate", "--trainer.max_epochs=2", "--ckpt_path=last", *told)) == 0
    last = torch.load(shop / "rate" / "checkpoints" / "last.ckpt", weights_only=True)
    (group,) = last["optimizer_states"][0]["param_groups"]
    found = group["lr"], group["initial_lr"], group["weight_decay"], tuple(group["betas"])
    assert found == (0.01, 0.01, 0.3, (0.8, 0.99))


@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
def test_gradients_may_be_clipped(shop, precision):
    given = [f"--trainer.precision={precision}", "--trainer.gradient_clip_val=1.0", "--trainer.max_epochs=1"]
    assert main(command(shop, "fit", f"clipped-{precision}", *given)) == 0


@pytest.mark.parametrize("seed", ["true", "false"])
def test_a_seed_that_is_no_number_is_refused(shop, seed, capsys):
    said = said_of(capsys, *command(shop, "fit", "unseeded", f"--seed_everything={seed}"))
    assert f"seed_everything is {seed}" in said
    assert not (shop / "unseeded").exists()


def test_a_fit_that_has_not_ended_is_tested_with_a_word(shop, capsys):
    assert main(command(shop, "fit", "unfinished", "--trainer.max_epochs=2")) == 0
    run = shop / "unfinished"
    (run / "fit.json").unlink()
    capsys.readouterr()
    assert main(["test", f"--run={run}"]) == 0
    assert "has not ended" in " ".join(capsys.readouterr().err.split())
    result = json.loads((run / "result.json").read_text())
    assert result["texts"] == []
    assert main(command(shop, "fit", "unfinished", "--trainer.max_epochs=3", "--ckpt_path=last")) == 0
    assert not (run / "result.json").exists()  # it is of other weights


def test_recipes_are_reproduced_each_for_itself_and_by_the_vectors_of_then(shop, monkeypatch, capsys):
    monkeypatch.chdir(shop)
    told = {"short": "--model.cutoffs=[1,10]", "long": "--model.cutoffs=[10]"}
    for name, cutoffs in told.items():
        assert main(command(shop, "fit", name, "--trainer.max_epochs=1", cutoffs)) == 0
        assert main(["test", f"--run={shop / name}"]) == 0
    capsys.readouterr()
    assert main(["reproduce", f"[{shop / 'short'},{shop / 'long'}]"]) == 0
    said = capsys.readouterr().out
    assert said.count("SASRec on shop: mean of 1 seed") == 2
    assert said.count("recall@1 ") == 1
    rows = [line.split("│")[1:4] for line in said.splitlines() if "ndcg@10" in line and "│" in line]
    assert all(recorded.strip() == again.strip() for _, recorded, again in rows)
    assert len(rows) >= 2
    result = json.loads((shop / "short" / "result.json").read_text())
    (shop / "titles.parquet").write_bytes(b"not those of then")
    result["texts"] = [{"vectors": str(shop / "titles.parquet"), "digest": "0" * 64}]
    (shop / "short" / "result.json").write_text(json.dumps(result))
    assert "are others now; put back those of then" in said_of(capsys, "reproduce", str(shop / "short"))


def test_a_run_that_cannot_go_on_is_refused_before_what_it_left_is_touched(shop, capsys):
    assert main(command(shop, "fit", "refused", "--trainer.max_epochs=3")) == 0
    assert main(["test", f"--run={shop / 'refused'}", "--verbose=false"]) == 0
    kept = {name: (shop / "refused" / name).read_text() for name in ("config.yaml", "fit.json", "result.json")}
    goes_on = command(shop, "fit", "refused", "--ckpt_path=last")
    said = said_of(capsys, *goes_on, "--trainer.max_epochs=2", "--model.learning_rate=0.05")
    assert "has trained 3 epochs and trainer.max_epochs is 2" in said
    wider = "--model.recommender.init_args.backbone.init_args.n_layers=2"
    said = said_of(capsys, *goes_on, "--trainer.max_epochs=5", wider)
    assert "checkpoint is of another model than the config describes" in said
    assert kept == {name: (shop / "refused" / name).read_text() for name in kept}


def test_a_fit_whose_texts_are_not_there_leaves_the_earlier_run_in_its_folder(shop, capsys):
    assert main(command(shop, "fit", "texts", "--trainer.max_epochs=1")) == 0
    before = (shop / "texts" / "config.yaml").read_text()
    config = shop / "texts.yaml"
    plugin = Path(__file__).parents[2] / "configs" / "plugin" / "text-sum.yaml"
    config.write_text(plugin.read_text().replace("data/raw/{data}/minilm.parquet", str(shop / "absent.parquet")))
    stack = [f"--config={shop / 'data.yaml'}", f"--config={shop / 'model.yaml'}", f"--config={config}"]
    said = said_of(capsys, "fit", *stack, f"--run={shop / 'texts'}", "--trainer.max_epochs=1")
    assert "absent.parquet does not exist" in said
    assert (shop / "texts" / "config.yaml").read_text() == before
    assert not (shop / "texts" / ".previous").exists()


@pytest.mark.parametrize("last", [False, True])
def test_what_refines_a_run_counts_before_and_behind_its_name(shop, last):
    assert main(command(shop, "fit", "refined", "--trainer.max_epochs=1")) == 0
    run, refines = [f"--run={shop / 'refined'}"], ["--data.max_length", "3", "--verbose=false"]
    assert main(["test", *(refines + run if last else run + refines)]) == 0
    assert json.loads((shop / "refined" / "result.json").read_text())["config"]["data"]["max_length"] == 3
