"""One free vector per item, learned from interactions alone."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor, nn

from seqrec.catalog import Catalog
from seqrec.embeddings.base import ItemEmbedding


class IdEmbedding(ItemEmbedding):
    """A table with one row per item of the catalog; there is no row for padding.

    Args:
        catalog: the items; only their number is read.
        dim: width D of a vector.
        init_std: standard deviation of the normal distribution that the table starts from, above 0.
    """

    by_item = ("table.weight",)

    def __init__(self, catalog: Catalog, dim: int, init_std: float = 0.02) -> None:
        super().__init__(dim)
        self.table = nn.Embedding(len(catalog), dim)
        nn.init.normal_(self.table.weight, std=init_std)

    def forward(self, rows: Int[Tensor, "*n"] | None = None) -> Float[Tensor, "*rows D"]:
        return self.table.weight if rows is None else self.table(rows)
