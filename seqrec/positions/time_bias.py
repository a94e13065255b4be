"""A bias of the logits by how long ago the key happened when the prediction is asked for."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from seqrec.ops.adjusted_attention import Pairs
from seqrec.ops.lookup import look_up
from seqrec.positions.base import LogitPosition

_LOG_WIDTH = 0.301


class TimeBias(LogitPosition):
    """One learned number per span of time, on a logarithmic scale, shared by the heads.

    The span goes from the key to the moment at which what follows the query is asked for, in training the time of the
    target. Models without it do not know that moment, so results say that it was read.

    Source: the time half of the bias of HSTU (Zhai et al., "Actions Speak Louder than Words", ICML 2024, arXiv
    2402.17152), after its released code: a span of s seconds has the number ``⌊ln(max(1, |s|)) / 0.301⌋``.

    Args:
        channels: width C of a head; not read.
        n_spans: how many numbers there are, the last of which serves all longer spans; at least 1.
        init_std: standard deviation of the initial numbers, above 0.
    """

    reads_clock = True
    reads_asked_at = True

    def __init__(self, channels: int, n_spans: int = 129, init_std: float = 0.02) -> None:
        super().__init__()
        if n_spans < 1:
            raise ValueError(f"n_spans is {n_spans}; it must be at least 1, e.g. 129.")
        self.table = nn.Parameter(init_std * torch.randn(n_spans))

    def adjust(self, logits: Float[Tensor, "b H i j"], pairs: Pairs) -> Float[Tensor, "b H i j"]:
        asked_at, happened_at = pairs.asking.times, pairs.asked.times
        assert asked_at is not None
        assert happened_at is not None, "attention passes times on to a position that declares that it reads them"
        spans = span(asked_at[:, :, None] - happened_at[:, None, :]).clamp(max=len(self.table) - 1)
        return logits + look_up(self.table, spans)[:, None]


def span(seconds: Int[Tensor, "*d"]) -> Int[Tensor, "*d"]:
    """The number of a span of time on the logarithmic scale: 0 up to a second, 45 for a million."""
    return (seconds.abs().clamp(min=1).float().log() / _LOG_WIDTH).int()
