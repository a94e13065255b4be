"""What a text adds comes from what it says: with the texts of other items it is gone, whatever way they are read."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from seqrec.cli import main
from seqrec.data.log import Log
from seqrec.data.prepare import prepare_log
from seqrec.data.simulated import SimulatedShop
from seqrec.data.withhold import withhold

CONFIGS = Path(__file__).parents[1] / "configs"
SHUFFLED = tuple(f"shuffled-{number}" for number in range(5))
QUICK = [
    *("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"),
    *("--trainer.max_epochs=4", "--data.max_length=20", "--data.events_per_batch=300", "--model.learning_rate=0.01"),
]


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    """Items of one leaf have like texts, and users keep to some leaves; a quarter of the items is withheld."""
    folder = tmp_path_factory.mktemp("control")
    prepare_log(SimulatedShop(users=300, items=150, mean_events=12.0), folder / "shop")
    withhold(folder / "shop", folder / "cold", share=0.25, seed=1)
    catalog = Log.open(folder / "shop").catalog
    leaves = catalog.table["categories"].list.last().cast(pl.Categorical).to_physical().to_numpy()
    random = np.random.default_rng(0)
    texts = random.standard_normal((leaves.max() + 1, 64))[leaves] + 0.1 * random.standard_normal((len(catalog), 64))
    orders = {"true": np.arange(len(catalog))} | {name: random.permutation(len(catalog)) for name in SHUFFLED}
    for name, rows in orders.items():
        vectors = (texts[rows] / 8).astype("float32").tolist()  # of length 1, about
        pl.DataFrame({"item_id": catalog.ids, "vector": vectors}).write_parquet(folder / f"{name}.parquet")
    return folder


@pytest.mark.parametrize("fusion", ["frozen", "adapter", "sum", "concat", "gate", "fade"])
def test_an_unknown_item_is_found_by_its_own_text_and_not_by_that_of_another(fusion, shop, tmp_path):
    plugin = tmp_path / "text.yaml"
    text = (CONFIGS / "plugin" / f"text-{fusion}.yaml").read_text()
    plugin.write_text(text.replace("data/raw/{data}/minilm.parquet", str(shop / "true.parquet")).replace("128", "16"))
    stack = [f"--config={CONFIGS / 'model' / 'sasrec.yaml'}", f"--config={plugin}", f"--data.prepared={shop / 'cold'}"]
    assert main(["fit", *stack, f"--run={tmp_path / 'run'}", *QUICK]) == 0
    recall = {}
    for name in ("true", *SHUFFLED):
        assert main(["cold", f"--run={tmp_path / 'run'}", f"--vectors={shop / name}.parquet"]) == 0
        figures = json.loads((tmp_path / "run" / "cold.json").read_text())
        recall[name] = figures["among_themselves"]["recall@10"]
    chance = figures["by_chance_among_themselves"]["recall@10"]
    assert recall["true"] > 1.4 * chance
    assert abs(np.mean([recall[name] for name in SHUFFLED]) - chance) < 0.5 * (recall["true"] - chance)
