"""Training that goes on from what an exported model knows: on newer events, other items or with new parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from seqrec.catalog import Catalog
from seqrec.data.errors import InputError
from seqrec.embeddings.base import ItemEmbedding
from seqrec.embeddings.texts import TextTable
from seqrec.export.bundle import read_weights
from seqrec.recommenders.base import Recommender

_ROUNDING = 1e-3  # of a text vector that is made narrower once more


@dataclass(frozen=True)
class WarmStart:
    """What a recommender took over.

    Attributes:
        bundle: the folder it comes from.
        model_fingerprint: of the model there.
        learned_before: hashes of the events that it learned from before, without that of this training; where the
            bundle does not say, its model stands for them.
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
        InputError: the folder is no bundle, nothing in it fits, a tensor of the same name has another shape, a table
            may be one of items, or texts were read by another encoder.
    """
    manifest, items, stored = read_weights(folder)
    rows = _earlier_rows(items, recommender.catalog)
    parts = dict(recommender.named_modules())
    by_item = {f"{path}.{name}" for path, part in parts.items() for name in getattr(part, "by_item", ())}
    parameters = {name for name, _ in recommender.named_parameters()}
    own, counterparts = recommender.state_dict(), dict(_counterparts(recommender, stored))
    taken = dict[str, Tensor]()
    for name, earlier in counterparts.items():
        weight, fresh, is_by_item = stored[earlier], own[name], name in by_item
        if is_by_item and name not in parameters:
            continue
        if weight.shape[is_by_item:] != fresh.shape[is_by_item:]:
            raise InputError(
                f"{name} has the shape {tuple(fresh.shape)} here and {tuple(weight.shape)} in {folder}; give the model "
                "the settings of the one that was exported, or leave starts_from out."
            )
        taken[name] = _of_items(fresh, weight, rows) if is_by_item else weight
    if not taken:
        raise InputError(
            f"Nothing in {folder} has the name of a part of this {type(recommender).__name__}; start from a bundle of "
            "a model like it, or leave starts_from out."
        )
    if items.fingerprint != recommender.catalog.fingerprint:
        _demand_no_hidden_table(recommender, taken.keys() - by_item)
    recommender.load_state_dict(own | taken)
    for path, part in parts.items():
        if isinstance(part, TextTable):
            part.reduce()
            _demand_same_texts(part, stored.get(f"{path}.vectors"), rows, folder)
    about = manifest.get("about", {})
    fingerprint = manifest["model_fingerprint"]
    before = {about.get("trained_on") or f"unknown to {fingerprint}", *about.get("learned_before", ())} - {trained_on}
    return WarmStart(
        bundle=str(folder),
        model_fingerprint=fingerprint,
        learned_before=sorted(before),
        known_items=int((rows >= 0).sum()),
        fresh=[name for name in own if name in parameters and name not in taken],
        unused=sorted(set(stored) - set(counterparts.values())),
    )


def _embeddings(recommender: Recommender) -> list[tuple[str, ItemEmbedding]]:
    return [(path, part) for path, part in recommender.named_modules() if isinstance(part, ItemEmbedding)]


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


def _demand_no_hidden_table(recommender: Recommender, names: Set[str]) -> None:
    """See that no table that would be taken as it is has a row for each item: the items were others then."""
    within = [
        (f"{path}.{name}", part) for path, each in _embeddings(recommender) for name, part in each.named_modules()
    ]
    for path, part in within:
        table = f"{path}.weight"
        has_all = isinstance(part, nn.Embedding) and part.num_embeddings == len(recommender.catalog)
        if has_all and table in names:
            raise InputError(
                f"{table} has as many rows as there are items, and nobody says whether its rows are items, which were "
                "others then; name it in `by_item` of the embedding that it belongs to."
            )


def _demand_same_texts(texts: TextTable, then: Tensor | None, rows: Int[Tensor, "N"], folder: Path) -> None:
    """See that most items have the vectors of then: a text may be corrected, but not be read by another encoder."""
    known, now = rows >= 0, texts.vectors
    if then is None or now is None or not known.any():
        return
    now, then = now[known].float(), then[rows[known]].float()
    if then.shape != now.shape or ((then - now).norm(dim=1) > _ROUNDING * then.norm(dim=1)).float().mean() > 0.5:
        raise InputError(
            f"Most items have other text vectors here than in {folder}; make those of all items with the encoder of "
            "then, or begin without a bundle."
        )
