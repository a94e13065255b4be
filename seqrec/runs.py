"""What a run left behind, opened again: its config, its data and the recommender that it trained."""

from __future__ import annotations

from argparse import ArgumentError
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentParser

from seqrec.catalog import Catalog
from seqrec.data.datamodule import SequenceDataModule
from seqrec.data.errors import InputError
from seqrec.export.bundle import build_recommender
from seqrec.recommenders.keyed import KeyedRecommender
from seqrec.suggestions import sentence
from seqrec.training.ranking_task import check_catalog


@dataclass(frozen=True)
class Run:
    """A run of a recommender that ranks by queries and keys.

    Attributes:
        folder: where it lies.
        config: all that was set.
        recipe: what of it builds the recommender.
        data: its data, as they were read in training.
        checkpoint: the file of the weights, relative to the folder: the best checkpoint, or the last where there is no
            best.
        recommender: with these weights.
        trained_on: hash of the events that it was trained on; None in runs of earlier versions.
        starts_from: what it was before training, as ``warm_start.WarmStart`` says; None where it began from nothing.
    """

    folder: Path
    config: dict[str, Any]
    recipe: dict[str, Any]
    data: SequenceDataModule
    checkpoint: str
    recommender: KeyedRecommender
    trained_on: str | None = None
    starts_from: dict[str, Any] | None = None


def open_run(folder: Path) -> Run:
    """Build what a run trained, in evaluation mode.

    Raises:
        InputError: the folder is not that of a run, a file of it is broken, or its recommender has no queries and keys.
        ValueError: the data hold other items now.
    """
    config = _config(folder)
    recipe = config["model"]["init_args"]["recommender"]
    data = _data(folder, config)
    checkpoint = _checkpoint(folder)
    kept = _kept(checkpoint, data.catalog)
    prefix = "recommender."
    weights = {name.removeprefix(prefix): w for name, w in kept["state_dict"].items() if name.startswith(prefix)}
    with _building(folder / "config.yaml"):
        recommender = build_recommender(recipe, data.catalog)
    try:
        recommender.load_state_dict(weights)
    except RuntimeError as error:
        why = " ".join(str(error).partition(":")[2].split())[:200]
        raise InputError(
            f"{checkpoint} holds weights of another model than {folder / 'config.yaml'} describes ({why} …); put back "
            "the config of its training, or run `seqrec fit` again."
        ) from error
    place, origin = checkpoint.relative_to(folder).as_posix(), (kept.get("trained_on"), kept.get("starts_from"))
    return Run(folder, config, recipe, data, place, recommender.eval(), *origin)


def data_of(folder: Path) -> SequenceDataModule:
    """The data of a run, as its config describes them.

    Raises:
        InputError: the folder is not that of a run, or its config is broken.
    """
    return _data(folder, _config(folder))


def _data(folder: Path, config: Mapping[str, Any]) -> SequenceDataModule:
    with _building(folder / "config.yaml"):
        return _from_config(SequenceDataModule, config["data"])


@contextmanager
def _building(path: Path) -> Iterator[None]:
    """What a config says wrongly is told with its name."""
    try:
        yield
    except ArgumentError as error:
        raise _broken(path, sentence(error, ["fit", f"--config={path}"])) from error


def _broken(path: Path, why: str) -> InputError:
    return InputError(
        f"{path} does not describe a run ({why.rstrip('.')}); put it back as `seqrec fit` wrote it, or run that again."
    )


def _from_config(kind: type[SequenceDataModule], arguments: Mapping[str, Any]) -> SequenceDataModule:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, "data")
    return parser.instantiate_classes(parser.parse_object({"data": dict(arguments)}))["data"]


def _config(run: Path) -> dict[str, Any]:
    path = run / "config.yaml"
    if not path.is_file():
        raise InputError(f"{path} does not exist, so {run} is not the folder of a run. Run `seqrec fit` first.")
    try:
        config = yaml.safe_load(path.read_text())
        parts = config["model"]["init_args"]["recommender"], config["data"]
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise _broken(path, f"it is no YAML: {' '.join(str(error).split())[:200]}") from error
    except (KeyError, TypeError):
        parts = (None,)
    if not all(isinstance(part, Mapping) for part in parts):
        raise _broken(path, "it needs the keys data and model.init_args.recommender, each with keys of its own")
    return config


def _checkpoint(run: Path) -> Path:
    checkpoints = [run / "checkpoints" / f"{name}.ckpt" for name in ("best", "last")]
    found = next((path for path in checkpoints if path.is_file()), None)
    if found is None:
        raise InputError(f"{checkpoints[0]} does not exist. Run `seqrec fit --run {run}` first.")
    return found


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What a checkpoint holds.

    Raises:
        InputError: it is damaged.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        _ = checkpoint["state_dict"]
    except Exception as error:  # torch raises whatever the bytes lead it to
        raise InputError(
            f"{path} is cut short or no checkpoint of seqrec; put back a whole copy, or run `seqrec fit` again."
        ) from error
    return checkpoint


def _kept(path: Path, catalog: Catalog) -> dict[str, Any]:
    checkpoint = read_checkpoint(path)
    check_catalog(checkpoint, catalog.fingerprint)
    return checkpoint
