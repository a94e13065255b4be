"""Parts of histories, read by themselves with tokens behind them."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seqrec.ops.attention import join
from seqrec.ops.rows import pick
from seqrec.sequences import Sequences, bounds


class Segment:
    """The events of each history from one place up to another, as histories of their own."""

    def __init__(self, history: Sequences, starts: Int[Tensor, "B"], ends: Int[Tensor, "B"]) -> None:
        owners, places = history.owners, history.places
        self.whole, self.ends = history, ends
        self.events = ((places >= starts[owners]) & (places < ends[owners])).nonzero().squeeze(1)
        times, asked_at = (
            None if values is None else values[self.events] for values in (history.times, history.asked_at)
        )
        self.history = Sequences(history.items[self.events], bounds(ends - starts), times, asked_at)

    def of(self, vectors: Float[Tensor, "T D"]) -> Float[Tensor, "n D"]:
        return pick(vectors, self.events)

    def back(self, vectors: Float[Tensor, "T D"], own: Float[Tensor, "n D"]) -> Float[Tensor, "T D"]:
        return vectors.to(own.dtype).index_copy(0, self.events, own)

    def followed_by(
        self, tokens: Float[Tensor, "k D"], events: Float[Tensor, "T D"]
    ) -> tuple[Float[Tensor, "n D"], Sequences, Int[Tensor, "m"]]:
        """The events of the segments with tokens behind each, their histories, and where the tokens stand.

        Tokens happen when the newest event up to them does, or in 1970 where there is none. Neither they nor that event
        know when what follows is asked for, so that nothing remembered depends on it.
        """
        lengths, n_histories, n = self.history.lengths, len(self.ends), len(tokens)
        offsets = bounds(lengths + n)
        stands = (offsets[1:, None] - n + torch.arange(n, device=offsets.device)).flatten()
        items, times, asked_at = self.history.items, self.history.times, self.history.asked_at
        behind = torch.arange(n_histories + 1, device=offsets.device) * n

        def with_tokens(values: Tensor, of_tokens: Tensor) -> Tensor:
            return join(values, of_tokens.repeat_interleave(n), self.history.offsets, behind)

        mixed = join(self.of(events), tokens.to(events.dtype).repeat(n_histories, 1), self.history.offsets, behind)

        if times is not None and self.whole.times is not None:
            has_past = self.ends > 0
            newest = torch.zeros_like(self.ends)
            newest[has_past] = self.whole.times[(self.whole.offsets[:-1] + self.ends - 1)[has_past]]
            if asked_at is not None:
                own = lengths > 0
                asked_at = with_tokens(asked_at.index_copy(0, self.history.newest[own], newest[own]), newest)
            times = with_tokens(times, newest)
        stream = Sequences(with_tokens(items, torch.zeros_like(self.ends)), offsets, times, asked_at)
        return mixed, stream, stands
