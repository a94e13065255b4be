"""The recommender that learns to fill gaps: some events are hidden, and at the end a gap asks for the next item."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from seqrec.backbones.base import Backbone
from seqrec.batch import Batch
from seqrec.catalog import Catalog
from seqrec.embeddings.base import ItemEmbedding
from seqrec.positions.base import InputPosition
from seqrec.recommenders.base import Encoded
from seqrec.recommenders.keyed import KeyedRecommender, wanted, whole
from seqrec.scorers import Scorer
from seqrec.sequences import Sequences, bounds


class MaskedRecommender(KeyedRecommender):
    """A hidden event is read as one learned vector, the mask, and its state speaks for the item that stood there.

    Trained on batches that hide events (``seqrec.data.supervision.MaskedEvents``). What comes next is asked by a mask
    behind the event in question, which sees nothing that happened later.

    Source: Sun et al., "BERT4Rec", CIKM 2019 (arXiv 1904.06690). Differs from it: a hidden event is always replaced by
    the mask, as in its released settings, and the mask is no item of the catalog, so it is never ranked.

    Args:
        catalog: the items to choose from, with their training counts.
        embedding: builds the item embedding from the catalog; inputs and keys share it (tied weights).
        backbone: turns event vectors into states.
        scorer: turns states into queries and item vectors into keys; the inner product by default.
        position: adds to each event what its place means, the mask's included: it must know one place more than the
            longest history that is read. None adds nothing.
        dropout: share of the event vectors' entries dropped before the backbone, in [0, 1).
        scales_input: whether item vectors and mask are multiplied by sqrt(D) when read as events.
        init_std: standard deviation of the normal distribution that the mask starts from, above 0.

    Raises:
        ValueError: the position reads times, and nobody knows when the item that a mask stands for will happen.
    """

    learns_hidden_events = True

    def __init__(
        self,
        catalog: Catalog,
        embedding: Callable[[Catalog], ItemEmbedding],
        backbone: Backbone,
        scorer: Scorer | None = None,
        position: InputPosition | None = None,
        dropout: float = 0.0,
        scales_input: bool = False,
        init_std: float = 0.02,
    ) -> None:
        super().__init__(catalog, embedding, backbone, scorer, position, dropout, scales_input)
        if self.reads_clock:
            raise ValueError(
                "The position of this model reads times, and nobody knows when the item that a mask stands for will "
                "happen; choose a position that reads places, e.g. configs/plugin/position-sinusoidal.yaml."
            )
        self.mask = nn.Parameter(init_std * torch.randn(backbone.dim))

    @property
    def max_length(self) -> int | None:
        most = super().max_length
        return None if most is None else most - 1  # one place is the mask's

    def states(self, history: Sequences, hidden: Int[Tensor, "hidden"], at: Int[Tensor, "M"]) -> Float[Tensor, "M D"]:
        """The states at these places; the items at the hidden ones are not read."""
        vectors = self.embedding(history.items)
        masks = self.mask.to(vectors.dtype).expand(hidden.numel(), -1)
        return self._read(vectors.index_copy(0, hidden, masks), history, at)

    def next_states(self, history: Sequences, at: Int[Tensor, "M"]) -> Float[Tensor, "M D"]:
        asking, masks = _asking(history, at)
        return self.states(asking, masks, masks)

    def encode(self, batch: Batch) -> Encoded:
        assert batch.hidden is not None, "the task lets only a supervision that hides events train this recommender"
        return self._encoded(batch, self.states(whole(batch), batch.hidden, wanted(batch)))


def _asking(history: Sequences, at: Int[Tensor, "M"]) -> tuple[Sequences, Int[Tensor, "M"]]:
    """For each place the events up to it and one more, and where that one stands; its item is a stand-in."""
    oldest = history.offsets[:-1][history.owners[at]]
    offsets = bounds(at - oldest + 2)
    masks = offsets[1:] - 1
    # A program is written for one history of any length, asked for what follows its newest event.
    total = history.items.numel() + 1 if torch.compiler.is_exporting() else int(offsets[-1])
    owners = Sequences(at.new_zeros(total), offsets).owners
    events = torch.arange(total, device=at.device) + (oldest - offsets[:-1])[owners]
    events = events.index_copy(0, masks, at)
    return Sequences(history.items[events], offsets), masks
