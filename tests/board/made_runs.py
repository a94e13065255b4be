"""Runs as they lie on disk, with figures that a test chooses."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

PASSPORT = {
    "kind": "LeaveOneOut",
    "parameters": {},
    "seen_is_excluded": True,
    "candidates": "all items",
    "tie_rule": "stable: file order",
    "cold_targets": "kept",
    "dataset": "abc",
    "target_hash": "def",
}
POPULARITY = "seqrec.recommenders.popularity."
SOFTMAX = "seqrec.objectives.softmax.FullSoftmax"


def sequential(backbone: str, embedding: str = "seqrec.embeddings.ids.IdEmbedding") -> dict[str, Any]:
    """What a config says of a recommender that reads histories."""
    parts = {"embedding": {"class_path": embedding}, "backbone": {"class_path": backbone}}
    return {"class_path": "seqrec.recommenders.sequential.SequentialRecommender", "init_args": parts}


def a_run(
    folder: Path,
    name: str,
    ndcg: float = 0.05,
    seed: int = 0,
    dim: int = 64,
    passport: dict[str, Any] | None = None,
    recommender: dict[str, Any] | None = None,
    objective: str = SOFTMAX,
    **fields: Any,
) -> Path:
    """A run with a result and no ranks."""
    config = {
        "seed_everything": seed,
        "data": {"seed": seed},
        "model": {"init_args": {"recommender": recommender or {"dim": dim}, "objective": {"class_path": objective}}},
    }
    result = {
        "model": "SASRec",
        "data": "beauty",
        "metrics": {"recall@10": 2 * ndcg, "ndcg@10": ndcg},
        "passport": {**PASSPORT, **(passport or {})},
        "seed": seed,
        "config": config,
        "commit": "0123456789abcdef",
        "wall_seconds": 90.0,
        "test_seconds": 2.0,
        "peak_memory_bytes": 2**29,
        "parameters": 1234567,
        **fields,
    }
    (folder / name).mkdir(parents=True)
    (folder / name / "result.json").write_text(json.dumps(result))
    return folder / name


def a_measured_run(
    folder: Path,
    name: str,
    ranks: Sequence[int],
    history: Sequence[int] | None = None,
    popularity: Sequence[int] | None = None,
    users: Sequence[int] | None = None,
    **fields: Any,
) -> Path:
    """A run whose figures follow from its ranks; predictions of one user each unless users are given."""
    known = np.asarray(ranks)
    gains = np.where(known < 10, 1 / np.log2(known + 2), 0.0)
    metrics = {
        "recall@10": float((known < 10).mean()),
        "ndcg@10": float(gains.mean()),
        "coverage@10": 0.5,
        "popularity_rank@10": 100.0 + len(name),
        "count": float(known.size),
    }
    columns = {"user": range(known.size) if users is None else users, "target": range(known.size), "rank": known}
    columns |= {"history": history, "popularity": popularity}
    table = pl.DataFrame({name: list(values) for name, values in columns.items() if values is not None})
    run = a_run(folder, name, **({"metrics": metrics} | fields))
    table.with_columns(pl.all().cast(pl.Int64)).write_parquet(run / "ranks.parquet")
    return run


def a_study(folder: Path, n_users: int = 400, data: str = "beauty", better: float = 1.0, seed: int = 0) -> Path:
    """The mandatory rows and a few more with ranks, lengths and counts; ``sasrec`` is best by a factor."""
    random = np.random.default_rng(seed)
    history, popularity = random.integers(1, 80, n_users), random.integers(0, 200, n_users)
    ease = random.exponential(size=n_users) * np.where(popularity < 6, 4.0, 1.0)
    counting = {
        "popularity": {"class_path": f"{POPULARITY}Popularity"},
        "popularity-7-days": {"class_path": f"{POPULARITY}RecentPopularity", "init_args": {"days": 7}},
        "markov": {"class_path": "seqrec.recommenders.markov.Markov"},
    }
    learned = {
        "sasrec": sequential("seqrec.backbones.sasrec.SASRec"),
        "gru4rec": sequential("seqrec.backbones.gru4rec.GRU4Rec"),
    }
    worth = {"popularity": 80, "popularity-7-days": 60, "markov": 25, "gru4rec": 14, "sasrec": 14 / better}
    models = {"sasrec": "SASRec", "gru4rec": "GRU4Rec", "popularity": "Popularity", "markov": "Markov"}
    for label, recommender in (counting | learned).items():
        for run_seed in [1] if label in counting else [1, 2]:
            curve = [
                {"epoch": epoch, "seconds": 9.0 * epoch, "val/ndcg@10": 0.1 - 0.08 / (epoch + 1)} for epoch in range(9)
            ]
            a_measured_run(
                folder,
                f"{data}/{label}-seed{run_seed}",
                (ease * worth[label] * random.uniform(0.7, 1.3, n_users)).astype(int).tolist(),
                history.tolist(),
                popularity.tolist(),
                data=data,
                passport={"dataset": data, "target_hash": data},
                model=models.get(label, "RecentPopularity"),
                recommender=recommender,
                seed=run_seed,
                study={"name": "made", "row": label},
                curve=None if label in counting else curve,
                wall_seconds=1.0 if label in counting else 900.0 if label == "sasrec" else 300.0,
                **({"tuning": {"asked": 20, "chosen": 3}} if label in learned else {}),
            )
    return folder
