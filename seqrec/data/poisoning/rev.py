"""The Rev attack: fake histories found by following how training a surrogate on them changes what it recommends."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from seqrec.data.poisoning.base import Attack, Mission, assemble, draw_targets, strongest
from seqrec.data.poisoning.heuristic import at_least_one_slot
from seqrec.data.poisoning.surrogate import Factors, State, Surrogate, hit_rate, some_users

_CUT_OFF = 50
_JUDGES = 1000
_MOMENTUM = 0.95


class Rev(Attack):
    """A matrix of fake clicks, improved by gradients that go through the last steps of the surrogate's training.

    It starts from the items of real users. In each round the surrogate is trained on genuine users and fakes; the loss,
    a softmax cross-entropy that wants the targets recommended to genuine users, is differentiated with respect to the
    clicks, through the steps that were unrolled; each row of the gradient is scaled to length 1, added with momentum,
    and clicks above a threshold become 1, the others 0. The round whose surrogate recommends the targets most is kept.

    Source: Tang et al., "Revisiting Adversarially Learned Injection Attacks Against Recommender Systems", RecSys 2020,
    with the weighted matrix factorisation of its released code. Differs from it: the surrogate has 32 instead of 128
    dimensions and is trained by steps over all pairs at once, whose zeros are summed in closed form; its steps are
    recomputed on the way back, so memory does not grow with their number; loss and figure of merit are taken over a
    sample of users; histories are cut or filled to the lengths of the mission by how much the rounds wanted each item,
    in random order, and every fake pushes some target.

    Args:
        slots: as in ``Random``.
        dim: width of the surrogate's vectors, at least 1.
        rounds: how often the clicks are changed, at least 1.
        steps: training steps of the surrogate in every round, at least ``unrolled``.
        unrolled: how many of its last steps the gradient goes through, at least 1.
        threshold: a click above it becomes 1.
        max_events: the attacker knows users drawn by chance who have at most this many events together, at least 1.
    """

    def __init__(
        self,
        slots: int = 5,
        dim: int = 32,
        rounds: int = 30,
        steps: int = 50,
        unrolled: int = 10,
        threshold: float = 0.05,
        max_events: int = 200_000,
    ) -> None:
        self.slots = at_least_one_slot(slots)
        if min(dim, rounds, unrolled, max_events) < 1 or steps < unrolled:
            raise ValueError(
                f"dim is {dim}, rounds {rounds}, steps {steps}, unrolled {unrolled} and max_events {max_events}; all "
                "must be at least 1, and steps at least unrolled."
            )
        self.dim, self.rounds, self.steps, self.unrolled = dim, rounds, steps, unrolled
        self.threshold, self.max_events = threshold, max_events

    def forge(self, mission: Mission, random: np.random.Generator) -> list[Int[np.ndarray, "_"]]:
        surrogate = Surrogate.of(mission, self.max_events, random)
        targets = torch.from_numpy(mission.targets)
        start = surrogate.start(mission.lengths.size, self.dim, int(random.integers(2**31)))
        judges, had = some_users(surrogate, _JUDGES, random)
        clicks = _clicks_of_real_users(mission, random)
        velocity = torch.zeros_like(clicks)
        best, best_rate = (clicks, velocity), -1.0
        for _ in range(self.rounds):
            gradient, scores = self._gradient(surrogate, start, clicks, targets, judges)
            rate = hit_rate(scores, targets, had, _CUT_OFF)
            if rate > best_rate:
                best, best_rate = (clicks, velocity), rate
            gradient = gradient / gradient.norm(dim=1, keepdim=True).clamp(min=1e-12)
            velocity = _MOMENTUM * velocity + gradient
            clicks = (clicks - velocity > self.threshold).float()
        return self._histories(mission, *best, random)

    def _gradient(
        self,
        surrogate: Surrogate,
        start: State,
        clicks: Float[Tensor, "F N"],
        targets: Int[Tensor, "targets"],
        judges: Int[Tensor, "judges"],
    ) -> tuple[Float[Tensor, "F N"], Float[Tensor, "judges N"]]:
        """How the loss changes with each click, and the judges' scores."""
        state = surrogate.trained(start, clicks, self.steps - self.unrolled)
        wanted = clicks.clone().requires_grad_()
        for _ in range(self.unrolled):
            state = _remade(surrogate, state, wanted)
        scores = state.factors.users[judges] @ state.factors.items.T
        loss = -scores.log_softmax(1)[:, targets].mean()
        (gradient,) = torch.autograd.grad(loss, wanted)
        return gradient, scores.detach()

    def _histories(
        self, mission: Mission, clicks: Tensor, velocity: Tensor, random: np.random.Generator
    ) -> list[Int[np.ndarray, "_"]]:
        # Items that are clicked come first, then those that the rounds pushed most.
        wanted = (clicks - velocity / velocity.abs().max().clamp(min=1e-12) / 2).numpy()
        profiles = []
        for length, scores in zip(mission.lengths, wanted, strict=True):
            own = draw_targets(mission.targets, self.slots, int(length), random)
            fillers = strongest(scores, int(length - own.size), mission.targets)
            profiles.append(assemble(own, random.permutation(fillers), random))
        return profiles


def _clicks_of_real_users(mission: Mission, random: np.random.Generator) -> Float[Tensor, "F N"]:
    """Each row is a real user with at most 100 events, as long as there are some."""
    lengths = np.diff(mission.offsets)
    usual = np.flatnonzero((lengths > 0) & (lengths <= max(100, int(lengths[lengths > 0].min()))))
    clicks = torch.zeros(mission.lengths.size, mission.n_items)
    for row, user in enumerate(random.choice(usual, mission.lengths.size)):
        clicks[row, torch.from_numpy(mission.history(int(user)).astype(np.int64))] = 1.0
    return clicks


def _remade(surrogate: Surrogate, state: State, clicks: Tensor) -> State:
    """One step whose inside is forgotten, and computed again on the way back."""

    def step(fakes: Tensor, *parts: Tensor) -> tuple[Tensor, ...]:
        groups = [Factors(*parts[place : place + 3]) for place in (0, 3, 6)]
        after = surrogate.step(State(*groups, steps=state.steps), fakes)
        return (*after.factors, *after.first, *after.second)

    parts = checkpoint(step, clicks, *state.factors, *state.first, *state.second, use_reentrant=False)
    return State(*(Factors(*parts[place : place + 3]) for place in (0, 3, 6)), steps=state.steps + 1)
