"""Compressed user tokens: a few learned tokens carry what is older, and the recent part of a history reads them."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from seqrec.backbones.base import ContinuingBackbone
from seqrec.nn.segments import Segment
from seqrec.sequences import Sequences


class Compressed(ContinuingBackbone[Any]):
    """A causal backbone that reads the newest events of a history and, of all older ones, what k tokens made of them.

    The window of a history is its older events, k tokens that all users share, and its newest ``n_recent`` events. The
    tokens read the older events, the recent events read the tokens and each other, never the older events themselves.
    With several segments the older events are cut in parts of like length, each followed by k tokens of its own; an
    event reads its own segment and all earlier tokens. What must be remembered of the past is thus k rows per segment
    and layer, however long it was, and to read on from it costs little more than reading the recent events alone. A
    history of at most ``n_recent`` events begins with the tokens, which then know nothing.

    Around a recurrent backbone the tokens change little: what it carries on is of bounded size in any case.

    Source: Zhang et al., "Efficient Sequential Recommendation for Long Term User Interest Via Personalization",
    2026 (arXiv 2601.03479), after its released code. Differs from it: histories are packed, so the tokens of a
    short history stand before it and not behind padding; input positions count items alone, encodings inside
    attention count tokens, too; neither the tokens nor the event before them know when what follows is asked for;
    the state of the last token speaks for the item that follows it and takes the place of the state of the event
    before the tokens (``tokens_predict``), where the released loss leaves the last token out and has that event
    predict the first token; train with ``EveryEventWithinSegments`` to leave both out. HSTU's divisor is the same with
    and without a remembered past; segments are of like length, where there each may be given by its place and length,
    and each has a token at least: without any, train the backbone itself. Its ``item_dropout``, which hides recent
    items in training and is 0 by default, is absent.

    Args:
        inner: the causal backbone; attention backbones forget the older events, others go on. Attention needs at least
            2 layers: in the first, a token is read before it has read anything.
        n_tokens: tokens k, at least 0; without any, attention backbones forget what is older altogether.
        n_recent: newest events of a window that are read themselves, at least 1.
        n_segments: parts that the older events are cut into, at least 1; one works best according to its authors.
        tokens_predict: whether the last token speaks for the first event behind it; otherwise the event before the
            tokens does.
        init_std: standard deviation of the initial tokens, above 0.
    """

    causal = True
    keeps_start = ("tokens",)

    def __init__(
        self,
        inner: ContinuingBackbone,
        n_tokens: int = 4,
        n_recent: int = 50,
        n_segments: int = 1,
        tokens_predict: bool = True,
        init_std: float = 0.02,
    ) -> None:
        super().__init__(inner.dim)
        for name, value, least in (("n_tokens", n_tokens, 0), ("n_recent", n_recent, 1), ("n_segments", n_segments, 1)):
            if value < least:
                raise ValueError(f"{name} is {value}; it must be at least {least}.")
        self.inner, self.leaves_room = inner, n_recent
        self.n_recent, self.n_segments, self.tokens_predict = n_recent, n_segments, tokens_predict
        self.tokens = nn.Parameter(init_std * torch.randn(n_segments, n_tokens, inner.dim))

    @property
    def curvature(self) -> nn.Module | None:
        """Of the space of the inner backbone, for scorers that share it; None where that has none."""
        return getattr(self.inner, "curvature", None)

    def proceed(
        self, events: Float[Tensor, "T D"], history: Sequences, memory: Any | None
    ) -> tuple[Float[Tensor, "T D"], Any]:
        """Without a memory all but the newest events are compressed; with one all events are recent."""
        if memory is not None:
            return self.inner.proceed(events, history, memory)
        n_older = (history.lengths - self.n_recent).clamp(min=0)
        older, memory = self._compress(events, history, n_older)
        recent = Segment(history, n_older, history.lengths)
        states, memory = self.inner.proceed(recent.of(events), recent.history, memory)
        return recent.back(older, states), memory

    def proceed_at(
        self, events: Float[Tensor, "T D"], history: Sequences, at: Int[Tensor, "M"], memory: Any | None
    ) -> tuple[Float[Tensor, "M D"], Any]:
        if memory is not None:
            return self.inner.proceed_at(events, history, at, memory)
        return super().proceed_at(events, history, at, memory)

    def remember(self, events: Float[Tensor, "T D"], history: Sequences) -> tuple[Float[Tensor, "T D"], Any]:
        """All events are older ones, and their tokens are what is remembered."""
        return self._compress(events, history, history.lengths)

    def condense(self, before: Any | None, after: Any, n: int) -> Any:
        return self.inner.condense(before, after, n)

    def stored(self, memory: Any) -> dict[str, Tensor]:
        return self.inner.stored(memory)

    def restored(self, tensors: dict[str, Tensor]) -> Any:
        return self.inner.restored(tensors)

    def _compress(
        self, events: Float[Tensor, "T D"], history: Sequences, n_older: Int[Tensor, "B"]
    ) -> tuple[Float[Tensor, "T D"], Any]:
        """States of the older events, with zeros for the others, and what is left of them when they are forgotten."""
        if torch.compiler.is_exporting():
            raise TypeError(
                "Compressed cuts a history where its length says, which a program for all lengths cannot express; "
                "export it without programs (`--format none`)."
            )
        n_tokens = self.tokens.shape[1]
        states, memory = torch.zeros_like(events), None
        for number, tokens in enumerate(self.tokens):
            segment = Segment(history, n_older * number // self.n_segments, n_older * (number + 1) // self.n_segments)
            mixed, stream, place_of_token = segment.followed_by(tokens, events)
            read, after = self.inner.proceed(mixed, stream, memory)
            is_token = torch.zeros(len(mixed), dtype=torch.bool, device=events.device)
            is_token[place_of_token] = True
            of_items = read[~is_token]
            if self.tokens_predict and n_tokens:
                ends = segment.history.lengths > 0
                newest = segment.history.offsets[1:][ends] - 1
                of_items = of_items.index_copy(0, newest, read[place_of_token[n_tokens - 1 :: n_tokens][ends]])
            states = segment.back(states, of_items)
            memory = self.inner.condense(memory, after, n_tokens)
        return states, memory
