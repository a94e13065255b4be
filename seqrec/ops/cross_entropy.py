"""Inner products, softmax and loss in one go, without ever holding the [M, N] scores."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from seqrec.ops.dispatch import Op

# A block of scores that stays in the last-level cache of a CPU; a GPU hides memory better behind larger products.
_BLOCK_BYTES = {"cpu": 6 << 20, "cuda": 256 << 20}


@Op
def linear_cross_entropy(
    queries: Float[Tensor, "M K"],
    keys: Float[Tensor, "N K"],
    targets: Int[Tensor, "M"],
    weights: Float[Tensor, "M"] | None = None,
) -> Float[Tensor, "M"]:
    """Cross-entropy of each query over the inner products with all keys.

    Args:
        queries: one per loss.
        keys: one per class.
        targets: the class that is right, in [0, N).
        weights: what the losses are going to be multiplied by, or a multiple of it. They are not multiplied here, and
            gradients are the same without it, but made in less time where it turns out true. None: all are equal.
    """
    return F.cross_entropy(queries @ keys.T, targets, reduction="none")


def _never(*_: Any) -> str | None:
    return None


@linear_cross_entropy.implementation("blocked", refuses=_never)
def _blocked(queries: Tensor, keys: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    kind = queries.device.type
    half = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    with torch.autocast(kind, enabled=False):
        if queries.dtype != torch.float64:
            queries, keys = queries.float(), keys.float()
        if weights is not None:
            weights = None if _are_equal(weights) else weights.detach().to(queries.dtype)
        return _BlockedCrossEntropy.apply(queries, keys, targets, weights, half)


class _BlockedCrossEntropy(torch.autograd.Function):
    """Makes the gradients in the forward pass, for the weights it is told, while each block is still in cache.

    The gradient of a query is then scaled by whatever its own loss receives. The gradient of the keys mixes all losses:
    where what these received is no multiple of the weights, it is made again with the true ones.
    """

    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, keys: Tensor, targets: Tensor, weights: Tensor | None, half: torch.dtype | None
    ) -> Tensor:
        wants_gradients = queries.requires_grad or keys.requires_grad
        losses, query_gradients, key_gradients = _walk(queries, keys, targets, weights, half, wants_gradients)
        ctx.save_for_backward(queries, keys, targets, weights, query_gradients, key_gradients)
        ctx.half = half
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        (upstream,) = gradients
        queries, keys, targets, weights, query_gradients, key_gradients = ctx.saved_tensors
        if upstream.numel() == 0:
            return torch.zeros_like(queries), torch.zeros_like(keys), None, None, None
        factor = _factor(upstream, weights)
        if factor is None:
            _, _, key_gradients = _walk(queries, keys, targets, upstream, ctx.half, True)
        else:
            key_gradients = key_gradients * factor
        return query_gradients * upstream[:, None], key_gradients, None, None, None


def _are_equal(values: Tensor) -> bool:
    return values.numel() == 0 or bool((values == values[0]).all())


def _factor(upstream: Tensor, weights: Tensor | None) -> Tensor | None:
    """What the weights were multiplied by to become these, up to rounding; None if they are no multiple of them."""
    if weights is None:
        return upstream[0] if _are_equal(upstream) else None
    largest = weights.abs().argmax()
    factor = upstream[largest] / weights[largest]
    same = torch.isclose(upstream, weights * factor, rtol=8 * torch.finfo(weights.dtype).eps, atol=0)
    return factor if bool(same.all()) else None


def _add_product(to: Tensor, odds: Tensor, weighted: Tensor) -> None:
    """Add their product in half precision, after a power of two has brought it well into the range of float16.

    That ends at 65,504, and below 6e-5 its digits go. No scale of the loss reaches what is made on the way forward.
    """
    if odds.dtype != torch.float16:
        to += odds @ weighted.to(odds.dtype)
        return
    most = weighted.abs().amax().clamp(min=torch.finfo(torch.float32).tiny) * weighted.shape[0]
    scale = torch.exp2((2**15 / most).log2().floor())
    to.addcdiv_((odds @ (weighted * scale).half()).float(), scale)


def _shrink(keys: Tensor) -> float:
    """A power of two, at most 1, that keeps a sum over all these keys within float16."""
    most = float(keys.abs().amax()) * keys.shape[0] if keys.numel() else 0.0
    return 1.0 if most <= 2**15 else 2.0 ** math.floor(math.log2(2**15 / most))


def _walk(
    queries: Tensor, keys: Tensor, targets: Tensor, weights: Tensor | None, half: torch.dtype | None, wants: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Losses, the gradient of each loss in its query, and the gradient of the weighted sum of losses in the keys."""
    n_queries, n_keys = queries.shape[0], keys.shape[0]
    budget = _BLOCK_BYTES.get(queries.device.type, _BLOCK_BYTES["cuda"])
    step = max(32, budget // (queries.element_size() * max(n_keys, 1)))
    losses = queries.new_empty(n_queries)
    query_gradients = torch.empty_like(queries) if wants else queries.new_empty(0)
    key_gradients = torch.zeros_like(keys) if wants else keys.new_empty(0)
    narrow_keys = keys if half is None else keys.to(half)
    # As in ``_add_product``: odds are at most 1, so no sum over all keys is longer than this makes it.
    shrink = _shrink(keys) if half is torch.float16 and wants else 1.0
    summed_keys = narrow_keys if shrink == 1.0 else (keys * shrink).to(torch.float16)
    for start in range(0, n_queries, step):
        block = slice(start, min(start + step, n_queries))
        query, target = queries[block], targets[block]
        scores = (query if half is None else query.to(half)) @ narrow_keys.T
        of_target = scores.gather(1, target[:, None]).to(queries.dtype)
        top = scores.amax(1, keepdim=True)
        odds = scores.sub_(top).exp_()
        total = odds.sum(1, keepdim=True, dtype=queries.dtype)
        losses[block] = (total.log() + top - of_target).squeeze(1)
        if not wants:
            continue
        weighted = query / total if weights is None else query * (weights[block, None] / total)
        if half is None:
            query_gradients[block] = odds @ keys
            key_gradients.addmm_(odds.T, weighted)
        else:
            query_gradients[block] = (odds @ summed_keys).to(queries.dtype) / shrink
            _add_product(key_gradients, odds.T, weighted)
        query_gradients[block] /= total
        query_gradients[block] -= keys[target]
    if wants:
        key_gradients.index_add_(0, targets, queries if weights is None else queries * weights[:, None], alpha=-1)
    return losses, query_gradients, key_gradients
