"""What an attack is: from what an attacker knows to the histories of fake users who push chosen items."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from seqrec.data.log import Log
from seqrec.data.protocol import Part

# Training drops the newest two events of everybody, so a target there would push nothing.
HELD_OUT = 2
SHORTEST, LONGEST = 10, 50


@dataclass(frozen=True)
class Mission:
    """What an attacker knows, wants and may spend.

    Attributes:
        items: training events of the genuine users, history after history.
        offsets: genuine user ``u`` owns events ``offsets[u]`` up to ``offsets[u + 1]``.
        counts: how often each item of the catalog occurs among them.
        targets: rows of the items to push, each once.
        lengths: events of each fake user; as many fakes as lengths are wanted.
    """

    items: Int[np.ndarray, "E"]
    offsets: Int[np.ndarray, "bounds"]
    counts: Int[np.ndarray, "N"]
    targets: Int[np.ndarray, "targets"]
    lengths: Int[np.ndarray, "F"]

    @property
    def n_items(self) -> int:
        return self.counts.size

    @property
    def n_users(self) -> int:
        return self.offsets.size - 1

    @property
    def fillers(self) -> Int[np.ndarray, "fillers"]:
        """Every item that is not pushed."""
        return np.setdiff1d(np.arange(self.n_items), self.targets)

    @property
    def owners(self) -> Int[np.ndarray, "E"]:
        """The user of each event."""
        return np.repeat(np.arange(self.n_users), np.diff(self.offsets))

    def history(self, user: int) -> Int[np.ndarray, "n"]:
        return self.items[self.offsets[user] : self.offsets[user + 1]]


class Attack(ABC):
    """Makes up fake users."""

    @abstractmethod
    def forge(self, mission: Mission, random: np.random.Generator) -> list[Int[np.ndarray, "_"]]:
        """One history per length of the mission: different items, oldest first.

        At least one of them is a target, and none of the newest ``HELD_OUT`` is. All randomness comes from ``random``.
        """


def forged(attack: Attack, mission: Mission, random: np.random.Generator) -> list[Int[np.ndarray, "_"]]:
    """What the attack makes up, once it is seen to obey the contract."""
    profiles = attack.forge(mission, random)
    name = type(attack).__name__
    assert [len(profile) for profile in profiles] == mission.lengths.tolist(), f"{name} made up other lengths"
    for profile in profiles:
        assert len(set(profile.tolist())) == len(profile), f"{name} repeats an item"
        assert 0 <= profile.min() <= profile.max() < mission.n_items, f"{name} made up an item"
        pushes = np.isin(profile, mission.targets)
        assert pushes[:-HELD_OUT].any(), f"{name} pushes nothing where training looks"
        assert not pushes[-HELD_OUT:].any(), f"{name} pushes where training does not look"
    return profiles


def sample_lengths(
    lengths: Int[np.ndarray, "U"], n: int, most: int, random: np.random.Generator
) -> Int[np.ndarray, "n"]:
    """Lengths of n fake users, drawn from those of genuine ones and held between 10 and 50 events, or ``most``."""
    return random.choice(lengths, n).clip(SHORTEST, LONGEST).clip(max=most).astype(np.int64)


def end_to_end(log: Log, part: Part) -> tuple[Int[np.ndarray, "E"], Int[np.ndarray, "bounds"]]:
    """The events of some slices, one slice after the other, and where each begins and ends."""
    offsets = np.append(0, np.cumsum(part.lengths))
    at = np.arange(offsets[-1]) + np.repeat(part.starts - offsets[:-1], part.lengths)
    return np.asarray(log.items)[at].astype(np.int64), offsets


def clock_of_a_fake(log: Log, length: int, random: np.random.Generator) -> Int[np.ndarray, "n"]:
    """Times of a fake: moments between the first and the last event of some user, or places where no clock was kept."""
    if log.manifest.get("unit_of_times") == "position":
        return np.arange(length, dtype=np.int64)
    user = int(random.choice(np.flatnonzero(np.diff(log.offsets))))
    first, last = int(log.times[log.offsets[user]]), int(log.times[log.offsets[user + 1] - 1])
    return np.sort(random.integers(first, last, length, endpoint=True))


def draw_targets(
    targets: Int[np.ndarray, "targets"], slots: int, length: int, random: np.random.Generator
) -> Int[np.ndarray, "some"]:
    """The targets of one fake user: what fills this many slots when drawn with replacement, each once, as they come."""
    drawn = random.choice(targets, max(1, min(slots, length - HELD_OUT)))
    return drawn[np.sort(np.unique(drawn, return_index=True)[1])]


def assemble(
    targets: Int[np.ndarray, "some"], fillers: Int[np.ndarray, "rest"], random: np.random.Generator
) -> Int[np.ndarray, "n"]:
    """One history: targets at random places, never among the newest two, and the fillers around them as they come."""
    length = targets.size + fillers.size
    is_target = np.zeros(length, dtype=bool)
    is_target[random.choice(length - HELD_OUT, targets.size, replace=False)] = True
    history = np.empty(length, dtype=np.int64)
    history[is_target], history[~is_target] = targets, fillers
    return history


def strongest(
    scores: np.ndarray, n: int, barred: Int[np.ndarray, "barred"] | Bool[np.ndarray, "N"]
) -> Int[np.ndarray, "n"]:
    """The n items of highest score that are not barred, the highest first."""
    open_to_all = scores.astype(np.float64)
    open_to_all[barred] = -np.inf
    return np.argsort(-open_to_all, kind="stable")[:n]
