"""Every mistake on the command line is answered with one sentence that says what was meant or what to do."""

import importlib.util
from pathlib import Path

import pytest
import torch
from small_shop import a_shop, command, said_of

from seqrec.cli import ORDER, main


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    return a_shop(tmp_path_factory.mktemp("mistakes"))


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


OWN = """
from seqrec.backbones.base import Backbone


class Mine(Backbone):
    causal = True

    def __init__(self, dim: int, kernel: int = 3) -> None:
        super().__init__(dim)
        if kernel > 9:
            raise ValueError("kernel is too wide.")

    def forward(self, events, history):
        return events[1:]


class Undeclared(Backbone):
    def forward(self, events, history):
        return events
"""


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (["my_own.Mine", "init_args.krenel=4"], "There is no key 'krenel'. Did you mean 'kernel'?"),
        (["my_own.Mine", "init_args.kernel=10"], "kernel is too wide. ({folder}/my_own.py, line 11)"),
        (["my_own.Mine"], "Mine made states of shape"),
        (["my_own.Undeclared"], "Undeclared does not say whether it is causal; set causal = True or False."),
        (
            ["my_won.Mine"],
            "There is no module my_won; start seqrec in the folder that holds it, name that",
        ),
    ],
)
def test_a_mistake_in_a_part_of_ones_own_is_told_with_its_place(shop, capsys, monkeypatch, mistake, words):
    monkeypatch.chdir(shop)
    (shop / "my_own.py").write_text(OWN)
    key = "--model.recommender.init_args.backbone"
    name, *more = mistake
    given = [f"{key}={name}", f"{key}.init_args.dim=8", *(f"{key}.{each}" for each in more)]
    assert words.format(folder=shop) in said_of(capsys, *command(shop, "fit", "own", *given))


def test_a_position_of_another_width_is_refused(shop, capsys):
    position = "--model.recommender.init_args.position"
    given = [f"{position}=seqrec.positions.learned.LearnedPosition", f"{position}.dim=16", f"{position}.max_length=50"]
    said = said_of(capsys, *command(shop, "fit", "width", *given))
    assert "LearnedPosition adds vectors of width 16, the backbone reads 8. Give both the same dim." in said


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            ["model.recommender.init_args.backbone=seqrec.backbones.gru4rec.GRU4Rec",
             "model.recommender.init_args.backbone.init_args.position=seqrec.positions.relative.ALiBi"],
            "GRU4Rec takes no position; leave it out, or choose another model.recommender.backbone that takes one.",
        ),
        (
            ["model.recommender=seqrec.recommenders.popularity.Popularity",
             "model.recommender.init_args.position=seqrec.positions.sinusoidal.SinusoidalPosition"],
            "Popularity takes no position;",
        ),
    ],
)  # fmt: skip
def test_a_part_that_another_class_takes_is_refused_by_the_name_of_this_one(shop, capsys, given, words):
    assert words in said_of(capsys, *command(shop, "fit", "another", *(f"--{each}" for each in given)))


def test_a_plug_in_is_refused_by_the_task_that_has_no_seat_for_it(shop, capsys):
    plugged = ["--config=configs/model/popularity.yaml", "--config=configs/plugin/adversarial.yaml"]
    said = said_of(capsys, "fit", f"--config={shop / 'data.yaml'}", *plugged)
    assert "CountingTask takes no auxiliaries; leave it out, or choose another model that takes one." in said
