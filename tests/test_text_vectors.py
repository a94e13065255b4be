"""Text vectors through the command line: they train, go on, are tested and served, with their file or without it."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from seqrec.cli import main
from seqrec.data.log import Log
from seqrec.data.prepare import prepare_log
from seqrec.data.simulated import SimulatedShop
from seqrec.export.retriever import Retriever

CONFIGS = Path(__file__).parents[1] / "configs"
STACK = [f"--config={CONFIGS / part}.yaml" for part in ("model/sasrec", "plugin/text_tower")]
FILE = "--model.recommender.init_args.embedding.init_args.vectors"
QUIET = [
    *("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"),
    "--trainer.logger=false",
]


def checkpoint(run: Path) -> dict:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.fixture
def shop(tmp_path) -> Path:
    """A prepared shop with a vector for every item, and how to fit on it."""
    prepare_log(SimulatedShop(users=60, items=60, mean_events=12.0), tmp_path / "shop")
    ids = Log.open(tmp_path / "shop").catalog.ids
    vectors = np.random.default_rng(0).normal(size=(len(ids), 12)).astype(np.float32)
    pl.DataFrame({"item_id": ids.reverse(), "vector": vectors}).write_parquet(tmp_path / "vectors.parquet")
    return tmp_path


def fit(shop: Path, run: str, epochs: int) -> Path:
    data = [f"--data.prepared={shop / 'shop'}", "--data.max_length=20", "--data.events_per_batch=200"]
    given = [f"{FILE}={shop / 'vectors.parquet'}", f"--run={shop / run}", f"--trainer.max_epochs={epochs}"]
    assert main(["fit", *STACK, *data, *given, *QUIET]) == 0
    return shop / run


def test_a_run_goes_on_as_if_nothing_had_happened_even_without_the_file(shop):
    straight, interrupted = fit(shop, "straight", 4), fit(shop, "interrupted", 2)
    halfway = checkpoint(interrupted)["state_dict"]
    (shop / "vectors.parquet").unlink()
    more = ["--ckpt_path=last", "--trainer.max_epochs=4"]
    assert main(["fit", f"--config={interrupted / 'config.yaml'}", *more]) == 0
    whole, resumed = checkpoint(straight)["state_dict"], checkpoint(interrupted)["state_dict"]
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    # The temperature is trained and stored, the vectors are stored and not trained.
    assert not torch.equal(halfway["objective.log_scale"], resumed["objective.log_scale"])
    assert torch.equal(halfway["recommender.embedding.texts.vectors"], resumed["recommender.embedding.texts.vectors"])
    (optimiser,) = checkpoint(straight)["optimizer_states"]
    trained = [name for name in whole if name != "recommender.embedding.texts.vectors"]
    assert len(optimiser["state"]) == len(trained)


def test_a_bundle_and_a_run_need_no_vector_file(shop):
    pytest.importorskip("faiss")
    run = fit(shop, "run", 1)
    assert main(["export", f"--run={run}", f"--out={shop / 'bundle'}"]) == 0
    ids = Log.open(shop / "shop").catalog.ids.to_list()
    histories = [ids[:3], ids[9:2:-1], ids[40:]]
    expected = Retriever.load(shop / "bundle").recommend_many(histories)
    (shop / "vectors.parquet").unlink()
    retriever = Retriever.load(shop / "bundle")
    assert torch.equal(retriever.index.keys, retriever.recommender.item_keys())  # without dropout
    assert retriever.recommend_many(histories) == expected
    assert main(["test", f"--run={run}", "--verbose=false"]) == 0
    assert main(["export", f"--run={run}", f"--out={shop / 'again'}"]) == 0
    assert Retriever.load(shop / "again").recommend_many(histories) == expected


def test_training_anew_without_the_file_is_answered_with_its_name(shop, capsys):
    (shop / "vectors.parquet").unlink()
    given = [f"--data.prepared={shop / 'shop'}", f"{FILE}={shop / 'vectors.parquet'}", f"--run={shop / 'run'}"]
    assert main(["fit", *STACK, *given, *QUIET]) == 2
    assert f"{shop / 'vectors.parquet'} does not exist, and no checkpoint brought" in capsys.readouterr().err


@pytest.mark.parametrize("model", ["gru4rec", "bert4rec", "hmamba"])
def test_it_stacks_on_other_models(shop, model):
    stack = [f"--config={CONFIGS / part}.yaml" for part in (f"model/{model}", "plugin/text_tower")]
    data = [f"--data.prepared={shop / 'shop'}", "--data.max_length=20", "--data.events_per_batch=200"]
    given = [f"{FILE}={shop / 'vectors.parquet'}", f"--run={shop / 'run'}", "--trainer.max_epochs=1"]
    assert main(["fit", *stack, *data, *given, *QUIET]) == 0
    assert main(["test", f"--run={shop / 'run'}", "--verbose=false"]) == 0
    result = json.loads((shop / "run" / "result.json").read_text())
    assert result["config"]["model"]["init_args"]["recommender"]["init_args"]["embedding"]["init_args"]["dim"] == 64


@pytest.mark.real
def test_a_few_steps_on_real_vectors_beat_chance(real_data, tmp_path):
    raw, prepared, run = real_data / "amazon-beauty", tmp_path / "prepared", tmp_path / "run"
    assert main(["prepare", "amazon-beauty", f"--raw={raw}", f"--out={prepared}"]) == 0
    stack = [f"--config={CONFIGS / 'data' / 'beauty'}.yaml", *STACK, f"--data.prepared={prepared}", f"--run={run}"]
    few = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=20", "--trainer.limit_val_batches=2"]
    assert main(["fit", *stack, f"{FILE}={raw / 'minilm.parquet'}", *few, *QUIET]) == 0
    weights = checkpoint(run)["state_dict"]
    assert weights["recommender.embedding.texts.vectors"].shape == (12_101, 384)
    assert main(["test", f"--run={run}", "--verbose=false"]) == 0
    # Chance is 10 of 12,101 items.
    assert json.loads((run / "result.json").read_text())["metrics"]["recall@10"] > 10 * 10 / 12_101
