"""Which items an attack pushes: some of a bucket of popularity, by clean training counts."""

from __future__ import annotations

from enum import Enum

import numpy as np
from jaxtyping import Bool, Int

from seqrec.data.errors import InputError


class Bucket(Enum):
    """Items by the percentiles between which their training counts lie; the lower bound belongs to it.

    ``tail`` is below the median, ``lower_torso`` from there to the 75th, ``upper_torso`` to the 95th, ``head`` above.
    Source: the released code of Tang et al., "Revisiting Adversarially Learned Injection Attacks Against Recommender
    Systems", RecSys 2020.
    """

    tail = (None, 50)
    lower_torso = (50, 75)
    upper_torso = (75, 95)
    head = (95, None)

    def members(self, counts: Int[np.ndarray, "N"]) -> Bool[np.ndarray, "N"]:
        """Which items lie in the bucket."""
        lower, upper = self.value
        above = np.ones(counts.size, dtype=bool) if lower is None else counts >= np.percentile(counts, lower)
        return above if upper is None else above & (counts < np.percentile(counts, upper))

    def draw(self, counts: Int[np.ndarray, "N"], n: int, random: np.random.Generator) -> Int[np.ndarray, "n"]:
        """n different items of the bucket, each as likely as another, in ascending order of rows.

        Raises:
            InputError: the bucket has fewer.
        """
        rows = np.flatnonzero(self.members(counts))
        if rows.size < n:
            others = ", ".join(f"{each.name} {int(each.members(counts).sum())}" for each in Bucket)
            raise InputError(
                f"The bucket {self.name} has {rows.size} items, but {n} targets are wanted; choose another with "
                f"--targets ({others}), or fewer with --n_targets."
            )
        return np.sort(random.choice(rows, n, replace=False))
