"""Alignment: what is learned of items and what is written about them are drawn together."""

from __future__ import annotations

from abc import abstractmethod
from enum import Enum

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from seqrec.objectives.base import Auxiliary
from seqrec.objectives.contrast import one_sided_contrast
from seqrec.recommenders.base import Encoded

WIDTHS = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0)


def kernel_discrepancy(ones: Float[Tensor, "n D"], others: Float[Tensor, "n D"]) -> Float[Tensor, ""]:
    """How far two samples are from being of one distribution: the squared maximum mean discrepancy.

    The kernel is the sum of Gaussians whose variances are ``WIDTHS`` times the mean squared distance of all pairs, a
    row and itself included; that mean has no gradient. The estimate is unbiased within the samples, so it may be
    below 0.

    Args:
        ones: a sample.
        others: the other, as many rows; at least 2.

    Returns:
        the discrepancy in float32, near 0 for samples of one distribution.
    """
    n = len(ones)
    both = torch.cat([ones, others]).float()
    lengths = both.square().sum(1)
    squared = (lengths[:, None] + lengths - 2 * both @ both.T).clamp(min=0)
    mean = squared.detach().mean().clamp(min=torch.finfo(torch.float32).tiny)
    kernel = torch.stack([torch.exp(-squared / (2 * width * mean)) for width in WIDTHS]).sum(0)
    within = kernel[:n, :n].sum() - kernel[:n, :n].trace() + kernel[n:, n:].sum() - kernel[n:, n:].trace()
    return within / (n * (n - 1)) - 2 * kernel[:n, n:].mean()


class Rows(Enum):
    """Which rows of a batch are compared: every item once (``unique``), or as often as it occurs (``flat``)."""

    unique = "unique"
    flat = "flat"


class _Alignment(Auxiliary):
    """A term of the two vectors that each item of a batch has: those read, predicted or brought as negatives."""

    def __init__(self, weight: float, most_items: int, rows: Rows) -> None:
        super().__init__()
        if most_items < 2:
            raise ValueError(f"most_items is {most_items}; {type(self).__name__} compares at least 2.")
        self.weight, self.most_items, self.rows = weight, most_items, rows

    @abstractmethod
    def _apart(self, ones: Float[Tensor, "n D"], others: Float[Tensor, "n D"]) -> Float[Tensor, ""]:
        """How far both sides of at least 2 items are apart."""

    def forward(self, encoded: Encoded) -> Float[Tensor, ""]:
        items = self._items(encoded)
        parts = encoded.parts(items)
        if len(parts) != 2:
            raise ValueError(
                f"{type(self).__name__} aligns the two parts of an item's vector, and this embedding has {len(parts)}; "
                "stack a fusion such as configs/plugin/text-concat.yaml on the model."
            )
        ones, others = parts
        if len(items) < 2:
            return (ones.sum() + others.sum()).float() * 0
        with torch.autocast(ones.device.type, enabled=False):
            return self._apart(ones, others)

    def _items(self, encoded: Encoded) -> Int[Tensor, "n"]:
        batch = encoded.batch
        negatives = batch.targets[:0] if batch.negatives is None else batch.negatives.flatten()
        items = torch.cat([batch.history.items, batch.targets, negatives])
        if self.rows is Rows.unique:
            items = items.unique()
        if len(items) > self.most_items:
            items = items[torch.randperm(len(items), device=items.device)[: self.most_items]]
        return items


class KernelAlignment(_Alignment):
    """The two vectors of an item, one of its own and one made of its text, come to be spread alike over the items.

    It asks nothing of a single item: not that its two vectors be near, only that both sides have one distribution. The
    objective beside it keeps what interactions taught.

    Source: the alignment of Wang et al., "Pre-train, Align, and Disentangle: Empowering Sequential Recommendation with
    Large Language Models" (PAD), SIGIR 2025 (arXiv 2412.04107), after its released code. Differs from it: rows are the
    different items that the batch reads, predicts or brings as negatives, where the code takes every occurrence, as
    ``rows=flat`` does, and padding, too, which there is none of here; at most ``most_items`` are compared; the constant
    without a gradient is left out; vectors need not begin as those of a model that was trained without texts, which
    is what ``seqrec fit --starts_from`` is for. It aligns the parts of any fusion, of which
    ``ConcatEmbedding(gelu=True)`` is closest to PAD's.

    Args:
        weight: γ, how much of it is added to the objective; 0.2 in the code.
        most_items: rows that are compared, at most; more are drawn from. At least 2.
        rows: which rows these are.
    """

    name = "kernel_alignment"

    def __init__(self, weight: float = 0.2, most_items: int = 1024, rows: Rows = Rows.unique) -> None:
        super().__init__(weight, most_items, rows)

    def _apart(self, ones: Float[Tensor, "n D"], others: Float[Tensor, "n D"]) -> Float[Tensor, ""]:
        return kernel_discrepancy(ones, others)


class InfoNCEAlignment(_Alignment):
    """The vector that an item learned must find that of the item's text among the texts of the batch, by cosine.

    Unlike ``KernelAlignment`` it ties each item to its own text. Items with the same text are negatives of one another.

    Source: the contrastive alignment of Ren et al., "Representation Learning with Large Language Models for
    Recommendation" (RLMRec), WWW 2024 (arXiv 2310.15950). Differs from it: vectors of items alone are aligned, and
    before any sequence or graph is read; negatives are the different items that the batch reads, predicts or brings.

    Args:
        weight: how much of it is added to the objective; 0.01 in the source.
        temperature: divides the cosines, above 0; 0.2 in the source.
        most_items: items that are compared, at most; more are drawn from. At least 2.
    """

    name = "info_nce_alignment"

    def __init__(self, weight: float = 0.01, temperature: float = 0.2, most_items: int = 1024) -> None:
        super().__init__(weight, most_items, Rows.unique)
        if temperature <= 0:
            raise ValueError(f"temperature is {temperature}; it must be above 0, e.g. 0.2.")
        self.temperature = temperature

    def _apart(self, ones: Float[Tensor, "n D"], others: Float[Tensor, "n D"]) -> Float[Tensor, ""]:
        ones, others = (F.normalize(each.float(), dim=-1) for each in (ones, others))
        return one_sided_contrast(ones, others, self.temperature)
