"""Item vectors that several experts make of a text, each item asking those that suit it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seqrec.catalog import Catalog
from seqrec.embeddings.reduction import PCA
from seqrec.embeddings.texts import MappedText, Missing
from seqrec.ops.dropout import drop


class TextExperts(MappedText):
    """Frozen text vectors through a mixture of linear experts: ``sum_e g_e (W_e x + b_e)``, ``g = softmax(G x)``.

    All experts see every item, so the forward pass costs about N · E · T · D multiplications where it is given all
    items, anew in every step. The gates begin equal.

    Source: the mixture of parametric whitening of Hou et al., "Towards Universal Sequence Representation Learning for
    Recommender Systems" (UniSRec), KDD 2022 (arXiv 2206.05941). Differs from it: an expert shifts what it made, not the
    text before it; numbers of a text are brought to mean 0 and variance 1 first; all experts miss the same dropped
    numbers; what is added to the gates' logits in training deviates by a setting, not by what another map says.

    Args:
        catalog: the items; raw ids alone say which vector is whose.
        dim: width D of what the experts make.
        vectors: file or folder of vectors, see ``semantics.vector_files.read_vectors``; it may hold other items, too.
        n_experts: experts E, at least 1; 8 in the source.
        dropout: share of the numbers of a text that no expert sees in training, in [0, 1); the gates see all.
        noise: what is added to the gates' logits in training deviates by this, at least 0.
        missing: what becomes of items of the catalog that have no vector in the file.
        reduction: makes text vectors narrower before the experts; None leaves them as they are.
        init_std: what the numbers of the mixture deviate by before training, above 0, so that they can stand beside a
            table that begins so; None leaves them as weights of deviation 0.02 make them.

    Raises:
        ValueError: the file cannot be used, or has no vector for some items.
    """

    read_by = "experts"

    def __init__(
        self,
        catalog: Catalog,
        dim: int,
        vectors: str,
        n_experts: int = 8,
        dropout: float = 0.2,
        noise: float = 0.7,
        missing: Missing = Missing.refuse,
        reduction: PCA | None = None,
        init_std: float | None = None,
    ) -> None:
        super().__init__(catalog, dim, vectors, dropout, missing, reduction)
        if n_experts < 1 or noise < 0:
            raise ValueError(
                f"n_experts is {n_experts} and noise is {noise}; take at least 1 expert and a noise of 0 or more."
            )
        self.n_experts, self.noise = n_experts, noise
        self._begin(init_std)

    def _widen(self, text_dim: int) -> None:
        self.experts = nn.Linear(text_dim, self.n_experts * self.dim)
        self.gate = nn.Linear(text_dim, self.n_experts, bias=False)
        nn.init.normal_(self.experts.weight, std=0.02)
        nn.init.zeros_(self.experts.bias)
        nn.init.zeros_(self.gate.weight)

    def _last(self) -> nn.Linear:
        return self.experts

    def _mapped(self, vectors: Float[Tensor, "*n Q"]) -> Float[Tensor, "*n D"]:
        logits = self.gate(vectors).float()
        if self.training:
            logits = logits + self.noise * torch.randn_like(logits)
            vectors = drop(vectors, self.dropout)
        made = self.experts(vectors).unflatten(-1, (self.n_experts, self.dim))
        return (logits.softmax(-1).to(made.dtype).unsqueeze(-2) @ made).squeeze(-2)
