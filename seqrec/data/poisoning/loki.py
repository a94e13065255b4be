"""A LOKI-like attack: an agent learns, by what a surrogate would answer, which kind of item a fake user should take."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from seqrec.data.poisoning.base import HELD_OUT, Attack, Mission
from seqrec.data.poisoning.heuristic import Random, at_least_one_slot
from seqrec.data.poisoning.surrogate import Surrogate, some_users

_JUDGES = 1000
_BATCH = 64
_REMEMBERED = 5000


@dataclass
class World:
    """Where the agent acts: what the surrogate knows of items and users, and what became of them if a fake joined."""

    items: Float[Tensor, "N D"]
    pull: Float[Tensor, "D"]  # the mean vector of the users who are to be convinced
    clusters: list[Int[np.ndarray, "_"]]
    targets: Int[np.ndarray, "targets"]
    positive_weight: float
    unit: float = 1.0

    def reward(self, profile: list[int]) -> float:
        """By how much the targets' scores for the judges rise in one step of training on this fake, beside the rest.

        The fake's own vector is the one that explains its history best, given the items. Only targets behind another
        item count: a next-item recommender learns nothing of what stands first, and behind a target no more than that
        who took one target takes the next.
        """
        mine = self.items[profile]
        width = self.items.shape[1]
        gram = self.items.T @ self.items + (self.positive_weight - 1) * mine.T @ mine + torch.eye(width)
        vector = torch.linalg.solve(gram, self.positive_weight * mine.sum(0))
        errors = -(self.items @ vector)
        errors[profile] = self.positive_weight * (1.0 + errors[profile])
        rise = errors * float(vector @ self.pull)
        is_target = np.isin(profile, self.targets)
        pushed = np.array(profile)[1:][is_target[1:] & ~is_target[:-1]]
        return float(rise[torch.from_numpy(pushed)].sum() / self.targets.size - rise.mean()) / self.unit


@dataclass
class Agent:
    """A network of the value of every action in a state, which learns from a memory of what each action was paid."""

    network: nn.Module
    memory: list[tuple[Tensor, int, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.Adam(self.network.parameters(), 3e-3)

    @torch.no_grad()
    def values(self, state: Tensor) -> Float[np.ndarray, "actions"]:
        return self.network(state).numpy()

    def learn(self, steps: list[tuple[Tensor, int, float]], random: np.random.Generator) -> None:
        """Remember an episode, and take as many steps as it had on what is drawn from memory."""
        self.memory += steps
        del self.memory[:-_REMEMBERED]
        for _ in steps:
            drawn = [self.memory[place] for place in random.integers(len(self.memory), size=_BATCH)]
            states, actions, rewards = zip(*drawn, strict=True)
            taken = self.network(torch.stack(states)).gather(1, torch.tensor(actions)[:, None]).squeeze(1)
            loss = F.smooth_l1_loss(taken, torch.tensor(rewards))
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()


class LokiLike(Attack):
    """Histories by an agent whose actions are clusters of items, or the next target; LOKI-like, not LOKI.

    The state is the mean surrogate vector of the items so far, the share of the history that is done, and whether a
    target would teach anything now. An episode is one history. It is worth by how much one step of the surrogate's
    training on it would raise, for genuine users, the scores of the targets that stand behind other items; the agent is
    paid for each action what that adds. Inside a cluster the item is drawn by chance.

    Source: after the idea of Zhang et al., "Practical Data Poisoning Attack against Next-Item Recommendation", WWW
    2020, whose details were not at hand: the surrogate (matrix factorisation), the clusters (k-means), the network, how
    it learns (what follows an action does not count) and the reward are ours. Figures of LOKI
    must not be compared with those of this attack.

    Args:
        slots: most targets of a fake, at least 1.
        dim: width of the surrogate's vectors, at least 1.
        steps: training steps of the surrogate, at least 1.
        clusters: how many there are, at least 2.
        episodes: histories that the agent practises on, at least 1.
        max_events: the attacker knows users drawn by chance who have at most this many events together, at least 1.
    """

    def __init__(
        self,
        slots: int = 5,
        dim: int = 32,
        steps: int = 100,
        clusters: int = 20,
        episodes: int = 200,
        max_events: int = 200_000,
    ) -> None:
        self.slots = at_least_one_slot(slots)
        if min(dim, steps, episodes, max_events) < 1 or clusters < 2:
            raise ValueError(
                f"dim is {dim}, steps {steps}, episodes {episodes}, max_events {max_events} and clusters {clusters}; "
                "give at least 2 clusters, and at least 1 of all else."
            )
        self.dim, self.steps, self.clusters = dim, steps, clusters
        self.episodes, self.max_events = episodes, max_events

    def forge(self, mission: Mission, random: np.random.Generator) -> list[Int[np.ndarray, "_"]]:
        world = self._world(mission, random)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(random.integers(2**31)))
            network = nn.Sequential(nn.Linear(self.dim + 2, 64), nn.ReLU(), nn.Linear(64, len(world.clusters) + 1))
        agent = Agent(network)
        # Rewards are of any size; the network starts with values around 0 and 1.
        rehearsal = [world.reward(profile.tolist()) for profile in Random(self.slots).forge(mission, random)]
        world.unit = max(float(np.abs(rehearsal).mean()), 1e-12)
        for episode in range(self.episodes):
            curiosity = max(0.1, 1.0 - 1.5 * episode / self.episodes)
            self._play(world, agent, int(random.choice(mission.lengths)), curiosity, random, learns=True)
        return [
            np.array(self._play(world, agent, int(length), 0.1, random, learns=False)) for length in mission.lengths
        ]

    def _world(self, mission: Mission, random: np.random.Generator) -> World:
        surrogate = Surrogate.of(mission, self.max_events, random)
        nobody = torch.zeros(0, mission.n_items)
        start = surrogate.start(0, self.dim, int(random.integers(2**31)))
        factors = surrogate.trained(start, nobody, self.steps).factors
        judges, _ = some_users(surrogate, _JUDGES, random)
        labels = _clusters(factors.items, self.clusters, random)
        labels[mission.targets] = -1
        clusters = [np.flatnonzero(labels == label) for label in range(self.clusters)]
        return World(
            factors.items,
            factors.users[judges].mean(0),
            [members for members in clusters if members.size],
            mission.targets,
            surrogate.positive_weight,
        )

    def _play(
        self, world: World, agent: Agent, length: int, curiosity: float, random: np.random.Generator, learns: bool
    ) -> list[int]:
        """One history; where the agent learns, it is paid for it."""
        profile: list[int] = []
        steps: list[tuple[Tensor, int, float]] = []
        targets = random.permutation(world.targets)[: self.slots].tolist()
        n_pushed, state = 0, self._state(world, profile, length)
        while len(profile) < length:
            left = length - len(profile)
            may_push = left > HELD_OUT and n_pushed < len(targets)
            must_push = n_pushed == 0 and left == HELD_OUT + 1
            free = [np.setdiff1d(members, profile) for members in world.clusters]
            allowed = np.array([not must_push and members.size > 0 for members in free] + [may_push])
            if random.random() < curiosity:
                action = int(random.choice(np.flatnonzero(allowed)))
            else:
                action = int(np.where(allowed, agent.values(state), -np.inf).argmax())
            if action == len(free):
                profile.append(targets[n_pushed])
                n_pushed += 1
            else:
                profile.append(int(random.choice(free[action])))
            if learns:
                paid = world.reward(profile) - (world.reward(profile[:-1]) if len(profile) > 1 else 0.0)
                steps.append((state, action, paid))
            state = self._state(world, profile, length)
        if learns:
            agent.learn(steps, random)
        return profile

    def _state(self, world: World, profile: list[int], length: int) -> Float[Tensor, "Dplus2"]:
        mean = world.items[profile].mean(0) if profile else torch.zeros(self.dim)
        teaches = bool(profile) and profile[-1] not in world.targets
        return torch.cat([mean, torch.tensor([len(profile) / length, float(teaches)])])


def _clusters(vectors: Float[Tensor, "N D"], n: int, random: np.random.Generator) -> Int[np.ndarray, "N"]:
    """The nearest of n centres, after ten rounds of k-means."""
    centres = vectors[torch.from_numpy(random.choice(len(vectors), min(n, len(vectors)), replace=False))].clone()
    nearest = torch.cdist(vectors, centres).argmin(1)
    for _ in range(10):
        sums = torch.zeros_like(centres).index_add_(0, nearest, vectors)
        sizes = torch.bincount(nearest, minlength=len(centres))[:, None]
        centres = torch.where(sizes > 0, sums / sizes.clamp(min=1), centres)
        nearest = torch.cdist(vectors, centres).argmin(1)
    return nearest.numpy()
