"""Softmax and loss of scores that are a function of inner products, without ever holding the [M, N] scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from seqrec.ops.dispatch import Op

# As in ``cross_entropy``: a block is gone through several times.
_BLOCK_BYTES = {"cpu": 4 << 20, "cuda": 256 << 20}


@Op
def scored_cross_entropy(
    queries: Float[Tensor, "M K"],
    keys: Float[Tensor, "N K"],
    targets: Int[Tensor, "M"],
    scores: Callable[[Tensor], Tensor],
) -> Float[Tensor, "M"]:
    """Cross-entropy of each query over the scores of all keys; inner products are taken in float32 at least.

    Args:
        scores: makes scores of inner products, each by itself; what it is built from gets gradients, too.
    """
    kind = torch.promote_types(queries.dtype, torch.float32)
    with torch.autocast(queries.device.type, enabled=False):
        return F.cross_entropy(scores(queries.to(kind) @ keys.to(kind).T), targets, reduction="none")


def _never(*_: Any) -> str | None:
    return None


@scored_cross_entropy.implementation("blocked", refuses=_never)
def _blocked(queries: Tensor, keys: Tensor, targets: Tensor, scores: Callable[[Tensor], Tensor]) -> Tensor:
    """The scores of a few queries at a time, made again on the way back."""
    rows = max(1, _BLOCK_BYTES.get(queries.device.type, _BLOCK_BYTES["cuda"]) // (4 * max(1, len(keys))))
    blocks = zip(queries.split(rows), targets.split(rows), strict=True)
    reference = scored_cross_entropy.reference
    return torch.cat(
        [checkpoint(reference, some, keys, theirs, scores, use_reentrant=False) for some, theirs in blocks]
    )
