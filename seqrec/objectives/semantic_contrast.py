"""SRA-CL: histories drawn towards those alike in words, and towards themselves with items swapped for like ones."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, member

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from seqrec.objectives.base import Auxiliary
from seqrec.objectives.contrast import one_sided_contrast, symmetric_contrast
from seqrec.objectives.views import newest_of
from seqrec.recommenders.base import Encoded


class Negatives(Enum):
    """What a history must tell its synthetic partner from: ``both`` kinds of vectors of all other histories (released
    code), or their ``synthetic`` ones alone (the paper)."""

    both = member(symmetric_contrast)
    synthetic = member(one_sided_contrast)


def _static(
    own: Float[Tensor, "B 1 P"], theirs: Float[Tensor, "B k P"], direction: Float[Tensor, "two_P"], slope: float
) -> Float[Tensor, "B k"]:
    return F.leaky_relu(torch.cat([own.expand_as(theirs), theirs], dim=-1) @ direction, slope)


def _dynamic(
    own: Float[Tensor, "B 1 P"], theirs: Float[Tensor, "B k P"], direction: Float[Tensor, "two_P"], slope: float
) -> Float[Tensor, "B k"]:
    return F.leaky_relu(torch.cat([own + theirs, own - theirs], dim=-1), slope) @ direction


class Attention(Enum):
    """What a neighbour's logit is made of: both texts side by side (``static``, the paper), so that a history moves all
    its neighbours' logits alike, or their sum and their difference behind a kink (``dynamic``, in the manner of GATv2),
    so that it says which neighbour counts more."""

    static = member(_static)
    dynamic = member(_dynamic)


class Synthesis(nn.Module):
    """One partner for each history: a mixture of its neighbours' states, weighed by their texts and its own.

    Numbers of a text are first brought to mean 0 and variance 1, unless ``normalises_texts`` is false. Vectors of unit
    length, as most encoders of sentences give them, would be told apart by less than a hundredth at the start, and
    learning would leave that so.

    Args:
        text_dim: numbers S of a text vector.
        dim: width P / 2 that texts are compared in.
        dropout: share of the weights dropped in training, in [0, 1); what is left is scaled up, so their sum is 1 only
            on average.
        attention: what a logit is made of.
        slope: of the other side of a kink.
        normalises_texts: whether the numbers of a text are brought to mean 0 and variance 1.
    """

    def __init__(
        self,
        text_dim: int,
        dim: int = 64,
        dropout: float = 0.5,
        attention: Attention = Attention.static,
        slope: float = 0.2,
        normalises_texts: bool = True,
    ) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is {dropout}; it must be at least 0 and below 1, e.g. 0.5.")
        self.map = nn.Linear(text_dim, dim, bias=False)
        self.direction = nn.Parameter(torch.empty(2 * dim, 1))
        self.logits = attention.value
        self.slope = slope
        self.normalises_texts = normalises_texts
        self.dropout = nn.Dropout(dropout)
        for weight in (self.map.weight, self.direction):
            nn.init.xavier_uniform_(weight, gain=1.414)

    def weights(self, text: Float[Tensor, "B S"], neighbour_texts: Float[Tensor, "B k S"]) -> Float[Tensor, "B k"]:
        """How much each neighbour counts; of one history they add up to 1."""
        both = text[:, None], neighbour_texts
        if self.normalises_texts:
            both = tuple(F.layer_norm(each, each.shape[-1:]) for each in both)
        own, theirs = map(self.map, both)
        return self.logits(own, theirs, self.direction.squeeze(1), self.slope).softmax(-1)

    def forward(
        self,
        text: Float[Tensor, "B S"],
        neighbour_texts: Float[Tensor, "B k S"],
        neighbour_states: Float[Tensor, "B k D"],
    ) -> Float[Tensor, "B D"]:
        weights = self.dropout(self.weights(text, neighbour_texts))
        return (weights[..., None] * neighbour_states).sum(1)


class NeighbourContrast(Auxiliary):
    """Each history is drawn towards a learned mixture of those whose texts are most like its own.

    Source: the inter-user loss of Cui et al., "Semantic Retrieval Augmented Contrastive Learning for Sequential
    Recommendation", NeurIPS 2025 (arXiv 2503.04162), after its released code: inner products without normalisation,
    all gradients flow through the neighbours, the history itself is read once more with dropout of its own. Differs
    from the code: histories, neighbours and other views are one pass of the backbone; texts are normalised before they
    are weighed, see ``Synthesis``; ``normalises_texts=False`` is the code, and with ``negatives=synthetic`` and
    ``dropout=0`` besides the paper. The texts' vectors are constants.

    Args:
        text_dim: numbers S of a text vector.
        weight: how much the loss counts beside the objective; 0.1 in the code, 0.05 to 0.1 was best.
        view: name of the view that brings, for each history, itself and its neighbours with vectors.
        dim: width that texts are compared in.
        temperature: divides the inner products, above 0.
        dropout: share of the mixture's weights dropped in training, in [0, 1).
        negatives: what a history must tell its partner from.
        attention: how neighbours are weighed.
        same_user_repels: whether other histories of the same user are negatives, as in the code.
        normalises_texts: see ``Synthesis``.
    """

    name = "neighbour_contrast"

    def __init__(
        self,
        text_dim: int,
        weight: float = 0.1,
        view: str = "neighbours",
        dim: int = 64,
        temperature: float = 1.0,
        dropout: float = 0.5,
        negatives: Negatives = Negatives.both,
        attention: Attention = Attention.static,
        same_user_repels: bool = True,
        normalises_texts: bool = True,
    ) -> None:
        super().__init__()
        self.weight, self.view, self.temperature = weight, view, _above_zero(temperature)
        self.contrast = negatives.value
        self.synthesis = Synthesis(text_dim, dim, dropout, attention, normalises_texts=normalises_texts)
        self.text_dim, self.same_user_repels = text_dim, same_user_repels

    def forward(self, encoded: Encoded) -> Float[Tensor, ""]:
        newest = newest_of(self, encoded, self.view)
        texts = encoded.batch.views[self.view].vectors
        if texts is None or texts.shape[-1] != self.text_dim:
            found = "no vectors" if texts is None else f"vectors of {texts.shape[-1]} numbers"
            raise ValueError(
                f"NeighbourContrast compares text vectors of {self.text_dim} numbers, and the view '{self.view}' "
                f"brings {found}; set text_dim to what `seqrec embed histories` made."
            )
        n = len(encoded.batch.history)
        with torch.autocast(newest.device.type, enabled=False):
            per_history = newest.float().view(n, -1, newest.shape[-1]) if n else newest.float()[:, None]
            texts = texts.view(n, -1, self.text_dim) if n else texts[:, None]
            partners = self.synthesis(texts[:, 0], texts[:, 1:], per_history[:, 1:])
            left_out = None if self.same_user_repels else _same(encoded.batch.users)
            return self.contrast(per_history[:, 0], partners, self.temperature, left_out)


class SubstituteContrast(Auxiliary):
    """Two versions of a history, whose items were swapped here and there, are drawn together.

    Source: the intra-user loss of Cui et al., "Semantic Retrieval Augmented Contrastive Learning for Sequential
    Recommendation", NeurIPS 2025 (arXiv 2503.04162): NT-Xent of inner products. Any two views with one version of each
    history will do.

    Args:
        weight: how much the loss counts beside the objective; 0.1 in the code, 0.05 to 0.1 was best.
        views: names of the two views.
        temperature: divides the inner products, above 0.
        same_user_repels: whether other histories of the same user are negatives, as in the code.
    """

    name = "substitute_contrast"

    def __init__(
        self,
        weight: float = 0.1,
        views: Sequence[str] = ("substitutes", "other_substitutes"),
        temperature: float = 1.0,
        same_user_repels: bool = True,
    ) -> None:
        super().__init__()
        if len(views) != 2:
            raise ValueError(f"views is {list(views)}; SubstituteContrast draws two views together, name two.")
        self.weight, self.views, self.temperature = weight, tuple(views), _above_zero(temperature)
        self.same_user_repels = same_user_repels

    def forward(self, encoded: Encoded) -> Float[Tensor, ""]:
        ones, others = (newest_of(self, encoded, view) for view in self.views)
        with torch.autocast(ones.device.type, enabled=False):
            left_out = None if self.same_user_repels else _same(encoded.batch.users)
            return symmetric_contrast(ones, others, self.temperature, left_out)


def _same(users: Tensor) -> Bool[Tensor, "B B"]:
    return users[:, None] == users


def _above_zero(temperature: float) -> float:
    if temperature <= 0:
        raise ValueError(f"temperature is {temperature}; it must be above 0, e.g. 1.0.")
    return temperature
