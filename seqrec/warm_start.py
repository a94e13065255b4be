"""Training that goes on from what an exported model knows: on newer events, other items or with new parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor

from seqrec.catalog import Catalog
from seqrec.data.errors import InputError
from seqrec.embeddings.base import ItemEmbedding
from seqrec.embeddings.texts import TextTable
from seqrec.export.bundle import read_weights
from seqrec.recommenders.base import Recommender


@dataclass(frozen=True)
class WarmStart:
    """What a recommender took over.

    Attributes:
        bundle: the folder it comes from.
        model_fingerprint: of the model there.
        learned_before: hashes of the events that it learned from before, without that of this training; "unknown" where
            the bundle does not say.
        known_items: items of the catalog that the earlier model was trained on.
        fresh: names of the parameters that begin as they would without it.
        unused: names of the earlier tensors that nothing here begins from.
    """

    bundle: str
    model_fingerprint: str
    learned_before: list[str]
    known_items: int
    fresh: list[str]
    unused: list[str]


@torch.no_grad()
def start_from(recommender: Recommender, folder: Path, trained_on: str) -> WarmStart:
    """Give a recommender the weights of an exported one; items take theirs by raw id.

    What has no counterpart of its name begins as it would without a bundle: new items, and parts that the earlier model
    lacks. An earlier table of free vectors becomes the free vectors of an embedding that reads texts beside them, which
    is how the aligned model of PAD begins (see ``objectives.alignment.KernelAlignment``). What was counted or read of
    the items of then is taken from those of now. Objective, auxiliaries, reweighter and optimizer begin anew.

    Args:
        recommender: what is to be trained; changed in place.
        folder: a bundle of `seqrec export`; items that were added to it later are new here.
        trained_on: hash of the events that will be trained on.

    Raises:
        InputError: the folder is no bundle, nothing in it fits, or a tensor of the same name has another shape.
    """
    manifest, items, stored = read_weights(folder)
    rows = _earlier_rows(items, recommender.catalog)
    by_item = {f"{path}.{name}" for path, part in _embeddings(recommender) for name in part.by_item}
    parameters = {name for name, _ in recommender.named_parameters()}
    own, counterparts = recommender.state_dict(), dict(_counterparts(recommender, stored))
    taken = dict[str, Tensor]()
    for name, earlier in counterparts.items():
        weight, fresh = stored[earlier], own[name]
        if name not in parameters and weight.shape[:1] == (len(items),):
            continue
        is_table = name in by_item
        if weight.shape[is_table:] != fresh.shape[is_table:]:
            raise InputError(
                f"{name} has the shape {tuple(fresh.shape)} here and {tuple(weight.shape)} in {folder}; give the model "
                "the settings of the one that was exported, or leave starts_from out."
            )
        taken[name] = _of_items(fresh, weight, rows) if is_table else weight
    if not taken:
        raise InputError(
            f"Nothing in {folder} has the name of a part of this {type(recommender).__name__}; start from a bundle of "
            "a model like it, or leave starts_from out."
        )
    recommender.load_state_dict(own | taken)
    for part in recommender.modules():
        if isinstance(part, TextTable):
            part.reduce()
    about = manifest.get("about", {})
    before = {about.get("trained_on") or "unknown", *about.get("learned_before", ())} - {trained_on}
    return WarmStart(
        bundle=str(folder),
        model_fingerprint=manifest["model_fingerprint"],
        learned_before=sorted(before),
        known_items=int((rows >= 0).sum()),
        fresh=[name for name in own if name in parameters and name not in taken],
        unused=sorted(set(stored) - set(counterparts.values())),
    )


def _embeddings(recommender: Recommender) -> Iterator[tuple[str, ItemEmbedding]]:
    return ((path, part) for path, part in recommender.named_modules() if isinstance(part, ItemEmbedding))


def _counterparts(recommender: Recommender, stored: Mapping[str, Tensor]) -> Iterator[tuple[str, str]]:
    """Names of tensors here, each with that of the earlier tensor that it begins from."""
    free = [(f"{path}.{part.free}.", f"{path}.") for path, part in _embeddings(recommender) if part.free]
    for name in recommender.state_dict():
        alone = (name.replace(here, there, 1) for here, there in free if name.startswith(here))
        found = next((earlier for earlier in (name, *alone) if earlier in stored), None)
        if found is not None:
            yield name, found


def _earlier_rows(earlier: Catalog, now: Catalog) -> Int[Tensor, "N"]:
    """The row that each item had before, -1 where it had none."""
    known = earlier.table.select("item_id").with_row_index("row").cast({"row": pl.Int64})
    found = now.table.select("item_id").join(known, on="item_id", how="left", maintain_order="left")
    return torch.from_numpy(found["row"].fill_null(-1).to_numpy().copy())


def _of_items(
    fresh: Float[Tensor, "N *k"], earlier: Float[Tensor, "M *k"], rows: Int[Tensor, "N"]
) -> Float[Tensor, "N *k"]:
    table, known = fresh.clone(), rows >= 0
    table[known] = earlier[rows[known]].to(fresh)
    return table
