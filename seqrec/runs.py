"""What a run left behind, opened again: its config, its data and the recommender that it trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentParser
from torch import Tensor

from seqrec.catalog import Catalog
from seqrec.data.datamodule import SequenceDataModule
from seqrec.data.errors import InputError
from seqrec.export.bundle import build_recommender
from seqrec.recommenders.keyed import KeyedRecommender
from seqrec.training.ranking_task import check_catalog


@dataclass(frozen=True)
class Run:
    """A run of a recommender that ranks by queries and keys.

    Attributes:
        folder: where it lies.
        config: all that was set.
        recipe: what of it builds the recommender.
        data: its data, as they were read in training.
        recommender: with the weights of the best checkpoint, or of the last where there is no best.
    """

    folder: Path
    config: dict[str, Any]
    recipe: dict[str, Any]
    data: SequenceDataModule
    recommender: KeyedRecommender


def open_run(folder: Path) -> Run:
    """Build what a run trained, in evaluation mode.

    Raises:
        InputError: the folder is not that of a run, or its recommender has no queries and keys.
        ValueError: the data hold other items now.
    """
    config = _config(folder)
    recipe = config["model"]["init_args"]["recommender"]
    data = _from_config(SequenceDataModule, config["data"])
    weights = _weights(folder, data.catalog)
    recommender = build_recommender(recipe, data.catalog)
    recommender.load_state_dict(weights)
    return Run(folder, config, recipe, data, recommender.eval())


def _from_config(kind: type[SequenceDataModule], arguments: Mapping[str, Any]) -> SequenceDataModule:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, "data")
    return parser.instantiate_classes(parser.parse_object({"data": dict(arguments)}))["data"]


def _config(run: Path) -> dict[str, Any]:
    path = run / "config.yaml"
    if not path.is_file():
        raise InputError(f"{path} does not exist, so {run} is not the folder of a run. Run `seqrec fit` first.")
    return yaml.safe_load(path.read_text())


def _weights(run: Path, catalog: Catalog) -> dict[str, Tensor]:
    checkpoints = [run / "checkpoints" / f"{name}.ckpt" for name in ("best", "last")]
    found = next((path for path in checkpoints if path.is_file()), None)
    if found is None:
        raise InputError(f"{checkpoints[0]} does not exist. Run `seqrec fit --run {run}` first.")
    checkpoint = torch.load(found, map_location="cpu", weights_only=True)
    check_catalog(checkpoint, catalog.fingerprint)
    prefix, state = "recommender.", checkpoint["state_dict"]
    return {name.removeprefix(prefix): weight for name, weight in state.items() if name.startswith(prefix)}
