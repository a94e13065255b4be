"""Items that did not follow, drawn to stand beside what did."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Int
from torch import Generator, Tensor

from seqrec.catalog import Catalog
from seqrec.data.log import Log

_TRIES = 100


class Negatives:
    """Draws items for users who never had them, in any part of the log, with replacement.

    That no held-out event of a user is drawn as a negative in training is usual, and a little more than a server knows.

    Args:
        log: what every user had.
        catalog: the items, with their training counts.
        n: negatives of each prediction, at least 1.
        exponent: an item is drawn in proportion to this power of its training count, 0 (uniform) or more; an item never
            seen in training counts as seen once.
        seed: where the negatives of validation and test come from, whatever the seed of training, at least 0.

    Raises:
        ValueError: a setting is out of range, or a user had every item.
    """

    def __init__(self, log: Log, catalog: Catalog, n: int = 4, exponent: float = 0.0, seed: int = 0) -> None:
        if n < 1 or exponent < 0 or seed < 0:
            raise ValueError(
                f"n is {n}, exponent is {exponent} and seed is {seed}; draw at least 1 negative, by an exponent of 0 "
                "or more and from a seed of 0 or more."
            )
        self.n, self.seed, self.n_items = n, seed, len(catalog)
        users = np.repeat(np.arange(len(log.offsets) - 1), np.diff(log.offsets))
        self.had = torch.from_numpy(np.unique(users * self.n_items + log.items))
        most = int(torch.bincount(self.had // self.n_items).max()) if len(self.had) else 0
        if most >= self.n_items:
            raise ValueError(
                f"A user had all {self.n_items} items, so there is no negative to draw; leave that user out."
            )
        self.powers = torch.from_numpy(np.maximum(catalog.counts, 1) ** float(exponent))
        self.heaped = self.powers.cumsum(0)

    def draw(self, users: Int[Tensor, "M"], generator: Generator) -> Int[Tensor, "M n"]:
        """Catalog rows of the negatives of each prediction, which is one of these users'."""
        drawn = torch.empty(len(users), self.n, dtype=torch.long)
        wanted = torch.ones_like(drawn, dtype=torch.bool)
        for _ in range(_TRIES):
            if not (n_wanted := int(wanted.sum())):
                return drawn
            coins = torch.rand(n_wanted, generator=generator, dtype=torch.double) * self.heaped[-1]
            drawn[wanted] = torch.searchsorted(self.heaped, coins, right=True).clamp(max=self.n_items - 1)
            keys = users.cpu()[:, None] * self.n_items + drawn
            wanted = self.had[torch.searchsorted(self.had, keys).clamp(max=len(self.had) - 1)] == keys
        # Nearly all that is drawn is what the user had: the rest is drawn among what is left.
        for row, place in wanted.nonzero().tolist():
            first, end = torch.searchsorted(self.had, (users[row].cpu() + torch.arange(2)) * self.n_items)
            left = self.powers.clone()
            left[self.had[first:end] % self.n_items] = 0.0
            drawn[row, place] = torch.multinomial(left, 1, generator=generator)
        return drawn
