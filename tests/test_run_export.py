"""A run is tested and exported on the items it was trained on, or not at all."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest

from seqrec.cli import main
from seqrec.data.log import Log
from seqrec.data.prepare import prepare_log
from seqrec.data.simulated import SimulatedShop

SMALL = {"embedding": "seqrec.embeddings.ids.IdEmbedding", "backbone": "seqrec.backbones.gru4rec.GRU4Rec"}
QUIET = [f"--trainer.{each}" for each in ("accelerator=cpu", "enable_progress_bar=false", "enable_model_summary=false")]


def fit(folder: Path) -> None:
    model = "--model.recommender=seqrec.recommenders.sequential.SequentialRecommender"
    parts = [f"--model.recommender.{name}={kind}" for name, kind in SMALL.items()]
    widths = [f"--model.recommender.{name}.dim=8" for name in SMALL]
    rest = ["--model.objective=seqrec.objectives.softmax.FullSoftmax", "--trainer.max_epochs=1", *QUIET]
    data, run = f"--data.prepared={folder / 'shop'}", f"--run={folder / 'run'}"
    assert main(["fit", data, run, model, *parts, *widths, *rest]) == 0


@pytest.fixture
def trained(tmp_path) -> Path:
    prepare_log(SimulatedShop(users=60, items=60, mean_events=12.0), tmp_path / "shop")
    fit(tmp_path)
    return tmp_path


def renumber(prepared: Path) -> None:
    """As many items, of which two have changed places."""
    path = prepared / "catalog.parquet"
    table = pl.read_parquet(path)
    table[[1, 0, *range(2, table.height)]].write_parquet(path)
    manifest = json.loads((prepared / "manifest.json").read_text())
    manifest["files"][path.name] = path.stat().st_size
    (prepared / "manifest.json").write_text(json.dumps(manifest))


def drop_an_item(prepared: Path) -> None:
    shutil.rmtree(prepared)
    prepare_log(SimulatedShop(users=60, items=50, mean_events=12.0), prepared)


@pytest.mark.parametrize("change", [renumber, drop_an_item])
def test_other_items_are_refused(trained, capsys, change):
    change(trained / "shop")
    commands = {
        "test": ["test", f"--run={trained / 'run'}", "--verbose=false"],
        "export": ["export", f"--run={trained / 'run'}", f"--out={trained / 'bundle'}"],
        "resume": ["fit", f"--config={trained / 'run' / 'config.yaml'}", "--ckpt_path=last"],
    }
    for command in commands.values():
        capsys.readouterr()
        assert main(command) == 2
        assert "trained on other items" in capsys.readouterr().err
    assert not (trained / "bundle").exists()


def test_the_same_items_are_exported(trained):
    pytest.importorskip("faiss")
    assert main(["export", f"--run={trained / 'run'}", f"--out={trained / 'bundle'}"]) == 0
    assert Log.open(trained / "shop").catalog.fingerprint in (trained / "bundle" / "manifest.json").read_text()


def test_a_new_fit_takes_the_result_of_the_old_model_away(trained):
    run = trained / "run"
    assert main(["test", f"--run={run}", "--verbose=false"]) == 0
    assert (run / "result.json").is_file()
    assert (run / "ranks.parquet").is_file()
    fit(trained)
    assert not (run / "result.json").exists()
    assert not (run / "ranks.parquet").exists()


def test_a_result_says_by_which_validation_the_model_was_chosen(trained):
    run = trained / "run"
    assert main(["test", f"--run={run}", "--verbose=false"]) == 0
    chosen = json.loads((run / "result.json").read_text())["validation"]
    assert chosen["epoch"] == 0
    assert 0 <= chosen["val/ndcg@10"] <= 1
