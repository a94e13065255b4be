"""The DP attack: fake users made one after another, each from what a poisoned surrogate would recommend to it."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from seqrec.data.poisoning.base import HELD_OUT, Attack, Mission, assemble, draw_targets, strongest
from seqrec.data.poisoning.heuristic import at_least_one_slot
from seqrec.data.poisoning.surrogate import Factors, State, Surrogate, hit_rate, some_users

_JUDGES = 500
_SHARPNESS = 10.0
_STEPS_OF_A_ROUND = 4


class DP(Attack):
    """Each new fake user starts with its targets alone, and its fillers are what the surrogate then thinks it likes.

    The surrogate learns the genuine users, the fakes made so far and the new one; then rounds of training also push the
    targets above the k-th best unseen item of genuine users, and the round in which they are recommended most is kept.
    The fillers are the items of highest score for the new fake, times a factor per item that falls whenever the item is
    chosen, so that fakes differ; when all have fallen they are 1 again.

    Source: Huang et al., "Data Poisoning Attacks to Deep Learning Based Recommender Systems", NDSS 2021. Differs from
    it: the surrogate is a matrix factorisation instead of NeuMF, goes on from one fake to the next instead of starting
    anew, and its scores s become probabilities σ(10 (s - ½)); a round is four steps on the sum of both losses, not an
    epoch of each; the poison loss is taken over a sample of users and counts ten times as much; a fake pushes several
    targets, and has as many fillers as its length leaves; events stand in random order, each target behind some filler.

    Args:
        slots: as in ``Random``.
        dim: width of the surrogate's vectors, at least 1.
        first_steps: training steps of the surrogate before the first fake, at least 1.
        steps: training steps for each fake before its poisoning, at least 1.
        rounds: at most this many rounds of poisoning, at least 1.
        k: the targets are pushed above the k-th best unseen item of a user.
        margin: how far above, in log-probability, counts (κ).
        strength: α: the poison loss counts 100 α times its mean, and α draws the fake's scores to 0.
        fading: what the factor of a chosen item is multiplied by, in (0, 1].
        max_events: the attacker knows users drawn by chance who have at most this many events together, at least 1.
    """

    def __init__(
        self,
        slots: int = 5,
        dim: int = 32,
        first_steps: int = 100,
        steps: int = 10,
        rounds: int = 5,
        k: int = 10,
        margin: float = 1.0,
        strength: float = 0.1,
        fading: float = 0.9,
        max_events: int = 200_000,
    ) -> None:
        self.slots = at_least_one_slot(slots)
        if min(dim, first_steps, steps, rounds, k, max_events) < 1 or not 0 < fading <= 1:
            raise ValueError(
                f"dim is {dim}, first_steps {first_steps}, steps {steps}, rounds {rounds}, k {k} and max_events "
                f"{max_events}, which must be at least 1, and fading is {fading}, which must be above 0 and at most 1."
            )
        self.dim, self.first_steps, self.steps, self.rounds = dim, first_steps, steps, rounds
        self.k, self.margin, self.strength, self.fading = k, margin, strength, fading
        self.max_events = max_events

    def forge(self, mission: Mission, random: np.random.Generator) -> list[Int[np.ndarray, "_"]]:
        surrogate = Surrogate.of(mission, self.max_events, random)
        state = surrogate.start(0, self.dim, int(random.integers(2**31)))
        clicks = torch.zeros(0, mission.n_items)
        state = surrogate.trained(state, clicks, self.first_steps)
        factors_of_items = np.ones(mission.n_items)
        profiles = []
        for length in mission.lengths:
            # A target opens no history that has room for something to lead to it.
            own = draw_targets(mission.targets, self.slots, int(length) - 1, random)
            newcomer = torch.zeros(1, mission.n_items)
            newcomer[0, torch.from_numpy(own)] = 1.0
            clicks = torch.cat([clicks, newcomer])
            state = surrogate.trained(_with_a_newcomer(state, random), clicks, self.steps)
            liking = self._poisoned(surrogate, state, clicks, torch.from_numpy(own), random)
            fillers = strongest(liking * factors_of_items, int(length - own.size), mission.targets)
            factors_of_items[fillers] *= self.fading
            if (factors_of_items[mission.fillers] < 1).all():
                factors_of_items[:] = 1.0
            clicks[-1, torch.from_numpy(fillers)] = 1.0
            fillers = random.permutation(fillers).astype(np.int64)
            before = fillers[: int(length > HELD_OUT + 1)]
            profiles.append(np.append(before, assemble(own, fillers[before.size :], random)))
        return profiles

    def _poisoned(
        self,
        surrogate: Surrogate,
        state: State,
        clicks: Float[Tensor, "F N"],
        targets: Int[Tensor, "own"],
        random: np.random.Generator,
    ) -> Float[np.ndarray, "N"]:
        """How probable each item is for the newest fake in the best round."""
        best_rate, liking = -1.0, torch.empty(0)
        judges, had = some_users(surrogate, _JUDGES, random)
        for _ in range(self.rounds):
            for _ in range(_STEPS_OF_A_ROUND):
                push = self._push(surrogate, state.factors, targets, judges, had)
                with torch.no_grad():
                    state = surrogate.step(state, clicks, push)
            with torch.no_grad():
                rate = hit_rate(state.factors.users[judges] @ state.factors.items.T, targets, had, self.k)
                if rate > best_rate:
                    best_rate, liking = rate, _probable(state.factors.fakes[-1] @ state.factors.items.T)
        return liking.double().numpy()

    def _push(
        self,
        surrogate: Surrogate,
        factors: Factors,
        targets: Int[Tensor, "own"],
        judges: Int[Tensor, "judges"],
        had: tuple[Tensor, Tensor],
    ) -> Factors:
        """Gradients of the poison loss."""
        moved = Factors(*(part.detach().requires_grad_() for part in factors))
        scores = moved.users[judges] @ moved.items.T
        lacking = torch.ones_like(scores, dtype=torch.bool)
        lacking[had] = False
        unseen = scores.masked_fill(~lacking, -torch.inf)
        bar = unseen.topk(min(self.k, scores.shape[1]), dim=1).values[:, -1:]
        gaps = (_log_probable(bar) - _log_probable(scores[:, targets])).clamp(min=-self.margin)
        wanted = (gaps * lacking[:, targets] * (bar > -torch.inf)).sum() / lacking[:, targets].sum().clamp(min=1)
        quiet = _probable(moved.fakes[-1] @ moved.items.T).square().sum()
        # Ordinary training sums over all users, so their mean counts as often.
        loss = 100 * self.strength * surrogate.n_users * wanted + self.strength * quiet
        return Factors(*torch.autograd.grad(loss, moved))


def _probable(scores: Tensor) -> Tensor:
    return torch.sigmoid(_SHARPNESS * (scores - 0.5))


def _log_probable(scores: Tensor) -> Tensor:
    return F.logsigmoid(_SHARPNESS * (scores - 0.5))


def _with_a_newcomer(state: State, random: np.random.Generator) -> State:
    """The same state with small factors of one more fake user."""
    fresh = 0.1 * torch.from_numpy(random.standard_normal((1, state.factors.items.shape[1]))).float()

    def longer(factors: Factors, row: Tensor) -> Factors:
        return factors._replace(fakes=torch.cat([factors.fakes, row]))

    nothing = torch.zeros_like(fresh)
    return State(longer(state.factors, fresh), longer(state.first, nothing), longer(state.second, nothing), state.steps)
