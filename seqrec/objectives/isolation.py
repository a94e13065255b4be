"""Users whose profiles are odd, by a few plain statistics, are dropped from training."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float

from seqrec.audience import Audience
from seqrec.objectives.users import UserReweighter
from seqrec.sequences import Sequences

FEATURES = (
    *("events", "mean popularity", "spread of popularity", "share of unpopular items", "share of popular items"),
    *("share of known transitions", "share of repeats"),
)


class IsolationForest(UserReweighter):
    """An isolation forest over profile statistics, once, beforehand: the oddest share of users has weight 0.

    It learns from no example of a fraud. The statistics are ``FEATURES``; popularity is what training holds, fakes
    included, for nobody who trains knows who they are.

    Source: Liu, Ting and Zhou, "Isolation Forest", ICDM 2008, as in scikit-learn.

    Args:
        share: how many users are dropped, in (0, 0.5].
        n_trees: trees of the forest, at least 1.
        seed: where the trees come from, at least 0.

    Raises:
        ValueError: a setting is out of range.
    """

    def __init__(self, share: float = 0.02, n_trees: int = 200, seed: int = 0) -> None:
        super().__init__()
        if not 0 < share <= 0.5 or n_trees < 1 or seed < 0:
            raise ValueError(
                f"share is {share}, n_trees {n_trees} and seed {seed}; drop a share of users above 0 and at most 0.5, "
                "with at least 1 tree, from a seed of 0 or more."
            )
        self.share, self.n_trees, self.seed = share, n_trees, seed

    def begin(self, audience: Callable[[], Audience]) -> None:
        if self.weights is not None:  # a resumed run has decided already
            return
        try:
            from sklearn import ensemble
        except ImportError as missing:
            raise ImportError("IsolationForest needs scikit-learn; run pip install 'seqrec[robustness]'.") from missing
        everyone = audience()
        statistics = profile_statistics(everyone.histories, len(everyone.catalog))
        forest = ensemble.IsolationForest(
            n_estimators=self.n_trees,
            contamination=self.share,  # pyright: ignore[reportArgumentType]
            random_state=self.seed,
        ).fit(statistics)
        oddness = torch.from_numpy(-forest.score_samples(statistics)).float()
        flagged = torch.from_numpy(forest.predict(statistics) < 0)
        all_users = torch.zeros(everyone.n_users)
        self.weights = 1 - all_users.index_copy(0, everyone.users, flagged.float())
        suspicion = all_users.index_copy(0, everyone.users, oddness)
        self.trail.decided(0, self.weights, self.weights == 0, suspicion)


def profile_statistics(histories: Sequences, n_items: int) -> Float[np.ndarray, "B features"]:
    """The ``FEATURES`` of each history; popularity is the logarithm of 1 + how often an item occurs in all of them."""
    items, owners, n = histories.items.numpy(), histories.owners.numpy(), len(histories)
    lengths = histories.lengths.numpy().astype(np.float64)
    popularity = np.log1p(np.bincount(items, minlength=n_items))
    low, high = np.percentile(popularity, [50, 95])

    def mean(values: np.ndarray, of: np.ndarray = owners) -> np.ndarray:
        counts = np.bincount(of, minlength=n)
        return np.bincount(of, values, minlength=n) / np.maximum(counts, 1)

    own = popularity[items]
    centre = mean(own)
    follows = owners[1:] == owners[:-1]
    pairs = (items[:-1] * n_items + items[1:])[follows]
    _, which, often = np.unique(pairs, return_inverse=True, return_counts=True)
    beside = owners[1:][follows]
    repeats = lengths - np.bincount(np.unique(owners * n_items + items) // n_items, minlength=n)
    return np.stack(
        [
            np.log1p(lengths),
            centre,
            np.sqrt(mean((own - centre[owners]) ** 2)),
            mean((own < low).astype(np.float64)),
            mean((own > high).astype(np.float64)),
            mean((often[which] > 1).astype(np.float64), beside),
            repeats / lengths,
        ],
        axis=1,
    )
