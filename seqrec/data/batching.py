"""Fills batches to an event budget and gathers them from the memory-mapped log."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch.utils.data import Dataset, Sampler

from seqrec.batch import Batch
from seqrec.data.log import Log
from seqrec.data.negatives import Negatives
from seqrec.data.protocol import Part
from seqrec.data.supervision import NewestEvent, Supervision
from seqrec.data.views import View
from seqrec.sequences import Sequences, bounds


class Rows(NamedTuple):
    """Names one batch: its epoch, its number within the epoch, and the rows that it holds."""

    epoch: int
    number: int
    rows: Int[np.ndarray, "B"]


class Arrays(NamedTuple):
    """Item and time of every event of a log: memory-mapped, or resident on a GPU."""

    items: Int[torch.Tensor, "E"]
    times: Int[torch.Tensor, "E"]

    @classmethod
    def of(cls, log: Log, device: torch.device | str = "cpu") -> Arrays:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*not writable.*")  # nobody writes
            return cls(torch.from_numpy(log.items).to(device), torch.from_numpy(log.times).to(device))


class ShuffledBatches(Sampler[Rows]):
    """Batches of histories of like length, mixed anew every epoch.

    The *global* batches of an epoch depend on the lengths, the seed and the epoch alone. Each is dealt out over the
    ranks, so every rank takes the same number of steps and no history comes twice; where a global batch has fewer
    histories than there are ranks, some ranks receive a batch without histories. Every epoch has the same number of
    batches. A history longer than the budget has a batch of its own.

    Args:
        lengths: input events of each row, at least 1.
        budget: most input events of a global batch, at least 1.
        seed: where the order comes from, at least 0.
        rank: which share of each global batch is ours.
        world: how many ranks there are.
        jitter: by how much of itself a length may be mistaken when histories of like length are put together; more
            of it mixes better, and fits less well. Infinity puts together what chance does.
    """

    def __init__(
        self,
        lengths: Int[np.ndarray, "R"],
        budget: int,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        jitter: float = 0.2,
    ) -> None:
        self.lengths = lengths
        self.budget = budget
        self.seed = seed
        self.rank = rank
        self.world = world
        self.jitter = jitter
        self.epoch = 0
        fewest = len(cut(np.sort(lengths), budget)) - 1
        # A little room lets almost every epoch be jittered in full and still have the same number of batches.
        wanted = _most_batches(lengths, budget) if np.isinf(jitter) else fewest + fewest // 50
        self.n_batches = min(wanted, lengths.size)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.n_batches

    def __iter__(self) -> Iterator[Rows]:
        for number, rows in enumerate(self.global_batches(self.epoch)):
            yield Rows(self.epoch, number, rows[self.rank :: self.world])

    def global_batches(self, epoch: int) -> list[Int[np.ndarray, "B"]]:
        """The batches of an epoch before they are dealt out over the ranks."""
        generator = np.random.default_rng([self.seed, epoch])
        order, edges = self._order(generator)
        batches = np.split(order, edges[1:-1])
        return [batches[number] for number in generator.permutation(len(batches))] if order.size else []

    def _order(self, generator: np.random.Generator) -> tuple[Int[np.ndarray, "R"], Int[np.ndarray, "bounds"]]:
        """Rows by jittered length, and where to cut them into exactly ``n_batches``.

        Without jitter only rows of one length change places, so the last try always fits.
        """
        mistakes = generator.random(self.lengths.size)
        ties = generator.permutation(self.lengths.size)
        for jitter in (self.jitter, min(self.jitter, 1.0) / 4, 0.0):
            order = np.lexsort((ties, mistakes if np.isinf(jitter) else self.lengths * (1 + jitter * mistakes)))
            edges = cut(self.lengths[order], self.budget)
            if len(edges) - 1 <= self.n_batches:
                break
        return order, _halve(edges, self.n_batches)


class FixedBatches(Sampler[Rows]):
    """All rows once, shortest first, in the same batches every time: the order of evaluation.

    Args:
        lengths: input events of each row, at least 1.
        budget: most input events of a global batch, at least 1.
        rank: which share of each global batch is ours.
        world: how many ranks there are.
    """

    def __init__(self, lengths: Int[np.ndarray, "R"], budget: int, rank: int = 0, world: int = 1) -> None:
        order = np.argsort(lengths, kind="stable")
        edges = cut(lengths[order], budget)
        self.batches = np.split(order, edges[1:-1])[: len(edges) - 1]
        self.rank = rank
        self.world = world

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Rows]:
        for number, rows in enumerate(self.batches):
            yield Rows(0, number, rows[self.rank :: self.world])


class TrainingBatches(Dataset[Batch]):
    """Gathers the batch that a ``Rows`` names, with its views.

    Args:
        arrays: the events; batches are gathered where they lie.
        part: the training slices.
        supervision: which events predict.
        max_length: most input events of a row; None reads all.
        views: other versions of the histories to make.
        seed: with the epoch and the number of the batch, what supervision, views and negatives draw from; at least 0.
        negatives: draws items that did not follow, for each prediction; None draws none.
    """

    def __init__(
        self,
        arrays: Arrays,
        part: Part,
        supervision: Supervision,
        max_length: int | None = None,
        views: Sequence[View] = (),
        seed: int = 0,
        negatives: Negatives | None = None,
    ) -> None:
        self.arrays = arrays
        self.rows = supervision.rows(part, max_length)
        self.supervision = supervision
        self.views = views
        self.seed = seed
        self.negatives = negatives

    @property
    def input_lengths(self) -> Int[np.ndarray, "R"]:
        return self.rows.lengths - self.supervision.target_lag

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, batch: Rows) -> Batch:
        generator = seeded(self.seed, batch.epoch, batch.number)
        plain = _gather(self.arrays, self.rows, batch.rows, self.supervision, generator)
        ends = self.rows.ends[batch.rows] - self.supervision.target_lag
        views = {view.name: view(plain.history, self.rows.users[batch.rows], ends, generator) for view in self.views}
        if self.negatives is None:
            return replace(plain, views=views)
        asking = plain.users[plain.history.owners[plain.predict_at]]
        return replace(plain, views=views, negatives=self.negatives.draw(asking, generator))


class EvaluationBatches(Dataset[Batch]):
    """Gathers the batch that a ``Rows`` names; each slice predicts its newest event.

    Args:
        arrays: the events; batches are gathered where they lie.
        part: slices whose newest event is the target.
        max_length: most input events of a row; None reads all.
        seen_is_excluded: whether ``seen`` lists all items of the slice before the target, also those that the window
            leaves out.
        negatives: items that did not follow, some for each slice; None where nobody drew any.
    """

    def __init__(
        self,
        arrays: Arrays,
        part: Part,
        max_length: int | None = None,
        seen_is_excluded: bool = True,
        negatives: Int[torch.Tensor, "R n"] | None = None,
    ) -> None:
        self.arrays = arrays
        self.whole = NewestEvent().rows(part, None)
        self.rows = NewestEvent().rows(part, max_length)
        self.seen_is_excluded = seen_is_excluded
        self.negatives = negatives

    @property
    def input_lengths(self) -> Int[np.ndarray, "R"]:
        return self.rows.lengths - 1

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, batch: Rows) -> Batch:
        plain = _gather(self.arrays, self.rows, batch.rows, NewestEvent())
        seen = None
        if self.seen_is_excluded:
            at, offsets = _inputs(self.whole, batch.rows, self.arrays.items.device)
            seen = Sequences(self.arrays.items[at].long(), offsets)
        return replace(plain, seen=seen, negatives=None if self.negatives is None else self.negatives[batch.rows])


def newest_events(arrays: Arrays, part: Part, n: int | None) -> Sequences:
    """The newest n events of every slice, or all of them."""
    starts = part.starts if n is None else np.maximum(part.starts, part.ends - n)
    rows = Part(part.users, starts, part.ends)
    at, offsets = _inputs(rows, np.arange(len(rows)), arrays.items.device, unread=0)
    return Sequences(arrays.items[at].long(), offsets, arrays.times[at])


def seeded(*seeds: int) -> torch.Generator:
    """A generator of its own for every row of seeds, each at least 0."""
    state = np.random.SeedSequence(seeds).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


def cut(lengths: Int[np.ndarray, "R"], budget: int) -> Int[np.ndarray, "bounds"]:
    """Edges that cut rows, in order, into batches of at most ``budget`` events; a longer row stands alone."""
    until = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    edges = [0]
    while edges[-1] < lengths.size:
        start = edges[-1]
        fits = int(np.searchsorted(until, until[start] + budget, side="right")) - 1
        edges.append(max(fits, start + 1))
    return np.array(edges, dtype=np.int64)


def _most_batches(lengths: Int[np.ndarray, "R"], budget: int) -> int:
    """Batches that hold rows in any order: each lacks less than the longest row, and two neighbours exceed a budget."""
    total, longest = int(np.minimum(lengths, budget).sum()), min(int(lengths.max(initial=1)), budget)
    return min(math.ceil(total / (budget - longest + 1)), 2 * total // budget + 1)


def _halve(edges: Int[np.ndarray, "bounds"], n_batches: int) -> Int[np.ndarray, "wanted"]:
    """Cut the batches of most rows in two until there are ``n_batches``."""
    while len(edges) - 1 < n_batches:
        sizes = np.diff(edges)
        wanted = n_batches - sizes.size
        largest = np.argsort(-sizes, kind="stable")[:wanted]
        largest = largest[sizes[largest] >= 2]
        edges = np.sort(np.concatenate([edges, edges[largest] + sizes[largest] // 2]))
    return edges


def _inputs(
    part: Part, rows: Int[np.ndarray, "B"], device: torch.device, unread: int = 1
) -> tuple[Int[torch.Tensor, "T"], Int[torch.Tensor, "bounds"]]:
    """Where the input events of these rows, all but the newest ``unread``, stand in the log, end to end, and the
    offsets of the rows."""
    starts, ends = part.starts[rows], part.ends[rows] - unread
    total = int((ends - starts).sum())
    first, lengths = (torch.from_numpy(values).to(device) for values in (starts, ends - starts))
    offsets = bounds(lengths)
    shift = torch.repeat_interleave(first - offsets[:-1], lengths, output_size=total)
    return torch.arange(total, device=device) + shift, offsets


def _gather(
    arrays: Arrays,
    part: Part,
    rows: Int[np.ndarray, "B"],
    supervision: Supervision,
    generator: torch.Generator | None = None,
) -> Batch:
    items, times = arrays
    at, offsets = _inputs(part, rows, items.device, supervision.target_lag)
    history = Sequences(items[at].long(), offsets, times[at])
    predict_at = supervision.predict_at(history, generator)
    wanted = at[predict_at] + supervision.target_lag
    users = torch.from_numpy(part.users[rows]).to(items.device)
    hidden = predict_at if supervision.target_lag == 0 else None
    return Batch(users, history, predict_at, items[wanted].long(), times[wanted], hidden=hidden)
