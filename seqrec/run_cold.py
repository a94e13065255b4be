"""Asks a run for items that its training never saw, by nothing but their texts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from seqrec.data.errors import InputError
from seqrec.data.withhold import ITEMS, TARGETS
from seqrec.evaluation.meter import Meter
from seqrec.ops import ranking
from seqrec.recommenders.keyed import KeyedRecommender
from seqrec.runs import open_run
from seqrec.semantics.vector_files import vectors_of
from seqrec.semantics.vectors import quotes_of
from seqrec.sequences import Sequences
from seqrec.training.record import write

_HISTORIES = 512


def cold(run: Path, vectors: Path) -> None:
    """Rank withheld items, which have a text and no interaction, among all items and among themselves.

    seqrec withhold --data data/prepared/amazon-beauty --out data/prepared/amazon-beauty-cold
    seqrec fit … --data.prepared data/prepared/amazon-beauty-cold --run runs/cold
    seqrec cold --run runs/cold --vectors minilm.parquet

    Each withheld item gets a key from its text alone, as `seqrec add-items` gives it one in a bundle. Writes cold.json
    into the folder of the run.

    Args:
        run: folder of a finished run on data that `seqrec withhold` wrote.
        vectors: file or folder of text vectors that holds the withheld items, made by the encoder of the model's own.

    Raises:
        InputError: the data withhold nothing, the model may know the items from an earlier training, the texts quote
            histories, or the model makes nothing of texts.
    """
    opened = open_run(Path(run))
    data, recommender = opened.data, opened.recommender
    if (opened.starts_from or {}).get("learned_before"):
        raise InputError(
            f"{run} started from a model that had learned from other events, maybe of the withheld items; train it "
            "without --starts_from."
        )
    folder = data.prepared
    if not (folder / f"{TARGETS}.parquet").is_file():
        raise InputError(f"{folder} withholds no items. Run `seqrec withhold --data {folder} --out …` and train on it.")
    if quotes_of(Path(vectors)):
        raise InputError(
            f"The prompts behind {vectors} quote histories, in which withheld items were chosen. Run `seqrec describe "
            "items` with --quotes 0, and `seqrec embed items` with its texts."
        )
    items, targets = (pl.read_parquet(folder / f"{name}.parquet") for name in (ITEMS, TARGETS))
    keys = torch.cat([recommender.item_keys(), cold_keys(recommender, vectors, items["item_id"])])
    n_warm = len(data.catalog)
    row_of = {raw: n_warm + place for place, raw in enumerate(items["item_id"])}
    wanted = torch.tensor([row_of[raw] for raw in targets["item_id"]])
    everything, themselves = Meter((10, 20, 50, 100)), Meter((10, 20, 50, 100))
    for start in track(range(0, len(targets), _HISTORIES), "ranking", console=Console(stderr=True)):
        part, at = targets[start : start + _HISTORIES], wanted[start : start + _HISTORIES]
        histories = [data.catalog.rows(history)[0] for history in part["history"]]
        queries = _queries(recommender, histories, part, data.max_length)
        seen = Sequences.pack(histories if data.protocol.seen_is_excluded else [[] for _ in histories])
        everything.update(ranking.target_ranks(queries, keys, at, seen.items, seen.offsets))
        themselves.update(ranking.target_ranks(queries, keys[n_warm:], at - n_warm))
    result = {
        "run": opened.folder.name,
        "withheld": data.log.manifest["withheld"],
        "vectors": str(vectors),
        "targets": len(targets),
        "among_all": everything.compute(),
        "among_themselves": themselves.compute(),
        "by_chance_among_themselves": {"recall@10": min(10 / len(items), 1.0)},
        "passport": data.passport,
    }
    write(opened.folder / "cold.json", json.dumps(result, indent=2) + "\n")
    _show(result)


@torch.no_grad()
def cold_keys(recommender: KeyedRecommender, vectors: Path, ids: pl.Series) -> Tensor:
    """Keys [n, K] of items that training never saw, from the vectors of their texts.

    Raises:
        InputError: the model makes nothing of texts, or an item has no vector in the file.
    """
    texts = torch.from_numpy(np.array(vectors_of(Path(vectors), ids)))
    try:
        made = (recommender.output or recommender.embedding).vectors_of(texts.float())
        return recommender.scorer.keys(made)
    except TypeError as refusal:
        raise InputError(str(refusal)) from refusal


@torch.no_grad()
def _queries(
    recommender: KeyedRecommender, histories: list[list[int]], part: pl.DataFrame, max_length: int | None
) -> Tensor:
    reads = max_length or 0
    window = Sequences.pack([each[-reads:] for each in histories], [each[-reads:] for each in part["times"].to_list()])
    if recommender.reads_asked_at:
        window = window.asking(window.newest, torch.tensor(part["asked_at"].to_list()))
    return recommender.queries(window, window.newest)


def _show(result: dict) -> None:
    table = Table("", "recall@10", "recall@50", "ndcg@10", title=f"{result['targets']:,} withheld targets")
    for name in ("among_all", "among_themselves"):
        figures = result[name]
        table.add_row(name.replace("_", " "), *(f"{figures[key]:.4f}" for key in ("recall@10", "recall@50", "ndcg@10")))
    Console().print(table)
