"""Bundles of random weights over a small catalog of red, green and blue things."""

from pathlib import Path

import polars as pl
import torch

from seqrec.catalog import Catalog
from seqrec.export.bundle import build_recommender, write_bundle

LENGTH, DIM, N_ITEMS = 12, 8, 200


def part(path: str, **arguments) -> dict:
    return {"class_path": f"seqrec.{path}", "init_args": arguments}


def recipe(backbone: dict, position: dict | None = None) -> dict:
    embedding = part("embeddings.ids.IdEmbedding", dim=DIM, init_std=1.0)
    arguments = {"embedding": embedding, "backbone": backbone} | ({} if position is None else {"position": position})
    return part("recommenders.sequential.SequentialRecommender", **arguments)


SASREC = part("backbones.sasrec.SASRec", dim=DIM, n_layers=1, n_heads=1)
LEARNED = part("positions.learned.LearnedPosition", dim=DIM, max_length=LENGTH, init_std=1.0)
STREAMING, WINDOWED = (
    recipe(SASREC, LEARNED),
    recipe(SASREC, part("positions.learned.InversePosition", dim=DIM, max_length=LENGTH, init_std=1.0)),
)
TIMED = recipe(
    part("backbones.sasrec.SASRec", dim=DIM, n_layers=1, n_heads=1, position=part("positions.time_bias.TimeBias"))
)


def a_catalog(n_items: int = N_ITEMS, prefix: str = "item") -> Catalog:
    ids = [f"{prefix}-{place:03d}" for place in range(n_items)]
    colours = ["red", "green", "blue"]
    return Catalog(
        pl.DataFrame(
            {
                "item_id": ids,
                "title": [f"{colours[place % 3].title()} thing number {place}" for place in range(n_items)],
                "count": [n_items - place for place in range(n_items)],
                "categories": [[colours[place % 3]] for place in range(n_items)],
            }
        )
    )


def a_bundle(folder: Path, described: dict = WINDOWED, seed: int = 0, catalog: Catalog | None = None) -> Path:
    torch.manual_seed(seed)
    recommender = build_recommender(described, catalog or a_catalog()).eval()
    write_bundle(recommender, folder, recipe=described, config={}, max_length=LENGTH, metrics={"ndcg@10": 0.1})
    return folder
