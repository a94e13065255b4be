"""What recommenders of queries and keys share: an embedding, a backbone and a scorer in a row."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from enum import Enum, member
from operator import attrgetter

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from seqrec.backbones.base import Backbone
from seqrec.batch import Batch
from seqrec.catalog import Catalog
from seqrec.embeddings.base import ItemEmbedding
from seqrec.nn.dropout import Dropout
from seqrec.ops import ranking
from seqrec.positions.base import InputPosition
from seqrec.recommenders.base import Encoded, Recommender, TopK
from seqrec.scorers import Dot, Scorer
from seqrec.sequences import Sequences


class Start(Enum):
    """What the weights of a recommender begin as."""

    own = member(lambda weight: None)
    xavier_normal = member(nn.init.xavier_normal_)


class KeyedRecommender(Recommender):
    """Events are embedded, a backbone reads them, and a scorer compares states with every item.

    Which state speaks for the item that comes next is said by the recommenders that build on this one.

    Args:
        catalog: the items to choose from, with their training counts.
        embedding: builds the item embedding from the catalog; keys share it unless ``output`` is given.
        backbone: turns event vectors into states.
        scorer: turns states into queries and item vectors into keys; the inner product by default.
        position: adds to each event what its place means; None adds nothing.
        dropout: share of the event vectors' entries dropped before the backbone, in [0, 1).
        scales_input: whether item vectors are multiplied by sqrt(D) when read as events (never when scored).
        normalises_input: whether events are normalised once they know their position, as in BERT.
        output: builds the embedding that items are scored by; None scores them by what they are read as (tied weights).
        start: ``own``: each part begins as it says itself; ``xavier_normal``: all weights of two and more dimensions,
            the tables of items and positions among them, begin as Xavier's normal distribution says of their shape.
    """

    def __init__(
        self,
        catalog: Catalog,
        embedding: Callable[[Catalog], ItemEmbedding],
        backbone: Backbone,
        scorer: Scorer | None = None,
        position: InputPosition | None = None,
        dropout: float = 0.0,
        scales_input: bool = False,
        normalises_input: bool = False,
        output: Callable[[Catalog], ItemEmbedding] | None = None,
        start: Start = Start.own,
    ) -> None:
        super().__init__(catalog)
        self.embedding = embedding(catalog)
        if self.embedding.dim != backbone.dim:
            raise ValueError(
                f"The embedding makes vectors of width {self.embedding.dim}, the backbone reads {backbone.dim}. "
                f"Give both the same dim."
            )
        if position is not None and position.dim not in (None, backbone.dim):
            raise ValueError(
                f"{type(position).__name__} adds vectors of width {position.dim}, the backbone reads {backbone.dim}. "
                "Give both the same dim."
            )
        self.output = None if output is None else output(catalog)
        self.backbone = backbone
        self.scorer = scorer or Dot()
        self.scorer.meet(backbone)
        self.position = position
        self.norm = nn.LayerNorm(backbone.dim, eps=1e-12) if normalises_input else nn.Identity()
        self.dropout = Dropout(dropout)
        self.input_scale = math.sqrt(backbone.dim) if scales_input else 1.0
        parts = ((part, name) for part in self.modules() for name in getattr(part, "keeps_start", ()))
        kept = {id(attrgetter(name)(part)) for part, name in parts}
        for weight in self.parameters():
            if weight.ndim > 1 and weight.requires_grad and id(weight) not in kept:
                start.value(weight)

    @property
    def causal(self) -> bool:
        return self.backbone.causal

    @property
    def reads_clock(self) -> bool:
        return self.backbone.reads_clock or (self.position is not None and self.position.reads_clock)

    @property
    def max_length(self) -> int | None:
        return None if self.position is None else self.position.max_length

    @property
    def reads_asked_at(self) -> bool:
        return self.backbone.reads_asked_at or (self.position is not None and self.position.reads_asked_at)

    @abstractmethod
    def next_states(self, history: Sequences, at: Int[Tensor, "M"]) -> Float[Tensor, "M D"]:
        """The states that speak for what follows the events at these places."""

    def item_keys(self, rows: Int[Tensor, "*n"] | None = None) -> Float[Tensor, "*rows K"]:
        """What the scorer compares queries with: keys of these items, or of the whole catalog."""
        return self.scorer.keys((self.output or self.embedding)(rows))

    def queries(self, history: Sequences, at: Int[Tensor, "M"]) -> Float[Tensor, "M K"]:
        """Queries for what follows the events at these places, in float32 whatever the precision of training."""
        with torch.autocast(history.items.device.type, enabled=False):
            return self.scorer.queries(self.next_states(history, at))

    def informed(self, batch: Batch) -> Batch:
        if not self.reads_asked_at:
            return batch
        if batch.asked_at is None or batch.history.times is None:
            raise ValueError(
                "A position of this model reads when a prediction is asked for, and the batch does not say; give "
                "asked_at and the times of the histories."
            )
        history = batch.history.asking(batch.predict_at, batch.asked_at)
        # Of a view nobody says when its next item was asked for: it is asked as soon as its newest event is there.
        views = {name: _asked_at_once(name, view) for name, view in batch.views.items()}
        return replace(batch, history=history, views=views)

    @torch.no_grad()
    def ranks(self, batch: Batch) -> Int[Tensor, "M"]:
        seen = (None, None) if batch.seen is None else (batch.seen.items, batch.seen.offsets)
        with ranking.full_float32(batch.targets.device):
            queries, keys = self.queries(self.informed(batch).history, batch.predict_at), self.item_keys()
        return ranking.target_ranks(queries, keys, batch.targets, *seen)

    @torch.no_grad()
    def recommend(self, history: Sequences, k: int, seen: Sequences | None = None) -> TopK:
        if not bool((history.lengths > 0).all()):
            raise ValueError(
                "A history has no event, so there is none that the next item could follow; leave out histories without "
                "events, or answer them with Popularity."
            )
        left_out = (None, None) if seen is None else (seen.items, seen.offsets)
        with ranking.full_float32(history.items.device):
            queries, keys = self.queries(history, history.newest), self.item_keys()
        return TopK(*ranking.top_k(queries, keys, k, *left_out))

    def _read(self, vectors: Float[Tensor, "T D"], history: Sequences, at: Int[Tensor, "M"]) -> Float[Tensor, "M D"]:
        """The states at these places of events with these item vectors."""
        return self.backbone.states_at(self._events(vectors, history), history, at)

    def _events(self, vectors: Float[Tensor, "T D"], history: Sequences) -> Float[Tensor, "T D"]:
        """What the backbone reads of these item vectors."""
        events = vectors * self.input_scale
        if self.position is not None:
            events = self.position(events, history)
        return self.dropout(self.norm(events))

    def _encoded(self, batch: Batch, states: Float[Tensor, "V D"]) -> Encoded:
        """A batch that has these states at the places that ``wanted`` names."""
        own, *others = states.split([batch.predict_at.numel(), *(len(view) for view in batch.views.values())])
        return Encoded(
            batch=batch,
            states=own,
            queries=self.scorer.queries(own),
            keys=self.item_keys,
            counts=self.counts,
            views=dict(zip(batch.views, others, strict=True)),
            scores=self.scorer.scores,
            parts=self.embedding.parts,
        )


def _asked_at_once(name: str, view: Sequences) -> Sequences:
    """The view, where what follows the newest event of a history is asked for as soon as that happened."""
    if view.times is None:
        raise ValueError(
            f"A position of this model reads times, and the view '{name}' carries none; choose another position, "
            "or leave the view out."
        )
    return view.asking(view.newest, view.times[view.newest])


def whole(batch: Batch) -> Sequences:
    """Histories and views of a batch, laid end to end, so that one pass reads all."""
    return Sequences.concat([batch.history, *batch.views.values()]) if batch.views else batch.history


def wanted(batch: Batch) -> Int[Tensor, "V"]:
    """Where, in ``whole``, the events stand that predict, and then the newest of each history of each view."""
    at, n_events = [batch.predict_at], batch.history.items.numel()
    for view in batch.views.values():
        at.append(n_events + view.newest)
        n_events += view.items.numel()
    return torch.cat(at)
