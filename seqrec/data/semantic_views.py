"""Views that follow meaning: items swapped for others with a similar text, and the histories most alike in words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import torch
from jaxtyping import Int

from seqrec.data.batching import Arrays, newest_events
from seqrec.data.protocol import Part
from seqrec.data.views import TrainingData, View
from seqrec.semantics.neighbours import Neighbours
from seqrec.semantics.vectors import Vectors, check_quotes
from seqrec.sequences import Sequences


class SemanticSubstitutes(View):
    """The same history, with a share of its items each swapped for one of the nearest items by text.

    Source: the intra-user view of Cui et al., "Semantic Retrieval Augmented Contrastive Learning for Sequential
    Recommendation", NeurIPS 2025 (arXiv 2503.04162), after its released code: every event is swapped by a coin of its
    own, where the paper swaps an exact share, so a short history often stays as it is. Differs from the code: there is
    no padding that could be drawn, and an item is never its own neighbour.

    Args:
        data: what the view may draw from.
        vectors: folder of ``seqrec embed items`` in which ``seqrec neighbours`` has run.
        name: the key of the view; a batch of several such views needs one for each.
        share: probability that an event is swapped, in [0, 1].
        k: nearest items that a substitute is drawn from, at least 1; from fewer where the catalog lacks some of them.

    Raises:
        ValueError: the texts behind the vectors quote another training part, or no item has so many neighbours.
    """

    def __init__(
        self, data: TrainingData, vectors: str, name: str = "substitutes", share: float = 0.2, k: int = 10
    ) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"share is {share}; a probability lies between 0 and 1, e.g. 0.2.")
        _at_least_one(k)
        self.name, self.share = name, share
        described = _opened(vectors, "items", data)
        known = pl.DataFrame({"item_id": data.catalog.ids, "row": np.arange(len(data.catalog))})
        row_of = described.ids.join(known, on="item_id", how="left", maintain_order="left")["row"].fill_null(-1)
        rows = row_of.to_numpy()
        found = _nearest(vectors)
        near = np.append(rows, -1)[found]  # -1 is nobody here as there
        near = np.take_along_axis(near, np.argsort(near < 0, axis=1, kind="stable"), 1)[:, :k]
        self.substitutes = torch.full((len(data.catalog), k), -1)
        self.substitutes[rows[rows >= 0], : near.shape[1]] = torch.from_numpy(near[rows >= 0])
        self.counts = (self.substitutes >= 0).sum(1)
        if found.shape[1] < k or not bool(self.counts.any()):
            raise ValueError(
                f"No item of the catalog has {k} neighbours in {vectors}; embed the items of this data set, and find "
                f"at least {k} neighbours of each with `seqrec neighbours --vectors {vectors} -k {k}`."
            )

    def __call__(
        self,
        histories: Sequences,
        users: Int[np.ndarray, "B"],
        ends: Int[np.ndarray, "B"],
        generator: torch.Generator,
    ) -> Sequences:
        items = histories.items.cpu()
        coins = torch.rand(items.numel(), generator=generator)
        counts = self.counts[items]
        drawn = (torch.rand(items.numel(), generator=generator) * counts).long()
        swapped = torch.where((coins < self.share) & (counts > 0), self.substitutes[items, drawn], items)
        return Sequences(swapped.to(histories.items.device), histories.offsets, histories.times)


class SemanticNeighbours(View):
    """Each history once more, then the k training prefixes of other users whose texts are most alike, best first.

    All carry the vectors of their texts. So one pass reads, per history, itself with dropout of its own and its k
    neighbours.

    Source: the retrieval of Cui et al., "Semantic Retrieval Augmented Contrastive Learning for Sequential
    Recommendation", NeurIPS 2025 (arXiv 2503.04162). Differs from its code: the pool holds training prefixes alone and
    leaves out all of the same user, as the paper says; the code's pool, which holds the validation items, and its
    neighbours, among them the same user's next prefixes, are used only where ``allows_leak`` says so.

    Args:
        data: what the view may draw from.
        vectors: folder of ``seqrec embed histories`` in which ``seqrec neighbours`` has run.
        name: the key of the view.
        k: neighbours of each history, at least 1.
        allows_leak: whether vectors made of more than the training part, and neighbours of the same user, are accepted,
            to compare with published code.

    Raises:
        ValueError: the vectors are of other data, tell of more than the training part, there are too few of them, or
            neighbours are of the same user.
    """

    def __init__(
        self, data: TrainingData, vectors: str, name: str = "neighbours", k: int = 10, allows_leak: bool = False
    ) -> None:
        _at_least_one(k)
        self.name, self.k, self.folder = name, k, vectors
        self.log, self.arrays, self.max_length = data.log, Arrays.of(data.log), data.max_length
        described = _opened(vectors, "histories", data)
        if described.manifest.get("dataset") != data.log.manifest.get("fingerprint"):
            raise ValueError(
                f"{vectors} holds vectors of another data set, or of another preparation of it; run "
                "`seqrec embed histories` for the data that are trained on."
            )
        self.vectors = described.vectors
        users = pl.DataFrame({"user_id": data.log.users, "user": np.arange(len(data.log.users))})
        ids = described.ids.join(users, on="user_id", how="left", maintain_order="left")
        self.users, self.counts = ids["user"].to_numpy(), ids["n_events"].to_numpy()
        trained = np.zeros(len(data.log.users), dtype=np.int64)
        trained[data.part.users] = data.part.lengths
        beyond = int((self.counts > trained[self.users]).sum())
        if beyond and not allows_leak:
            raise ValueError(
                f"{vectors} is leaky: {beyond:,} of its {len(self.counts):,} prefixes reach beyond the training part; "
                "embed training prefixes alone, or set allows_leak to compare with code that does the same."
            )
        self.neighbours = _nearest(vectors, k, allows_leak)
        # With one text per user, all prefixes of a user share it.
        self.per_user = described.manifest.get("granularity") == "user"
        keys = self._keys(self.users, self.counts)
        self.order = np.argsort(keys, kind="stable")
        self.sorted_keys = keys[self.order]

    def _keys(self, users: Int[np.ndarray, "P"], counts: Int[np.ndarray, "P"]) -> Int[np.ndarray, "P"]:
        longest = int(np.diff(self.log.offsets).max(initial=0)) + 1
        return users * longest + (0 if self.per_user else counts)

    def _rows(self, users: Int[np.ndarray, "B"], ends: Int[np.ndarray, "B"]) -> Int[np.ndarray, "B"]:
        """Which vectors belong to the histories of these users up to these places in the log."""
        counts = ends - self.log.offsets[users]
        keys = self._keys(users, counts)
        places = np.searchsorted(self.sorted_keys, keys).clip(max=len(self.sorted_keys) - 1)
        lacking = np.flatnonzero(self.sorted_keys[places] != keys)
        if lacking.size:
            user, count = self.log.users[int(users[lacking[0]])], counts[lacking[0]]
            raise ValueError(
                f"{self.folder} has no vector of the first {count} events of the user {user}; run "
                "`seqrec embed histories` for all training prefixes of this data set. MaskedEvents reads one "
                "event more than any prefix has; take another supervision than that."
            )
        return self.order[places]

    def __call__(
        self,
        histories: Sequences,
        users: Int[np.ndarray, "B"],
        ends: Int[np.ndarray, "B"],
        generator: torch.Generator,
    ) -> Sequences:
        own = self._rows(users, ends)
        rows = np.concatenate([own[:, None], self.neighbours[own, : self.k]], 1)
        starts = self.log.offsets[self.users[rows]]
        until = starts + self.counts[rows]
        until[:, 0] = ends
        slices = Part(*(each.reshape(-1) for each in (self.users[rows], starts, until)))
        texts = torch.from_numpy(self.vectors[rows.reshape(-1)].astype(np.float32))
        versions = newest_events(self.arrays, slices, self.max_length)
        return replace(versions, vectors=texts).to(histories.items.device)


def _opened(folder: str, kind: str, data: TrainingData) -> Vectors:
    described = Vectors.open(Path(folder))
    if described.manifest.get("kind") != kind:
        raise ValueError(
            f"{folder} holds vectors of {described.manifest.get('kind')}, not of {kind}; name a folder of "
            f"`seqrec embed {kind}`."
        )
    check_quotes(Path(folder), data.catalog)
    return described


def _nearest(folder: str, k: int | None = None, allows_leak: bool = False) -> Int[np.ndarray, "V K"]:
    """The nearest rows of each vector, all that are known or, of every vector, exactly ``k``."""
    found = Neighbours.open(Path(folder))
    if found.manifest.get("same_user") and not allows_leak:
        raise ValueError(
            f"Neighbours in {folder} are leaky: they may be other prefixes of the same user, which end in what is to "
            f"be predicted; run `seqrec neighbours --vectors {folder}` without --same_user, or set allows_leak to "
            "compare with code that does the same."
        )
    rows = found.rows
    if k is not None and (rows.shape[1] < k or (rows[:, k - 1] < 0).any()):
        raise ValueError(
            f"Some vectors of {folder} have fewer than {k} neighbours; run `seqrec neighbours --vectors {folder} "
            f"-k {k}`, or set a smaller k."
        )
    return rows


def _at_least_one(k: int) -> None:
    if k < 1:
        raise ValueError(f"k is {k}; a view takes at least 1 neighbour, e.g. 10.")
