"""Histories that are known to be fake, because somebody made them up to show a defence what a fake looks like."""

from __future__ import annotations

import numpy as np

from seqrec.data.log import Log
from seqrec.data.poisoning.base import HELD_OUT, Attack, Mission, clock_of_a_fake, end_to_end, forged, sample_lengths
from seqrec.data.poisoning.heuristic import Random
from seqrec.data.protocol import Part
from seqrec.sequences import Sequences


class KnownFraudsters:
    """Simulated fake users, each with targets of its own, drawn anew from all items.

    What an attack in the data pushes is no target of theirs, and they know nothing else of it. As all users, they lack
    the newest two events in training. Their lengths are drawn as those of fakes are, so where genuine histories are
    short, most of them and of the fakes are just as long.

    Source: the known fraudsters of Zhang et al., LoRec, SIGIR 2024. How that paper makes its own is not known; this is
    a choice of ours.

    Args:
        attack: makes up each history; None is ``Random()``. An attack that learns is started anew for every one.
        share: how many there are, as a share of the users of training, in (0, 1].
        n_targets: items that each of them pushes, at least 1.
        seed: where they come from, whatever the seed of the run or of an attack, at least 0.
    """

    def __init__(
        self, attack: Attack | None = None, share: float = 0.02, n_targets: int = 5, seed: int = 271_828
    ) -> None:
        if not 0 < share <= 1 or n_targets < 1 or seed < 0:
            raise ValueError(
                f"share is {share}, n_targets {n_targets} and seed {seed}; known fraudsters are a share of the users "
                "above 0 and at most 1, e.g. 0.02, push at least 1 item, and come from a seed of 0 or more."
            )
        self.attack, self.share, self.n_targets, self.seed = attack or Random(), share, n_targets, seed

    def histories(self, log: Log, train: Part) -> Sequences:
        """What training would read of them, given what it reads of users, whoever these are."""
        random = np.random.default_rng(self.seed)
        items, offsets = end_to_end(log, train)
        n_items = len(log.catalog)
        counts = np.bincount(items, minlength=n_items)
        n = max(1, round(self.share * len(train)))
        open_to_them = np.setdiff1d(np.arange(n_items), log.manifest.get("poison", {}).get("target_rows", []))
        histories, times = [], []
        for length in sample_lengths(train.lengths, n, n_items - self.n_targets + 1, random):
            targets = np.sort(random.choice(open_to_them, self.n_targets, replace=False))
            mission = Mission(items, offsets, counts, targets, np.array([length]))
            (profile,) = forged(self.attack, mission, random)
            histories.append(profile[:-HELD_OUT].tolist())
            times.append(clock_of_a_fake(log, len(profile), random)[:-HELD_OUT].tolist())
        return Sequences.pack(histories, times)


def nobody() -> Sequences:
    """No histories, with times."""
    return Sequences.pack([], [])
