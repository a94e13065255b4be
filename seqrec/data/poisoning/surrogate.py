"""The small model that attacks try things on: weighted matrix factorisation, trained on all users at once.

Every user and every item has a vector; their product should be 1 where the user has the item and 0 elsewhere, and a 1
counts several times as much as a 0. The zeros are never written down: Σ s² over all pairs is the inner product of two
D × D matrices, so a step costs (U + N) D² + E D operations instead of U N D. Fake users are rows of a dense matrix
whose entries may be anything between, so that one can ask how the model would change with them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from seqrec.data.poisoning.base import Mission


class Factors(NamedTuple):
    """One vector per genuine user, per fake user and per item."""

    users: Float[Tensor, "U D"]
    fakes: Float[Tensor, "F D"]
    items: Float[Tensor, "N D"]


@dataclass(frozen=True)
class State:
    """Factors in training, with Adam's moments."""

    factors: Factors
    first: Factors
    second: Factors
    steps: int = 0


@dataclass(frozen=True)
class Surrogate:
    """The data of a factorisation, and how it is trained.

    Attributes:
        users: user of each pair of a genuine user and an item of theirs; users that an attacker knows are numbered
            from 0.
        items: its item.
        n_users: how many genuine users the attacker knows.
        n_items: N.
        positive_weight: how much a pair that occurred counts beside one that did not, above 1.
        learning_rate: Adam's step size.
        decay: how strongly all numbers are drawn towards 0.
    """

    users: Int[Tensor, "P"]
    items: Int[Tensor, "P"]
    n_users: int
    n_items: int
    positive_weight: float = 20.0
    learning_rate: float = 0.02
    decay: float = 1e-5

    @staticmethod
    def of(mission: Mission, max_events: int, random: np.random.Generator, **settings: float) -> Surrogate:
        """What an attacker knows who saw users drawn by chance until they had this many events."""
        order = random.permutation(mission.n_users)
        lengths = np.diff(mission.offsets)[order]
        known = order[: max(1, int(np.searchsorted(np.cumsum(lengths), max_events, side="right")))]
        place = np.full(mission.n_users, -1)
        place[known] = np.arange(known.size)
        owners = place[mission.owners]
        pairs = np.unique(owners[owners >= 0] * mission.n_items + mission.items[owners >= 0])
        users, items = (torch.from_numpy(part) for part in np.divmod(pairs, mission.n_items))
        return Surrogate(users, items, known.size, mission.n_items, **settings)

    def start(self, n_fakes: int, dim: int, seed: int) -> State:
        """Small random factors."""
        generator = torch.Generator().manual_seed(seed)
        sizes = (self.n_users, n_fakes, self.n_items)
        factors = Factors(*(0.1 * torch.randn(size, dim, generator=generator) for size in sizes))
        first, second = (Factors(*(torch.zeros_like(part) for part in factors)) for _ in range(2))
        return State(factors, first, second)

    def gradients(self, factors: Factors, fakes: Float[Tensor, "F N"]) -> Factors:
        """Gradients of the loss, summed over all pairs, in a form that can be differentiated itself."""
        users, fake_users, items = factors
        of_users, of_items = users[self.users], items[self.items]
        scores = torch.einsum("pd,pd->p", of_users, of_items)[:, None]
        # w (s - 1) in place of the s that the sum over all pairs already holds
        residuals = self.positive_weight * (scores - 1) - scores
        for_users = (users @ (items.T @ items)).index_add(0, self.users, residuals * of_items)
        for_items = (items @ (users.T @ users)).index_add(0, self.items, residuals * of_users)
        weights = torch.where(fakes.detach() > 0, self.positive_weight, 1.0)
        errors = weights * (fake_users @ items.T - fakes)
        return Factors(
            for_users + self.decay * users,
            errors @ items + self.decay * fake_users,
            for_items + errors.T @ fake_users + self.decay * items,
        )

    def step(self, state: State, fakes: Float[Tensor, "F N"], push: Factors | None = None) -> State:
        """One step of Adam on all pairs; ``push`` is added to the gradients."""
        gradients = self.gradients(state.factors, fakes)
        if push is not None:
            gradients = Factors(*(own + more for own, more in zip(gradients, push, strict=True)))
        return self.stepped(state, gradients)

    def stepped(self, state: State, gradients: Factors) -> State:
        """One step of Adam along these gradients, itself differentiable."""
        steps = state.steps + 1
        first = _mixed(0.9, state.first, gradients)
        second = _mixed(0.999, state.second, Factors(*(each.square() for each in gradients)))
        rate, scale = self.learning_rate / (1 - 0.9**steps), 1 - 0.999**steps
        factors = Factors(
            *(
                part - rate * m / ((v / scale + 1e-16).sqrt() + 1e-8)
                for part, m, v in zip(state.factors, first, second, strict=True)
            )
        )
        return replace(state, factors=factors, first=first, second=second, steps=steps)

    @torch.no_grad()
    def trained(self, state: State, fakes: Float[Tensor, "F N"], steps: int) -> State:
        for _ in range(steps):
            state = self.step(state, fakes)
        return state


def _mixed(share: float, old: Factors, new: Factors) -> Factors:
    return Factors(*(share * before + (1 - share) * now for before, now in zip(old, new, strict=True)))


@torch.no_grad()
def hit_rate(
    scores: Float[Tensor, "some N"], targets: Int[Tensor, "targets"], had: tuple[Tensor, Tensor], k: int
) -> float:
    """How often a target is among the k best of these users, who are not shown what they had; means over targets of
    those who lack it.

    Args:
        scores: of every item for some users; changed in place.
        targets: what is pushed.
        had: user, by its row in ``scores``, and item of each pair that occurred.
        k: length of the list.
    """
    own = scores[:, targets].clone()
    scores[had] = -torch.inf
    lacks = scores[:, targets] > -torch.inf
    bar = scores.topk(min(k, scores.shape[1]), dim=1).values[:, -1:]
    hits = ((own >= bar) & lacks).double().sum(0) / lacks.sum(0).clamp(min=1)
    return float(hits.mean())


def some_users(
    surrogate: Surrogate, n: int, random: np.random.Generator
) -> tuple[Int[Tensor, "some"], tuple[Tensor, Tensor]]:
    """At most n of the users that an attacker knows, and which items each of them, by its place here, had."""
    chosen = torch.from_numpy(np.sort(random.permutation(surrogate.n_users)[:n]))
    place = torch.full((surrogate.n_users,), -1)
    place[chosen] = torch.arange(chosen.numel())
    kept = place[surrogate.users] >= 0
    return chosen, (place[surrogate.users[kept]], surrogate.items[kept])
