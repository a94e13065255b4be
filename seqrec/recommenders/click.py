"""The model of click-through papers: how likely is it that this user takes that item now?"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from seqrec.backbones.base import Backbone
from seqrec.catalog import Catalog
from seqrec.embeddings.base import ItemEmbedding
from seqrec.nn.dropout import Dropout
from seqrec.nn.feed_forward import perceptron
from seqrec.nn.target_attention import TargetAttention
from seqrec.positions.base import AttentionPosition, InputPosition
from seqrec.sequences import Sequences


class ClickModel(nn.Module):
    """Log-odds that a candidate is taken, by a network that reads it beside what it takes from the history.

    It reads candidate and history together, so it has neither queries nor keys and no index can serve it: it judges the
    few items that a recommender found.

    Source: Zhou et al., "Deep Interest Network for Click-Through Rate Prediction", KDD 2018 (arXiv 1706.06978). Differs
    from it: an item is its row alone, and the network reads the product of the two vectors, too.

    Args:
        catalog: the items, with their training counts.
        embedding: builds the item embedding from the catalog; candidates and histories share it.
        attention: what a candidate takes from the history.
        position: adds to each event what its place means; None adds nothing.
        backbone: turns events into states, which are then attended to; None attends to the events.
        hidden: widths of the network's inner layers.
        dropout: share dropped of the event vectors' entries and of the network's inner layers, in [0, 1).

    Raises:
        ValueError: embedding, attention and backbone differ in width.
    """

    def __init__(
        self,
        catalog: Catalog,
        embedding: Callable[[Catalog], ItemEmbedding],
        attention: TargetAttention,
        position: InputPosition | None = None,
        backbone: Backbone | None = None,
        hidden: Sequence[int] = (64,),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.embedding = embedding(catalog)
        self.attention, self.position, self.backbone = attention, position, backbone
        widths = {type(part).__name__: part.dim for part in (self.embedding, attention, backbone) if part is not None}
        if len(set(widths.values())) > 1:
            raise ValueError(f"The parts of the model differ in width ({widths}); give all the same dim.")
        self.dropout = Dropout(dropout)
        self.judge = perceptron(3 * attention.dim, *hidden, 1, dropout=dropout)

    @property
    def causal(self) -> bool:
        """Whether no state sees a later event, so that every event may be trained at once."""
        return self.backbone is None or self.backbone.causal

    @property
    def reads_clock(self) -> bool:
        """Whether a part of it needs times that a clock gave."""
        return any(part.reads_clock for part in self.modules() if isinstance(part, (InputPosition, AttentionPosition)))

    @property
    def reads_asked_at(self) -> bool:
        """Whether a part of it needs to know when a prediction is asked for."""
        return self.backbone is not None and self.backbone.reads_asked_at

    def forward(self, history: Sequences, at: Int[Tensor, "M"], candidates: Int[Tensor, "M c"]) -> Float[Tensor, "M c"]:
        """Log-odds of each of these items to follow the event at its place ``at`` of the packed histories."""
        events = self.embedding(history.items)
        if self.position is not None:
            events = self.position(events, history)
        events = self.dropout(events)
        if self.backbone is not None:
            events = self.backbone(events, history)
        vectors = self.embedding(candidates)
        taken = self.attention(vectors, at, events, history)
        return self.judge(torch.cat([vectors, taken, vectors * taken], dim=-1)).squeeze(-1)
