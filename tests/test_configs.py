"""Every config that describes a model trains, is tested, and says what it is in its result."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import yaml

from seqrec.cli import main
from seqrec.data.log import Log
from seqrec.data.prefixes import beginnings, ids_of
from seqrec.data.prepare import prepare_log
from seqrec.data.protocol import LeaveOneOut
from seqrec.data.simulated import SimulatedShop
from seqrec.semantics.files import file_digest
from seqrec.semantics.neighbours import nearest, write_neighbours
from seqrec.semantics.vectors import Vectors, write_vectors

CONFIGS = Path(__file__).parents[1] / "configs"
WHOLE = sorted(
    [*(CONFIGS / "model").glob("*.yaml"), *(CONFIGS / "parity").glob("*.yaml"), *(CONFIGS / "recipe").glob("*.yaml")]
)
QUICK = [
    *("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"),
    *("--trainer.max_epochs=1", "--trainer.limit_train_batches=2"),
]


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("configs") / "shop"
    prepare_log(SimulatedShop(users=60, items=60, mean_events=12.0), folder)
    return folder


@pytest.mark.parametrize("config", WHOLE, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_it_trains_and_is_tested(shop, tmp_path, config):
    data = [f"--data.prepared={shop}", "--data.max_length=20", "--data.events_per_batch=200"]
    run = f"--run={tmp_path / 'run'}"
    assert main(["fit", f"--config={config}", run, *data, *QUICK]) == 0
    assert main(["test", run, "--verbose=false"]) == 0
    assert json.loads((tmp_path / "run" / "result.json").read_text())["metrics"]["ndcg@10"] > 0


@pytest.mark.parametrize("mode", ["fp32", "bf16", "cosine"])
def test_trainer_configs_stack(shop, tmp_path, mode):
    stack = [f"--config={CONFIGS / part}.yaml" for part in ("model/sasrec", f"trainer/{mode}")]
    data = [f"--data.prepared={shop}", "--data.max_length=20", "--data.events_per_batch=200"]
    assert main(["fit", *stack, f"--run={tmp_path / 'run'}", *data, *QUICK]) == 0


@pytest.mark.parametrize("words", [["{}=null"], ["{}", "null"]])
def test_a_part_of_the_model_is_left_out_by_null(shop, tmp_path, words):
    without = [word.format("--model.recommender.init_args.position") for word in words]
    data = [f"--data.prepared={shop}", "--data.max_length=20", "--data.events_per_batch=200"]
    run = f"--run={tmp_path / 'run'}"
    assert main(["fit", f"--config={CONFIGS / 'model' / 'sasrec.yaml'}", *without, run, *data, *QUICK]) == 0
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["model"]["init_args"]["recommender"]
    assert config["init_args"]["position"] is None
    assert config["init_args"]["backbone"]["class_path"] == "seqrec.backbones.sasrec.SASRec"


REFINED = sorted([*(CONFIGS / "objective").glob("*.yaml"), *(CONFIGS / "protocol").glob("*.yaml")])


@pytest.mark.parametrize("config", REFINED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_objectives_and_protocols_stack_on_a_model(shop, tmp_path, config):
    stack = [f"--config={CONFIGS / part}.yaml" for part in ("data/shop", "model/sasrec")]
    data = [f"--data.prepared={shop}", "--data.max_length=20", "--data.events_per_batch=200"]
    run = f"--run={tmp_path / 'run'}"
    assert main(["fit", *stack, f"--config={config}", run, *data, *QUICK]) == 0
    wanted, found = (yaml.safe_load(path.read_text()) for path in (config, tmp_path / "run" / "config.yaml"))
    part = ("model", "objective") if "model" in wanted else ("data", "protocol")
    asked = wanted[part[0]][part[1]]
    given = (found["model"]["init_args"] if part[0] == "model" else found["data"])[part[1]]
    assert given["class_path"] == (asked if isinstance(asked, str) else asked["class_path"])


PLUGINS = sorted([*(CONFIGS / "plugin").glob("position-*.yaml"), *(CONFIGS / "plugin").glob("attention-*.yaml")])


@pytest.mark.parametrize("model", ["sasrec", "ligr", "hstu"])
@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.stem)
def test_positions_stack_on_every_attention_backbone(shop, tmp_path, model, plugin):
    stack = [f"--config={CONFIGS / 'model' / model}.yaml", f"--config={plugin}"]
    data = [f"--data.prepared={shop}", "--data.max_length=20", "--data.events_per_batch=200"]
    run = f"--run={tmp_path / 'run'}"
    assert main(["fit", *stack, run, *data, *QUICK]) == 0
    assert main(["test", run, "--verbose=false"]) == 0
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["model"]["init_args"]["recommender"]
    wanted = yaml.safe_load(plugin.read_text())["model"]["recommender"]["init_args"]
    inside = wanted.get("backbone", {}).get("init_args", {}).get("position")
    if inside is None:
        assert config["init_args"]["position"]["class_path"] == wanted["position"]["class_path"]
    else:
        assert config["init_args"]["position"] is None
        assert config["init_args"]["backbone"]["init_args"]["position"]["class_path"] == inside["class_path"]
        assert config["init_args"]["backbone"]["class_path"].lower().endswith(model)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["reads_asked_at"] is (plugin.stem == "attention-time")


def text_vectors(folder, shop):
    """Vectors of items and of training prefixes of the shop, with their neighbours, from a hash of raw ids."""
    log = Log.open(shop)
    prefixes = beginnings(log, LeaveOneOut().split(log))
    described = {
        "items": (log.catalog.table.select("item_id"), None),
        "histories": (ids_of(log, prefixes), prefixes.users),
    }
    for kind, (ids, groups) in described.items():
        vectors = np.random.default_rng(0).standard_normal((len(ids), 8)).astype(np.float32)
        write_vectors(folder / kind, ids, vectors, {"kind": kind, "dataset": log.manifest["fingerprint"]})
        made = Vectors.open(folder / kind)
        write_neighbours(folder / kind, nearest(vectors, 10, groups), {"fingerprint": made.manifest["fingerprint"]})
    return folder


@pytest.mark.parametrize("model", ["sasrec", "gru4rec", "mamba4rec", "sigma"])
def test_semantic_contrast_stacks_on_every_kind_of_backbone_by_one_file(shop, tmp_path, model):
    vectors = text_vectors(tmp_path / shop.name, shop)
    plugin = tmp_path / "sra_cl.yaml"
    text = (CONFIGS / "plugin" / "sra_cl.yaml").read_text()
    plugin.write_text(text.replace("data/vectors", str(tmp_path)).replace("384", "8"))
    stack = [f"--config={CONFIGS / 'model' / model}.yaml", f"--config={plugin}"]
    data = [f"--data.prepared={shop}", "--data.max_length=20", "--data.events_per_batch=200"]
    run = f"--run={tmp_path / 'run'}"
    assert main(["fit", *stack, run, *data, *QUICK, "--trainer.log_every_n_steps=1"]) == 0
    assert main(["test", run, "--verbose=false"]) == 0
    plain = f"--run={tmp_path / 'plain'}"
    assert main(["fit", stack[0], plain, *data, *QUICK]) == 0
    weights, others = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("run", "plain")
    )
    assert {name for name in weights if not name.startswith("auxiliaries.")} == set(others)
    assert any(name.startswith("auxiliaries.") for name in weights)
    assert any(not torch.equal(weights[name], others[name]) for name in others)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert [text["vectors"] for text in result["texts"]] == [f"{vectors}/items", f"{vectors}/histories"]
    made = [Vectors.open(vectors / kind).manifest["fingerprint"] for kind in ("items", "histories")]
    assert [text["fingerprint"] for text in result["texts"]] == made
    # What is served is the model: with the same weights the plug-in changes no rank.
    best = tmp_path / "plain" / "checkpoints" / "best.ckpt"
    trained = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    kept = {name: weight for name, weight in trained.items() if not name.startswith("auxiliaries.")}
    torch.save(torch.load(best, weights_only=True) | {"state_dict": kept}, best)
    assert main(["test", plain, "--verbose=false"]) == 0
    with_it, without = (pl.read_parquet(tmp_path / name / "ranks.parquet") for name in ("run", "plain"))
    assert with_it.equals(without)
    (log,) = (tmp_path / "run" / "logs").rglob("metrics.csv")
    losses = pl.read_csv(log)
    assert {"train/neighbour_contrast", "train/substitute_contrast"} <= set(losses.columns)


FUSIONS = sorted((CONFIGS / "plugin").glob("text-*.yaml"))


def fitted_with_texts(shop, folder, *plugins) -> dict:
    """The result of a run whose plug-ins read texts, and what its config says of the model."""
    catalog = Log.open(shop).catalog
    numbers = np.random.default_rng(0).standard_normal((len(catalog), 160)).astype("float32")
    pl.DataFrame({"item_id": catalog.ids, "vector": numbers.tolist()}).write_parquet(folder / "vectors.parquet")
    stack = [f"--config={CONFIGS / 'model' / 'sasrec.yaml'}"]
    for plugin in plugins:
        stacked = folder / plugin.name
        stacked.write_text(plugin.read_text().replace("data/raw/{data}/minilm.parquet", f"{folder}/vectors.parquet"))
        stack.append(f"--config={stacked}")
    data = [f"--data.prepared={shop}", "--data.max_length=20", "--data.events_per_batch=200"]
    run = f"--run={folder / 'run'}"
    assert main(["fit", *stack, run, *data, *QUICK]) == 0
    assert main(["test", run, "--verbose=false"]) == 0
    result = json.loads((folder / "run" / "result.json").read_text())
    assert result["metrics"]["ndcg@10"] > 0
    assert result["texts"] == [
        {"vectors": f"{folder}/vectors.parquet", "digest": file_digest(folder / "vectors.parquet")}
    ]
    assert result["machine"].endswith(f"threads used: {torch.get_num_threads()}")
    return yaml.safe_load((folder / "run" / "config.yaml").read_text())["model"]["init_args"]


@pytest.mark.parametrize("plugin", FUSIONS, ids=lambda path: path.stem)
def test_every_embedding_of_texts_stacks_on_a_model_by_one_file(shop, tmp_path, plugin):
    model = fitted_with_texts(shop, tmp_path, plugin)
    wanted = yaml.safe_load(plugin.read_text())["model"]["recommender"]["init_args"]["embedding"]["class_path"]
    assert model["recommender"]["init_args"]["embedding"]["class_path"] == wanted


@pytest.mark.parametrize(
    ("plugin", "auxiliary"), [("alignment", "KernelAlignment"), ("alignment-info-nce", "InfoNCEAlignment")]
)
def test_alignment_stacks_on_a_fusion(shop, tmp_path, plugin, auxiliary):
    model = fitted_with_texts(
        shop, tmp_path, *(CONFIGS / "plugin" / f"{name}.yaml" for name in ("text-concat", plugin))
    )
    assert [each["class_path"] for each in model["auxiliaries"]] == [f"seqrec.objectives.alignment.{auxiliary}"]


@pytest.mark.parametrize("model", ["sasrec", "mamba4rec"])
def test_distillation_stacks_on_a_backbone_by_one_file(shop, tmp_path, model):
    text_vectors(tmp_path / shop.name, shop)
    plugin = tmp_path / "distillation.yaml"
    plugin.write_text((CONFIGS / "plugin" / plugin.name).read_text().replace("data/vectors", str(tmp_path)))
    stack = [f"--config={CONFIGS / 'model' / model}.yaml", f"--config={plugin}", f"--run={tmp_path / 'run'}"]
    data = [f"--data.prepared={shop}", "--data.max_length=20", "--data.events_per_batch=200"]
    assert main(["fit", *stack, *data, *QUICK, "--trainer.log_every_n_steps=1"]) == 0
    (log,) = (tmp_path / "run" / "logs").rglob("metrics.csv")
    assert pl.read_csv(log)["train/neighbour_distillation"].drop_nulls().gt(0).all()


def test_lorec_asks_about_users_by_one_more_file(shop, tmp_path):
    stacked = tmp_path / "asked.yaml"
    told = yaml.safe_load((CONFIGS / "plugin" / "lorec-asked.yaml").read_text())
    question = told["model"]["reweighter"]["init_args"]["asks"]
    question |= {"encoder": "seqrec.semantics.encoders.HashingEncoder", "store": str(tmp_path / "store")}
    stacked.write_text(yaml.safe_dump(told))
    plugins = [CONFIGS / "plugin" / "lorec.yaml", stacked]
    stack = [f"--config={path}" for path in (CONFIGS / "model" / "sasrec.yaml", *plugins)]
    data = [f"--data.prepared={shop}", "--data.max_length=20", "--data.events_per_batch=200"]
    run = f"--run={tmp_path / 'run'}"
    assert main(["fit", *stack, run, *data, *QUICK]) == 0
    assert main(["test", run, "--verbose=false"]) == 0
    told = json.loads((tmp_path / "run" / "result.json").read_text())["config"]["model"]["init_args"]["reweighter"]
    assert told["init_args"]["asks"]["init_args"]["encoder"]["class_path"] == "seqrec.semantics.encoders.HashingEncoder"
    (segment,) = (tmp_path / "store").glob("*/*.parquet")
    assert len(pl.read_parquet(segment)) > 0
