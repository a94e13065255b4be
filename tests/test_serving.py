"""What is served is what was evaluated, for real users, through the commands that a person types."""

import polars as pl
import pytest

from seqrec.cli import main
from seqrec.data.datamodule import SequenceDataModule
from seqrec.export.retriever import Retriever

MODEL = """
trainer: {accelerator: cpu, enable_progress_bar: false, enable_model_summary: false, max_epochs: 1, logger: false}
model:
  recommender:
    class_path: seqrec.recommenders.sequential.SequentialRecommender
    init_args:
      embedding: {class_path: seqrec.embeddings.ids.IdEmbedding, init_args: {dim: 16}}
      backbone: {class_path: seqrec.backbones.sasrec.SASRec, init_args: {dim: 16, n_layers: 1, n_heads: 1}}
  objective: seqrec.objectives.softmax.FullSoftmax
"""
K = 100


@pytest.mark.real
def test_a_bundle_gives_a_thousand_real_users_the_ranks_and_lists_of_their_evaluation(real_data, tmp_path, capsys):
    pytest.importorskip("faiss")
    prepared, run, bundle = (tmp_path / name for name in ("prepared", "run", "bundle"))
    (tmp_path / "model.yaml").write_text(MODEL)
    stack = [f"--config={tmp_path / 'model.yaml'}", f"--data.prepared={prepared}", f"--run={run}"]
    assert main(["prepare", "amazon-beauty", f"--raw={real_data / 'amazon-beauty'}", f"--out={prepared}"]) == 0
    assert main(["fit", *stack]) == 0
    assert main(["test", f"--run={run}", "--verbose=false"]) == 0
    assert main(["export", f"--run={run}", f"--out={bundle}"]) == 0

    capsys.readouterr()

    data = SequenceDataModule(str(prepared), max_length=50)
    ids = data.catalog.ids.to_list()
    # As the test sees them: everything before the last event.
    histories = [
        [ids[row] for row in data.log.items[start : end - 1]]
        for start, end in zip(data.log.offsets[:1000].tolist(), data.log.offsets[1:1001].tolist(), strict=True)
    ]
    measured = pl.read_parquet(run / "ranks.parquet").filter(pl.col("user") < 1000).select("user", "target", "rank")
    retriever = Retriever.load(bundle)
    served = retriever.top_k(histories, K).items

    hits = 0
    for user, target, rank in measured.iter_rows():
        place = (served[user] == target).nonzero().flatten().tolist()
        assert place == ([rank] if rank < K else []), (user, place, rank)
        hits += rank < K
    assert measured.height == 1000
    assert hits > 10

    evaluated = 0
    for batch in data.test_dataloader():
        lists = retriever.recommender.recommend(batch.history, K, batch.seen).items
        ours = batch.users < 1000
        assert (lists[ours] == served[batch.users[ours]]).all()
        evaluated += int(ours.sum())
    assert evaluated == 1000

    assert main(["recommend", f"--bundle={bundle}", f"--history=nobody,{ids[0]}", "-k", "3"]) == 0
    assert capsys.readouterr().err == "seqrec: warning: Not in the catalog, so skipped: nobody.\n"
