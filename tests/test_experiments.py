"""What was kept of an experiment is not passed off as that of another config."""

import argparse
import json
import math
import sys
from pathlib import Path

import polars as pl
import pytest
import yaml

from seqrec.data.errors import InputError
from seqrec.lightning_cli import complete_config

sys.path.append(str(Path(__file__).parents[1] / "experiments"))

import compressed_quality
import device
import fusion
import quality
import throughput

ROOT = Path(__file__).parents[1]

RECIPE = """
data: {prepared: shop, max_length: 20}
model:
  learning_rate: 0.01
  recommender:
    class_path: seqrec.recommenders.sequential.SequentialRecommender
    init_args:
      embedding: {class_path: seqrec.embeddings.ids.IdEmbedding, init_args: {dim: 8}}
      backbone: {class_path: seqrec.backbones.sasrec.SASRec, init_args: {dim: 8, n_layers: 1, n_heads: 2}}
  objective: seqrec.objectives.softmax.FullSoftmax
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "recipe").mkdir()
    (tmp_path / "shop-cold").mkdir()
    (tmp_path / "recipe" / "sasrec.yaml").write_text(RECIPE)
    return Path("recipe/sasrec.yaml")


def test_a_kept_result_is_that_of_its_config_or_refused(recipe):
    options = argparse.Namespace(config=recipe, plugins=[], runs=Path("runs"), results=Path("results"))
    config = complete_config([f"--config={recipe}", "--seed_everything=1"])
    del config["data"]["num_workers"]  # of a version that did not have it
    kept = Path("results/recipe/sasrec-seed1/result.json")
    kept.parent.mkdir(parents=True)
    kept.write_text(json.dumps({"metrics": {"ndcg@10": 0.1}, "config": config | {"run": "elsewhere"}}))
    assert quality.run(options, 1)["metrics"] == {"ndcg@10": 0.1}
    recipe.write_text(RECIPE.replace("0.01", "0.02"))
    with pytest.raises(InputError, match=r"differs in model\.init_args\.learning_rate; choose another --results"):
        quality.run(options, 1)
    begun = Path("runs/recipe/sasrec-seed1/config.yaml")
    begun.parent.mkdir(parents=True)
    kept.rename(begun)
    begun.write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"differs in model\.init_args\.learning_rate; choose another --runs"):
        quality.run(options, 1)


def test_a_command_that_fails_ends_the_program_as_it_ended_itself(recipe, capfd):
    with pytest.raises(SystemExit) as ended:
        quality.seqrec("fit", "--config=nowhere.yaml")
    assert ended.value.code == 2
    assert capfd.readouterr().err == "seqrec: error: There is no file nowhere.yaml.\n"


def test_readings_of_texts_are_kept_by_config_and_refused_with_other_vectors(recipe, monkeypatch):
    """Each command leaves what it would leave, of the config that it was given."""

    def command(name: str, *told: str) -> None:
        run = Path(next(each for each in told if each.startswith("--run=")).removeprefix("--run=")) if told else None
        if name == "fit":
            run.mkdir(parents=True)
            config = complete_config([each for each in told if not each.startswith("--run=")])
            (run / "fit.json").write_text("{}")
            (run / "result.json").write_text(json.dumps({"config": config, "metrics": {"ndcg@10": 0.5}}))
            pl.DataFrame({"rank": [*range(10)], "popularity": [*range(10)]}).write_parquet(run / "ranks.parquet")
        elif name == "cold":
            (run / "cold.json").write_text(json.dumps({"targets": 7}))

    def withhold_too(name: str, *told: str) -> None:
        command(name, *(() if name == "withhold" else told))

    def fuse(config: Path, vectors: str, variant: str = "text-frozen") -> None:
        arguments = ["fusion.py", str(config), "--vectors", vectors, "--variants", variant, "--results=results"]
        monkeypatch.setattr(sys, "argv", arguments)
        fusion.main()

    monkeypatch.setattr(quality, "seqrec", command)
    monkeypatch.setattr(fusion, "seqrec", withhold_too)
    fuse(recipe, "some.parquet")
    fuse(recipe, "some.parquet")
    with pytest.raises(InputError, match=r"vectors; choose another --results"):
        fuse(recipe, "other.parquet")
    hstu = recipe.with_stem("hstu")
    hstu.write_text(RECIPE)
    fuse(hstu, "other.parquet")
    assert len(list(Path("results").rglob("result.json"))) == 2
    (kept, _) = (json.loads(path.read_text()) for path in Path("results").rglob("texts.json"))
    assert kept["cold"] == {"targets": 7}
    assert [fifth["counts"] for fifth in kept["by_frequency"]] == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    fuse(recipe, "some.parquet", "ids")
    (ids,) = Path("results").rglob("ids-seed1/texts.json")
    assert json.loads(ids.read_text())["cold"] is None


def test_refined_runs_on_withheld_items_have_folders_of_their_own(tmp_path, monkeypatch):
    def command(name: str, *told: str) -> None:
        if name == "cold":
            (Path(told[0].removeprefix("--run=")) / "cold.json").write_text(json.dumps(told[0]))

    monkeypatch.setattr(fusion, "once", lambda stack, run, kept: run.mkdir(parents=True, exist_ok=True))
    monkeypatch.setattr(fusion, "seqrec", command)
    told = {"config": Path("sasrec.yaml"), "vectors": "my.parquet", "runs": tmp_path}
    asked = [argparse.Namespace(**told, refined=refined) for refined in ([], [Path("wide.yaml")])]
    places = [fusion.asked_for_new_items(options, "text-sum", 1, Path("shop-cold")) for options in asked]
    assert places == [f"--run={tmp_path}/shop-cold/{name}-text-sum-seed1" for name in ("sasrec", "sasrec+wide")]


@pytest.mark.parametrize("variant", [variant for variant in fusion.VARIANTS if variant != "ids"])
def test_every_reading_of_texts_is_told_where_the_vectors_are(variant):
    options = argparse.Namespace(config=Path("sasrec.yaml"), refined=[], vectors="my.parquet")
    (told,) = [each for each in fusion.told(options, variant, 1, Path("shop")) if each.endswith("vectors=my.parquet")]
    node = yaml.safe_load((fusion.PLUGINS / f"{variant}.yaml").read_text())
    for key in told.removeprefix("--").partition("=")[0].split("."):
        assert key in node
        node = node[key]


def test_the_share_of_a_gap_by_hand(capsys):
    half = pl.DataFrame({"user": [0, 1], "gain": [0.25, 0.75]})
    none, whole = (pl.DataFrame({"user": [0, 1], "gain": [gain, gain]}) for gain in (0.0, 1.0))
    compressed_quality.show({"recent": [none], "whole": [whole], "4-tokens": [half]})
    lines = capsys.readouterr().out.splitlines()
    (line,) = (line for line in lines if "4-tokens" in line)
    assert line.replace("│", " ").split() == ["4-tokens", "0.5000", "nan", "0.50", "0.25", "to", "0.75"]


def test_every_part_has_room_for_all_events():
    position = {"class_path": "Inverse", "init_args": {"dim": 8, "max_length": 200}}
    stacked = {"init_args": {"positions": [{"init_args": {"max_length": 900}}, {"init_args": {"max_length": 3}}]}}
    backbone = {"class_path": "HSTU", "init_args": {"dim": 8, "max_length": 200, "position": stacked}}
    config = {"data": {}, "model": {"recommender": {"init_args": {"position": position, "backbone": backbone}}}}
    made = compressed_quality.changed(config, "recent", argparse.Namespace(older=400, recent=100))
    parts = made["model"]["recommender"]["init_args"]
    assert made["data"]["max_length"] == 100
    assert parts["position"]["init_args"]["max_length"] == parts["backbone"]["init_args"]["max_length"] == 500
    assert [each["init_args"]["max_length"] for each in stacked["init_args"]["positions"]] == [900, 500]


def test_gains_of_a_run_are_those_of_its_ranks(tmp_path, monkeypatch):
    def once(told, folder, kept):
        kept.parent.mkdir(parents=True)
        pl.DataFrame({"user": [2, 0, 1], "rank": [10, 0, 9]}).write_parquet(kept.parent / "ranks.parquet")

    monkeypatch.setattr(compressed_quality, "once", once)
    config = tmp_path / "sasrec.yaml"
    config.write_text("data: {prepared: shop}")
    options = argparse.Namespace(configs=[config], older=3, recent=2, set=[], runs=tmp_path, results=tmp_path / "kept")
    found = compressed_quality.gains(options, "recent", 1)
    assert found["user"].to_list() == [0, 1, 2]
    assert found["gain"].to_list() == pytest.approx([1.0, 1 / math.log2(11), 0.0])


def test_figures_of_a_gpu_take_the_place_of_no_processors():
    assert device.results_of("throughput", "cpu") == ROOT / "experiments" / "results" / "throughput.json"
    assert device.results_of("throughput", "cuda") == ROOT / "experiments" / "results" / "throughput-cuda.json"


def test_peers_are_not_set_beside_a_gpu(monkeypatch, capsys):
    told = ["--name=shop", "--interactions=shop.parquet", "--prepared=shop", "--device=cuda"]
    monkeypatch.setattr(sys, "argv", ["throughput.py", *told])
    assert throughput.arguments().device == "cuda"
    monkeypatch.setattr(sys, "argv", ["throughput.py", *told, "--replay-python=python"])
    with pytest.raises(SystemExit):
        throughput.arguments()
    assert "peers are timed on the CPU alone" in capsys.readouterr().err
