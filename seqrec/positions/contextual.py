"""Positions that depend on content: walking back from the newest event, only some events count."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seqrec.ops.adjusted_attention import Pairs
from seqrec.ops.contextual import contextual_bias
from seqrec.positions.base import LogitPosition


class ColumnTable(nn.Module):
    """What a query makes of each whole position: ``φ(q) T``, with φ the query itself or ``silu(W q + b)``.

    The table begins with zeros, so that a fresh model is one without positions.

    Args:
        channels: width C of a query.
        n_columns: whole positions M, at least 2; what is further away counts as M - 1.
        n_heads: 1 shares the table; otherwise the number of heads H, each with its own.
        position_dim: width of φ(q); None reads the query itself.
    """

    keeps_start = ("table",)

    def __init__(self, channels: int, n_columns: int, n_heads: int = 1, position_dim: int | None = None) -> None:
        super().__init__()
        if n_columns < 2 or n_heads < 1:
            raise ValueError(f"n_columns is {n_columns} and n_heads is {n_heads}; give at least 2 columns and 1 head.")
        self.project = (
            nn.Identity() if position_dim is None else nn.Sequential(nn.Linear(channels, position_dim), nn.SiLU())
        )
        self.table = nn.Parameter(torch.zeros(n_heads, position_dim or channels, n_columns))

    def forward(self, queries: Float[Tensor, "b H i C"]) -> Float[Tensor, "b H i M"]:
        return self.project(queries.to(self.table.dtype)) @ self.table


class _Contextual(LogitPosition):
    """Positions are counted in float32 whatever the precision of training."""

    reads_queries = True

    def __init__(
        self,
        channels: int,
        max_length: int = 200,
        n_heads: int = 1,
        position_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.columns = ColumnTable(channels, max_length, n_heads, position_dim)

    def _bias(self, gates: Tensor, pairs: Pairs) -> Tensor:
        self.demand_as_many_heads(len(self.columns.table), gates.shape[1])
        with torch.autocast(gates.device.type, enabled=False):
            return contextual_bias(
                gates, self.columns(pairs.queries), pairs.n_visible[:, None].expand(gates.shape[:-1])
            )


class CAPE(_Contextual):
    """An event counts by how much it differs from the query, so that a run of like events shares one position.

    With the logit a of query i and key k: gate ``g = 1 - σ(a)``, position of key j ``p = Σ_{j ≤ k ≤ i} g``, bounded by
    the last column, and the bias is what ``ColumnTable`` holds there, interpolated. It costs ``B·H·L·C·M`` operations
    for the columns and some ten per logit, and the memory of one block of logits and columns.

    Source: Yuan, Cai and Dong, "A Contextual-Aware Position Encoding for Sequential Recommendation", WWW Companion 2025
    (arXiv 2502.09027), whose released self-attention does not run it: the gates of keys that a query may not see count
    nothing here, and each head has a query of its own. Its published figures are of click prediction. In attention
    without softmax, as HSTU's, it is ours: the paper has it in softmax attention alone.

    Args:
        channels: width C of a head.
        max_length: number of columns M, at least 2.
        n_heads: 1 shares the table among the heads; otherwise the number of heads H, each with its own.
        position_dim: width of the query's projection before it meets the table; None reads the query itself.
        mask_gates: False counts every later event of the history as 1, as the released self-attention would; what it
            says of an event then changes when the history goes on.
    """

    def __init__(
        self,
        channels: int,
        max_length: int = 200,
        n_heads: int = 1,
        position_dim: int | None = None,
        mask_gates: bool = True,
    ) -> None:
        super().__init__(channels, max_length, n_heads, position_dim)
        self.mask_gates = self.continues = mask_gates

    def adjust(self, logits: Float[Tensor, "b H i j"], pairs: Pairs) -> Float[Tensor, "b H i j"]:
        gates = torch.sigmoid(-logits)
        if not self.mask_gates:
            places = torch.arange(gates.shape[-1], device=gates.device)
            newest = places == (pairs.n_visible - 1).clamp(max=gates.shape[-1] - 1)[..., None]
            gates = gates + (newest * pairs.n_later[..., None])[:, None]
        return logits + self._bias(gates, pairs)


class CoPE(_Contextual):
    """An event counts by how much it resembles the query: the gate is ``σ(a)``, and all else is as in ``CAPE``.

    Source: Golovneva et al., "Contextual Position Encoding: Learning to Count What's Important", 2024 (arXiv
    2405.18719). Differs from it: the logit that makes the gate is the scaled one, as for CAPE.

    Args:
        channels: width C of a head.
        max_length: number of columns M, at least 2.
        n_heads: 1 shares the table among the heads; otherwise the number of heads H, each with its own.
        position_dim: width of the query's projection before it meets the table; None reads the query itself.
    """

    def adjust(self, logits: Float[Tensor, "b H i j"], pairs: Pairs) -> Float[Tensor, "b H i j"]:
        return logits + self._bias(torch.sigmoid(logits), pairs)
