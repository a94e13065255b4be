"""A run is tested and exported on the items it was trained on, or not at all."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
import yaml

from seqrec.cli import main
from seqrec.data.log import Log
from seqrec.data.prepare import prepare_log
from seqrec.data.simulated import SimulatedShop
from seqrec.export.retriever import Retriever

SMALL = {"embedding": "seqrec.embeddings.ids.IdEmbedding", "backbone": "seqrec.backbones.gru4rec.GRU4Rec"}
QUIET = [f"--trainer.{each}" for each in ("accelerator=cpu", "enable_progress_bar=false", "enable_model_summary=false")]


def fit(folder: Path, **others: str) -> None:
    model = "--model.recommender=seqrec.recommenders.sequential.SequentialRecommender"
    parts = [f"--model.recommender.{name}={kind}" for name, kind in (SMALL | others).items()]
    widths = [f"--model.recommender.{name}.dim=8" for name in SMALL]
    rest = ["--model.objective=seqrec.objectives.softmax.FullSoftmax", "--trainer.max_epochs=1", *QUIET]
    data, run = f"--data.prepared={folder / 'shop'}", f"--run={folder / 'run'}"
    assert main(["fit", data, run, model, *parts, *widths, *rest]) == 0


@pytest.fixture(scope="module")
def once_trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    prepare_log(SimulatedShop(users=60, items=60, mean_events=12.0), folder / "shop")
    fit(folder)
    return folder


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


CONFIGS = Path(__file__).parents[1] / "configs"


def test_a_bundle_with_users_answers_for_them_in_raw_ids(tmp_path, capsys):
    pytest.importorskip("faiss")
    prepare_log(SimulatedShop(users=60, items=60, mean_events=12.0), tmp_path / "shop")
    run, bundle = tmp_path / "run", tmp_path / "bundle"
    small = ["--model.recommender.init_args.backbone.init_args.n_recent=5", "--data.max_length=25"]
    fitted = [f"--config={CONFIGS / 'model' / 'compressed.yaml'}", f"--run={run}", "--trainer.max_epochs=1", *QUIET]
    assert main(["fit", *fitted, *small, f"--data.prepared={tmp_path / 'shop'}"]) == 0
    assert main(["export", f"--run={run}", f"--out={bundle}", "--users"]) == 0
    log = Log.open(tmp_path / "shop")
    retriever = Retriever.load(bundle)
    for row in (0, 1, 59):
        history = [log.catalog.ids[int(item)] for item in log.items[log.offsets[row] : log.offsets[row + 1]]]
        recent = [raw for raw in log.catalog.ids if raw not in history][:5]
        found = retriever.recommend_user(log.users[row], recent, k=10)
        expected = retriever.recommend([*history[-20:], *recent], k=30)
        kept = [each for each in expected if each.item_id not in history][:10]
        assert [each.item_id for each in found] == [each.item_id for each in kept]
    capsys.readouterr()
    assert main(["recommend", f"--bundle={bundle}", f"--user={log.users[0]}", "-k", "3"]) == 0
    assert len(capsys.readouterr().out.splitlines()) >= 3
    assert main(["recommend", f"--bundle={bundle}", "--user=nobody"]) == 2
    assert "'nobody' is not among them" in capsys.readouterr().err
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"]["max_length"] = 5
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert main(["export", f"--run={run}", f"--out={tmp_path / 'none'}", "--users"]) == 2
    assert "reads the newest 5 events itself and data.max_length is 5" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "none").exists()


def test_users_of_a_model_that_remembers_every_event_are_refused(tmp_path, capsys):
    pytest.importorskip("faiss")
    prepare_log(SimulatedShop(users=60, items=60, mean_events=12.0), tmp_path / "shop")
    fit(tmp_path, backbone="seqrec.backbones.sasrec.SASRec")
    assert main(["export", f"--run={tmp_path / 'run'}", f"--out={tmp_path / 'bundle'}", "--users"]) == 2
    assert "Attention remembers every event" in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()


def test_users_of_a_model_that_cannot_go_on_are_refused(tmp_path, capsys):
    prepare_log(SimulatedShop(users=60, items=60, mean_events=12.0), tmp_path / "shop")
    run, config = tmp_path / "run", CONFIGS / "model" / "sasrec.yaml"
    fitted = [f"--config={config}", f"--run={run}", "--trainer.max_epochs=1", "--data.max_length=10", *QUIET]
    assert main(["fit", *fitted, f"--data.prepared={tmp_path / 'shop'}"]) == 0
    assert main(["export", f"--run={run}", f"--out={tmp_path / 'bundle'}", "--users"]) == 2
    said = capsys.readouterr().err
    assert "InversePosition means something else" in said
    assert "Or export without --users." in said


def metrics_of(bundle: Path) -> dict[str, float]:
    return json.loads((bundle / "manifest.json").read_text())["metrics"]


def test_a_bundle_has_the_metrics_of_its_own_weights_alone(trained, capsys):
    pytest.importorskip("faiss")
    run, export = trained / "run", ["export", f"--run={trained / 'run'}", f"--out={trained / 'bundle'}"]
    result, test = run / "result.json", ["test", f"--run={run}", "--verbose=false"]
    shutil.copy(run / "checkpoints" / "last.ckpt", trained / "elsewhere.ckpt")
    for checkpoint, name in (
        ("last", "checkpoints/last.ckpt"),
        (f"{trained / 'elsewhere.ckpt'}", f"{trained / 'elsewhere.ckpt'}"),
    ):
        assert main([*test, f"--ckpt_path={checkpoint}"]) == 0
        assert json.loads(result.read_text())["checkpoint"] == name
        assert main(export) == 0
        assert f"result.json is of {name}, but checkpoints/best.ckpt is exported" in capsys.readouterr().err
        assert metrics_of(trained / "bundle") == {}
    assert main(test) == 0
    tested = json.loads(result.read_text())
    assert tested.pop("checkpoint") == "checkpoints/best.ckpt"
    assert main(export) == 0
    assert metrics_of(trained / "bundle") == tested["metrics"]
    result.write_text(json.dumps(tested))  # as earlier versions wrote it
    assert main(export) == 0
    assert metrics_of(trained / "bundle") == tested["metrics"]
    assert "warning" not in capsys.readouterr().err


def cut_short(run: Path) -> None:
    path = run / "checkpoints" / "best.ckpt"
    path.write_bytes(path.read_bytes()[:1000])


def empty(run: Path) -> None:
    (run / "checkpoints" / "best.ckpt").write_bytes(b"")


def garble(run: Path) -> None:
    (run / "config.yaml").write_text("model: [\n")


def halve(run: Path) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**config, "model": None}))


def misspell(run: Path) -> None:
    path = run / "config.yaml"
    path.write_text(path.read_text().replace("prepared:", "prepard:"))


def widen(run: Path) -> None:
    path = run / "config.yaml"
    path.write_text(path.read_text().replace("dim: 8", "dim: 16"))


def rename(run: Path) -> None:
    path = run / "config.yaml"
    path.write_text(path.read_text().replace("gru4rec.GRU4Rec", "gru4rec.GRU4Rce"))


@pytest.mark.parametrize(
    ("change", "file", "complaint"),
    [
        (cut_short, "best.ckpt", "cut short or no checkpoint of seqrec; put back a whole copy"),
        (empty, "best.ckpt", "cut short or no checkpoint of seqrec; put back a whole copy"),
        (widen, "best.ckpt", "holds weights of another model"),
        (garble, "config.yaml", "it is no YAML"),
        (halve, "config.yaml", "it needs the keys data and model.init_args.recommender"),
        (misspell, "config.yaml", "Did you mean 'prepared'?"),
        (rename, "config.yaml", "Did you mean seqrec.backbones.gru4rec.GRU4Rec?"),
    ],
)
def test_a_broken_file_of_a_run_is_named(once_trained, tmp_path, capsys, change, file, complaint):
    run = tmp_path / "run"
    shutil.copytree(once_trained / "run", run)
    change(run)
    assert main(["export", f"--run={run}", f"--out={tmp_path / 'bundle'}"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert file in said
    assert complaint in said
    assert "`seqrec fit`" in said
    assert not (tmp_path / "bundle").exists()


def test_users_of_a_recurrent_model_go_on_as_if_all_were_read(trained):
    pytest.importorskip("faiss")
    assert main(["export", f"--run={trained / 'run'}", f"--out={trained / 'bundle'}", "--users"]) == 0
    log = Log.open(trained / "shop")
    retriever = Retriever.load(trained / "bundle")
    for row in (0, 1, 59):
        history = [log.catalog.ids[int(item)] for item in log.items[log.offsets[row] : log.offsets[row + 1]]]
        recent = [raw for raw in log.catalog.ids if raw not in history][:2]
        found = retriever.recommend_user(log.users[row], recent, k=10)
        expected = retriever.recommend([*history, *recent], k=10)
        assert [each.item_id for each in found] == [each.item_id for each in expected]


@pytest.mark.parametrize("unit", ["s", "position"])
def test_places_in_histories_are_not_kept_as_times_of_users(trained, unit):
    pytest.importorskip("faiss")
    manifest = trained / "shop" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"unit_of_times": unit}))
    assert main(["export", f"--run={trained / 'run'}", f"--out={trained / 'bundle'}", "--users"]) == 0
    assert (Retriever.load(trained / "bundle").users.times is None) == (unit == "position")
