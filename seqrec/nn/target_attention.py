"""Attention of a candidate to a history: what is taken from it depends on what is asked about."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from seqrec.nn.attention import PositionFactory, nowhere
from seqrec.nn.feed_forward import perceptron
from seqrec.ops.adjusted_attention import Pairs, Stand, softmax
from seqrec.ops.attention import events_of, octave
from seqrec.ops.rows import spread
from seqrec.sequences import Sequences

# Numbers in the maps of the candidates at hand at once: 16 MiB of float32.
_MAPS = 2**22


class TargetAttention(nn.Module):
    """The events that a candidate sees, each weighed by what a small network says of the two, and added up.

    The logit of candidate t and event h is ``mlp([t, h, t - h, t ⊙ h])``, and weights are a softmax over the events
    that the candidate sees. An event may be an item vector or the state of any backbone.

    A position turns t and h before the network reads them, or changes the logits. The candidate stands behind the
    newest event that it sees. The network is no inner product, so a rotary position tells it places, not distances
    alone.

    Source: Zhou et al., "Deep Interest Network for Click-Through Rate Prediction", KDD 2018 (arXiv 1706.06978), as CAPE
    (Yuan, Cai and Dong, WWW Companion 2025, arXiv 2502.09027) reads it: weights are a softmax, and the network reads
    difference and product, too. Differs from both: the activation is ReLU, as in some settings of CAPE, not Dice, so
    that no candidate depends on the others of its batch, and no weights are dropped.

    Args:
        dim: width D of candidates and events.
        hidden: widths of the network's inner layers, at least one.
        position: builds the position encoding from the width D; None attends without one.
        max_length: the window whose free slots count as half an event each for ``CAPE(mask_gates=False)``, as in the
            released target attention, which pads behind the newest event; None leaves them out. Nothing else reads it.
    """

    def __init__(
        self,
        dim: int,
        hidden: Sequence[int] = (64,),
        position: PositionFactory | None = None,
        max_length: int | None = None,
    ) -> None:
        super().__init__()
        if not hidden:
            raise ValueError("hidden is empty; the network of target attention needs an inner layer, e.g. hidden=[64].")
        self.dim, self.max_length = dim, max_length
        self.mlp = perceptron(4 * dim, *hidden, 1)
        self.position = nowhere() if position is None else position(dim)
        if self.position.reads_clock or self.position.reads_asked_at:
            raise ValueError(
                f"{type(self.position).__name__} reads times, but target attention tells a position places alone; "
                "choose one that reads places, e.g. seqrec.positions.contextual.CAPE."
            )

    def forward(
        self,
        candidates: Float[Tensor, "M c D"],
        at: Int[Tensor, "M"],
        events: Float[Tensor, "T D"],
        history: Sequences,
    ) -> Float[Tensor, "M c D"]:
        """What each of c candidates takes from the event at its place in the packed histories and from all before.

        Places that see a like number of events are laid in one rectangle, filled up behind their newest event.
        """
        n_seen = history.places[at] + 1
        t = self.position.turn(candidates, n_seen)
        h = self.position.turn(events[:, None], history.places)[:, 0]
        taken, group = events.new_zeros(candidates.shape), octave(n_seen)
        together = max(1, _MAPS // (self.dim * self.mlp[0].out_features * max(1, candidates.shape[1])))  # type: ignore[operator]
        like = [(group == each).nonzero().squeeze(1) for each in group.unique()]
        for members in (some for each in like for some in each.split(together)):
            n_places, longest = len(members), int(n_seen[members].max())
            asked = events_of(at[members] - n_seen[members] + 1, n_seen[members])
            cells = events_of(torch.arange(n_places, device=at.device) * longest, n_seen[members])
            keys, values = (
                spread(x.index_select(0, asked), cells, n_places * longest).view(n_places, longest, -1)
                for x in (h, events)
            )
            n_visible = n_seen[members, None].expand(-1, candidates.shape[1])
            free_slots = ((self.max_length or 0) - n_visible).clamp(min=0)
            places = torch.arange(longest, device=at.device)[None]
            pairs = Pairs(t[members, None], Stand(n_visible), Stand(places), n_visible, free_slots / 2)
            weights = softmax(self.position.adjust(self._logits(t[members], keys)[:, None], pairs), pairs.visible)
            part = weights[:, 0].to(values.dtype) @ values
            taken = taken.index_copy(0, members, part.to(taken.dtype))
        return taken

    def _logits(self, t: Float[Tensor, "m c D"], h: Float[Tensor, "m j D"]) -> Float[Tensor, "m c j"]:
        # W [t, h, t - h, t ⊙ h] = (W_t + W_d) t + (W_h - W_d + W_p diag(t)) h: each candidate has a map of its own.
        first: nn.Linear = self.mlp[0]  # type: ignore[assignment]
        of_t, of_h, of_difference, of_product = first.weight.chunk(4, dim=1)
        offsets = F.linear(t, of_t + of_difference, first.bias)
        maps = of_h - of_difference + of_product * t[:, :, None]
        wide = torch.baddbmm(offsets.flatten(1)[:, None], h, maps.flatten(1, 2).mT)
        logits = self.mlp[1:](wide.unflatten(-1, offsets.shape[1:])).squeeze(-1).mT  # type: ignore[operator]
        return logits.to(torch.promote_types(logits.dtype, torch.float32))
