"""Item vectors made of two: what interactions say of an item, and what its text says."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from seqrec.catalog import Catalog
from seqrec.embeddings.base import ItemEmbedding
from seqrec.embeddings.ids import IdEmbedding


class _Fusion(ItemEmbedding):
    """A free vector per item beside one that is made of its text.

    An item that nobody has touched has no free vector: it is all zeros there, in the lowest bin of frequency.

    Args:
        catalog: the items, with their training counts.
        dim: width D.
        text: builds what makes vectors of texts from the catalog and the width.
        init_std: standard deviation of the normal distribution that the free vectors start from, above 0.
        ids: builds the free vectors instead, from the catalog and the width, say ``TextInitialised``.
    """

    free = "ids"

    def __init__(
        self,
        catalog: Catalog,
        dim: int,
        text: Callable[[Catalog, int], ItemEmbedding],
        init_std: float = 0.02,
        ids: Callable[[Catalog, int], ItemEmbedding] | None = None,
    ) -> None:
        super().__init__(dim)
        self.ids = IdEmbedding(catalog, dim, init_std) if ids is None else ids(catalog, dim)
        self.text = text(catalog, dim)
        widths = self.ids.dim, self.text.dim
        if widths != (dim, dim):
            raise ValueError(f"The free vectors and those of texts have widths {widths}; give both {dim}.")

    @abstractmethod
    def _fused(
        self, ids: Float[Tensor, "*n D"], text: Float[Tensor, "*n D"], rows: Int[Tensor, "*n"] | None
    ) -> Float[Tensor, "*n D"]:
        """One vector of both; ``rows`` as in ``forward``."""

    def forward(self, rows: Int[Tensor, "*n"] | None = None) -> Float[Tensor, "*rows D"]:
        return self._fused(self.ids(rows), self.text(rows), rows)

    def parts(self, rows: Int[Tensor, "*n"]) -> tuple[Tensor, ...]:
        return self.ids(rows), self.text(rows)

    def vectors_of(self, vectors: Float[Tensor, "n T"]) -> Float[Tensor, "n D"]:
        text = self.text.vectors_of(vectors)
        return self._fused(torch.zeros_like(text), text, torch.full_like(text[:, 0], -1, dtype=torch.long))


class SumEmbedding(_Fusion):
    """The sum of both, read and scored alike. Its arguments are those of every fusion.

    Source: the transductive form of Hou et al., "Towards Universal Sequence Representation Learning for Recommender
    Systems" (UniSRec), KDD 2022 (arXiv 2206.05941).

    Args:
        catalog: the items, with their training counts.
        dim: width D.
        text: builds what makes vectors of texts from the catalog and the width.
        init_std: standard deviation of the normal distribution that the free vectors start from, above 0.
        ids: builds the free vectors instead, from the catalog and the width, say ``TextInitialised``.
    """

    def _fused(
        self, ids: Float[Tensor, "*n D"], text: Float[Tensor, "*n D"], rows: Int[Tensor, "*n"] | None
    ) -> Float[Tensor, "*n D"]:
        return ids + text


class ConcatEmbedding(_Fusion):
    """Both side by side, mapped back to the width of one: ``W [ids, text] + b``, with or without a GELU behind it.

    Args:
        catalog: the items, with their training counts.
        dim: width D.
        text: builds what makes vectors of texts from the catalog and the width.
        init_std: standard deviation of the normal distribution that the free vectors start from, above 0.
        ids: builds the free vectors instead, from the catalog and the width, say ``TextInitialised``.
        gelu: whether a GELU follows, as in the aligned expert of PAD (Wang et al., SIGIR 2025). Differs from it:
            nothing is dropped before the map, which begins as torch has it, and texts go the way of ``text``.
    """

    def __init__(
        self,
        catalog: Catalog,
        dim: int,
        text: Callable[[Catalog, int], ItemEmbedding],
        init_std: float = 0.02,
        ids: Callable[[Catalog, int], ItemEmbedding] | None = None,
        gelu: bool = False,
    ) -> None:
        super().__init__(catalog, dim, text, init_std, ids)
        self.join = nn.Linear(2 * dim, dim)
        self.bend = nn.GELU() if gelu else nn.Identity()

    def _fused(
        self, ids: Float[Tensor, "*n D"], text: Float[Tensor, "*n D"], rows: Int[Tensor, "*n"] | None
    ) -> Float[Tensor, "*n D"]:
        return self.bend(self.join(torch.cat([ids, text], dim=-1)))


class GatedEmbedding(_Fusion):
    """``g ⊙ ids + (1 - g) ⊙ text``, where ``g = sigmoid(W [ids, text] + b)`` says, number by number, whom to believe.

    Args:
        catalog: the items, with their training counts.
        dim: width D.
        text: builds what makes vectors of texts from the catalog and the width.
        init_std: standard deviation of the normal distribution that the free vectors start from, above 0.
        ids: builds the free vectors instead, from the catalog and the width, say ``TextInitialised``.
    """

    def __init__(
        self,
        catalog: Catalog,
        dim: int,
        text: Callable[[Catalog, int], ItemEmbedding],
        init_std: float = 0.02,
        ids: Callable[[Catalog, int], ItemEmbedding] | None = None,
    ) -> None:
        super().__init__(catalog, dim, text, init_std, ids)
        self.gate = nn.Linear(2 * dim, dim)

    def _fused(
        self, ids: Float[Tensor, "*n D"], text: Float[Tensor, "*n D"], rows: Int[Tensor, "*n"] | None
    ) -> Float[Tensor, "*n D"]:
        gates = self.gate(torch.cat([ids, text], dim=-1)).sigmoid()
        return torch.lerp(text.to(ids.dtype), ids, gates.to(ids.dtype))


class FadingEmbedding(_Fusion):
    """``g ids + (1 - g) text``, where g is learned for each bin of item frequency and begins larger for frequent items.

    Items are sorted into bins by their training counts, so that each bin holds about as many interactions as every
    other; items of one count stay together, in the bin where the middle of their interactions lies. One more bin below
    is for items that training does not know.

    Source: the frequency gate of Wang et al., "Pre-train, Align, and Disentangle: Empowering Sequential Recommendation
    with Large Language Models" (PAD), SIGIR 2025. Differs from it: vectors are weighed, not the scores of experts; the
    share is the sigmoid of one number per bin, not a sigmoid divided by the sum of those of all experts, and its start
    depends on the bin.

    Args:
        catalog: the items, with their training counts.
        dim: width D.
        text: builds what makes vectors of texts from the catalog and the width.
        init_std: standard deviation of the normal distribution that the free vectors start from, above 0.
        ids: builds the free vectors instead, from the catalog and the width, say ``TextInitialised``.
        n_bins: bins of items that training knows, at least 2.
        spread: the gates begin at the sigmoids of numbers spaced evenly from minus this to this, at least 0.
    """

    bins: Tensor
    by_item = ("bins",)
    not_decayed = ("logits",)

    def __init__(
        self,
        catalog: Catalog,
        dim: int,
        text: Callable[[Catalog, int], ItemEmbedding],
        init_std: float = 0.02,
        ids: Callable[[Catalog, int], ItemEmbedding] | None = None,
        n_bins: int = 10,
        spread: float = 2.0,
    ) -> None:
        super().__init__(catalog, dim, text, init_std, ids)
        if n_bins < 2 or spread < 0:
            raise ValueError(
                f"n_bins is {n_bins} and spread is {spread}; text fades over at least 2 bins, with a spread of 0 or "
                "more."
            )
        counts = torch.tensor(catalog.counts, dtype=torch.double)
        _, group = counts.unique(return_inverse=True)
        interactions = torch.bincount(group, counts)
        middle = (interactions.cumsum(0) - interactions / 2) / counts.sum().clamp(min=1)
        bins = 1 + (n_bins * middle).long().clamp(max=n_bins - 1)[group]
        self.register_buffer("bins", torch.where(counts > 0, bins, 0))
        self.logits = nn.Parameter(torch.linspace(-spread, spread, n_bins + 1))

    def _fused(
        self, ids: Float[Tensor, "*n D"], text: Float[Tensor, "*n D"], rows: Int[Tensor, "*n"] | None
    ) -> Float[Tensor, "*n D"]:
        lowest = torch.cat([self.bins, self.bins.new_zeros(1)])  # what is no row of the catalog comes last
        bins = self.bins if rows is None else lowest[rows]
        gates = F.embedding(bins, self.logits[:, None]).sigmoid()
        return torch.lerp(text.to(ids.dtype), ids, gates.to(ids.dtype))
