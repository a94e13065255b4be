"""The meter over an epoch, over processes and through its file."""

from pathlib import Path

import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributed as dist
from torch import multiprocessing

from seqrec.evaluation import metrics
from seqrec.evaluation.meter import Meter


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=40), st.integers(0, 40))
def test_how_an_epoch_is_cut_into_batches_changes_nothing(values: list[int], cut: int):
    ranks = torch.tensor(values)
    whole, parts = Meter(), Meter()
    whole.update(ranks)
    parts.update(ranks[:cut])
    parts.update(ranks[cut:])
    assert parts.compute() == pytest.approx(whole.compute())
    assert whole.compute()["count"] == len(values)
    assert whole.compute()["ndcg@10"] == pytest.approx(metrics.ndcg(ranks, 10).mean().item())


def test_every_cutoff_has_its_keys():
    meter = Meter((1, 3), counts=torch.tensor([3, 2, 1, 0]))
    meter.update(torch.tensor([0, 2]))
    meter.update_lists(torch.tensor([[0, 1, 2], [0, 1, 3]]))
    assert meter.compute() == pytest.approx(
        {
            "recall@1": 0.5,
            "ndcg@1": 0.5,
            "mrr@1": 0.5,
            "recall@3": 1.0,
            "ndcg@3": 0.75,
            "mrr@3": (1 + 1 / 3) / 2,
            "coverage@1": 1 / 4,
            "popularity_rank@1": 0.0,
            "coverage@3": 1.0,
            "popularity_rank@3": (0 + 1 + 2 + 0 + 1 + 3) / 6,
            "count": 2.0,
        }
    )


def test_any_metric_can_be_recomputed_from_the_file(tmp_path: Path):
    meter, generator = Meter(), torch.Generator().manual_seed(0)
    ranks = torch.randint(0, 40, (30,), generator=generator)
    meter.update(ranks[:10], torch.arange(10), torch.arange(10) + 100)
    meter.update(ranks[10:], torch.arange(10, 30), torch.arange(10, 30) + 100)
    meter.save(tmp_path / "run" / "ranks.parquet")
    table = pl.read_parquet(tmp_path / "run" / "ranks.parquet")
    assert table.columns == ["user", "target", "rank"]
    assert (table["target"] - table["user"]).unique().to_list() == [100]
    assert table["rank"].to_list() == ranks.tolist()
    assert Meter.load(tmp_path / "run" / "ranks.parquet").compute() == pytest.approx(meter.compute())
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["ranks.parquet"]


def test_what_else_is_known_of_a_target_is_written_beside_its_rank(tmp_path):
    meter = Meter((10,))
    meter.update(torch.tensor([4, 2, 0]), torch.tensor([1, 0, 1]), torch.tensor([7, 5, 7]))
    about = pl.DataFrame({"user": [0, 1, 1], "target": [5, 7, 7], "history": [3, 9, 11]})
    meter.save(tmp_path / "ranks.parquet", about)
    assert pl.read_parquet(tmp_path / "ranks.parquet").rows() == [(0, 5, 2, 3), (1, 7, 0, 9), (1, 7, 4, 9)]
    assert Meter.load(tmp_path / "ranks.parquet", (10,)).compute() == meter.compute()


def test_the_file_does_not_depend_on_the_order_of_batches(tmp_path: Path):
    for name, order in (("a", [0, 1, 2]), ("b", [2, 0, 1])):
        meter, rows = Meter(), torch.tensor(order)
        meter.update(rows * 2, rows, rows + 7)
        meter.save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_mistakes_are_named(tmp_path: Path):
    with pytest.raises(ValueError, match="no rank"):
        Meter().compute()
    with pytest.raises(ValueError, match="at least 1"):
        Meter(cutoffs=(0,))
    with pytest.raises(ValueError, match="count from 0"):
        Meter().update(torch.tensor([-1]))
    with pytest.raises(ValueError, match="counts"):
        Meter().update_lists(torch.tensor([[0]]))
    meter = Meter()
    meter.update(torch.tensor([0]))
    with pytest.raises(ValueError, match="came with users"):
        meter.save(tmp_path / "ranks.parquet")


def _given(ranks: torch.Tensor) -> Meter:
    meter = Meter((1, 10), counts=torch.arange(20))
    if ranks.numel():
        meter.update(ranks, ranks * 3, ranks)
        meter.update_lists(torch.stack([ranks % 20, (ranks + 1) % 20], 1).repeat(1, 5))
    return meter


def _measure(process: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=process, world_size=2)
    meter = _given(torch.arange(15)[process * 15 :])
    meter.save(Path(folder) / "together.parquet")
    torch.save(meter.compute(), f"{folder}/values{process}")
    dist.destroy_process_group()


def test_two_processes_measure_as_one_even_when_one_has_nothing(tmp_path: Path):
    multiprocessing.spawn(_measure, (str(tmp_path),), nprocs=2)
    alone = _given(torch.arange(15))
    alone.save(tmp_path / "alone.parquet")
    for process in (0, 1):
        assert torch.load(tmp_path / f"values{process}") == pytest.approx(alone.compute())
    assert pl.read_parquet(tmp_path / "together.parquet").equals(pl.read_parquet(tmp_path / "alone.parquet"))
