"""A shop of sixty users with a model of its own, and what the command line says of mistakes there."""

from pathlib import Path

from seqrec.cli import main
from seqrec.data.prepare import prepare_log
from seqrec.data.simulated import SimulatedShop

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


def a_shop(folder: Path) -> Path:
    """The folder, with the shop, its data.yaml and its model.yaml."""
    prepare_log(SimulatedShop(users=60, items=60, mean_events=12.0), folder / "shop")
    (folder / "data.yaml").write_text(f"data: {{prepared: {folder / 'shop'}, max_length: 20, events_per_batch: 200}}\n")
    (folder / "model.yaml").write_text(MODEL)
    return folder


def command(shop: Path, name: str, run: str, *more: str) -> list[str]:
    stack = [f"--config={shop / 'data.yaml'}", f"--config={shop / 'model.yaml'}"]
    return [name, *stack, f"--run={shop / run}", *more]


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
