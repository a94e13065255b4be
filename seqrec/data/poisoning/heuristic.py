"""Attacks that need no model: random fillers, popular fillers, and copies of real users."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

from seqrec.data.poisoning.base import Attack, Mission, assemble, draw_targets


class Random(Attack):
    """Some targets among items drawn uniformly.

    Args:
        slots: how often a target is drawn for each fake, with replacement, at least 1; what is drawn twice comes once.
    """

    def __init__(self, slots: int = 5) -> None:
        self.slots = at_least_one_slot(slots)

    def forge(self, mission: Mission, random: np.random.Generator) -> list[Int[np.ndarray, "_"]]:
        fillers, profiles = mission.fillers, []
        for length in mission.lengths:
            targets = draw_targets(mission.targets, self.slots, int(length), random)
            profiles.append(assemble(targets, random.choice(fillers, length - targets.size, replace=False), random))
        return profiles


class Bandwagon(Attack):
    """As ``Random``, but a share of the fillers are popular, so that the targets keep company that many know.

    Source: the variant in the released code of Huang et al., "Data Poisoning Attacks to Deep Learning Based Recommender
    Systems", NDSS 2021.

    Args:
        slots: as in ``Random``.
        popular: share of the fillers that are drawn from the most popular items, beside those that chance brings, and
            how many items count as popular, as a share of the catalog; in (0, 1).
    """

    def __init__(self, slots: int = 5, popular: float = 0.1) -> None:
        self.slots = at_least_one_slot(slots)
        if not 0 < popular < 1:
            raise ValueError(f"popular is {popular}; a share between 0 and 1 of the fillers are popular, e.g. 0.1.")
        self.popular = popular

    def forge(self, mission: Mission, random: np.random.Generator) -> list[Int[np.ndarray, "_"]]:
        by_count = mission.fillers[np.argsort(-mission.counts[mission.fillers], kind="stable")]
        head = by_count[: max(1, round(self.popular * mission.n_items))]
        profiles = []
        for length in mission.lengths:
            targets = draw_targets(mission.targets, self.slots, int(length), random)
            n = length - targets.size
            # The share of short profiles is right on average: a part of an event is one by chance.
            wanted = int(self.popular * n + random.random())
            popular = random.choice(head, min(wanted, head.size), replace=False)
            others = random.choice(np.setdiff1d(mission.fillers, popular), n - popular.size, replace=False)
            profiles.append(assemble(targets, random.permutation(np.concatenate([popular, others])), random))
        return profiles


class ProfileCopy(Attack):
    """The newest events of a real user, in order, with targets among them: fakes that are hard to tell by their taste.

    Real users with enough different items are drawn; where none has, one of those who have most is, and items drawn
    uniformly stand before the copy.

    Args:
        slots: as in ``Random``.
    """

    def __init__(self, slots: int = 5) -> None:
        self.slots = at_least_one_slot(slots)

    def forge(self, mission: Mission, random: np.random.Generator) -> list[Int[np.ndarray, "_"]]:
        seen = np.unique(mission.owners * mission.n_items + mission.items)
        seen = seen[~np.isin(seen % mission.n_items, mission.targets)]
        variety = np.bincount(seen // mission.n_items, minlength=mission.n_users)
        profiles = []
        for length in mission.lengths:
            targets = draw_targets(mission.targets, self.slots, int(length), random)
            n = length - targets.size
            models = np.flatnonzero(variety >= min(n, variety.max()))
            copied = _without_repeats(mission.history(int(random.choice(models))), mission.targets)[-n:]
            others = np.setdiff1d(mission.fillers, copied)
            strange = random.choice(others, n - copied.size, replace=False)
            profiles.append(assemble(targets, np.concatenate([strange, copied]), random))
        return profiles


def at_least_one_slot(slots: int) -> int:
    if slots < 1:
        raise ValueError(f"slots is {slots}; a fake user pushes at least 1 target, e.g. 5.")
    return slots


def _without_repeats(history: Int[np.ndarray, "n"], barred: Int[np.ndarray, "barred"]) -> Int[np.ndarray, "m"]:
    """The last event of each item that is not barred, in order."""
    newest_first = history[::-1]
    places = np.sort(np.unique(newest_first, return_index=True)[1])
    kept = newest_first[places][::-1]
    return kept[~np.isin(kept, barred)]
