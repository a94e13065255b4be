"""A log with a lasting taste that only old events show: the next item's distribution with and without them is known."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from seqrec.data.errors import InputError
from seqrec.data.simulated import LEAVES, LOOKS, MAKERS, OPENING_DAY, TREE
from seqrec.data.sources import Source

FAITH = 0.8
GROCERIES = ("Bread", "Milk", "Apples", "Rice", "Soap", "Coffee", "Onions", "Eggs", "Candles", "Tea")
# What an event is, as a number: a product of leaf 0 … 24, or a grocery.
GROCERY = len(LEAVES)
DEPARTMENTS = np.arange(len(LEAVES)).reshape(len(TREE), -1)


class SimulatedLongTaste(Source):
    """Users who once had time for their hobbies, now run errands, and still want their old favourites.

    Every user has a favourite product in each leaf of the simulated shop's category tree, all products of a leaf
    equally likely and all leaves independent: that is the taste. A visit to a department goes round its leaves in the
    order of the tree, from any of them to the one before it, with one product each: the favourite with probability
    ``FAITH``, else any product of the leaf. The ``older`` events are visits to every department in turn, and at most
    four groceries after them. The newest ``recent + 2`` events are groceries, drawn by Zipf's law for everyone alike,
    and visits, each to another department. The last visit breaks off with the history, after three products or more.

    So the targets of leave-one-out, the two newest events, are products of leaves that the ``recent`` events before
    them say nothing of. From these follows the leaf, and all its products are equally likely; the older events of the
    leaf tell which one is the favourite. Both distributions are exact, by Bayes' rule. Products come again and again,
    so a protocol that excludes what a user already has would drop most targets.

    Args:
        users: how many users, at least 1.
        items: how many items, at least 100: three in four are products, as many in each leaf; the rest are groceries.
        older: events of a user that show the taste, at least 29: a visit to each department and the groceries.
        recent: events before a target that say nothing of what it asks for, at least 3. From 10 on they hold a visit
            besides the last one, from 20 on two, up to four.
        seed: the same seed and arguments give the same log, event by event.

    Raises:
        InputError: an argument is out of its range.
    """

    def __init__(self, users: int = 3000, items: int = 1000, older: int = 150, recent: int = 50, seed: int = 0) -> None:
        longest = DEPARTMENTS.shape[1]
        for name, value, least in (
            ("users", users, 1),
            ("items", items, 4 * len(LEAVES)),
            ("older", older, DEPARTMENTS.size + longest - 1),
            ("recent", recent, longest - 2),
            ("seed", seed, 0),
        ):
            if value < least:
                raise InputError(f"A simulated long taste cannot have {name} = {value}; choose {least} or more.")
        self.n_users = users
        self.n_items = items
        self.n_of_leaf = 3 * items // (4 * len(LEAVES))
        self.n_products = self.n_of_leaf * len(LEAVES)
        self.older = older
        self.recent = recent
        streams = np.random.SeedSequence(seed).spawn(3)
        self._seeds = dict(zip(("taste", "lives", "draws"), streams, strict=True))

    # What a source gives

    def read(self) -> pl.LazyFrame:
        """The log in order of time, one event of every user an hour."""
        n_users, n_events = self._rows.shape
        return pl.LazyFrame(
            {
                "user_id": self._user_ids.gather(np.tile(np.arange(n_users), n_events)),
                "item_id": self._item_ids.gather(self._rows.T.ravel()),
                "timestamp": np.repeat(OPENING_DAY + 3600 * np.arange(n_events), n_users),
            }
        )

    def items(self) -> pl.LazyFrame:
        """Titles and descriptions, which carry the leaf; ``categories`` is department, then leaf."""
        about = []
        for department, leaf in LEAVES:
            for number in range(self.n_of_leaf):
                maker, look = MAKERS[number % len(MAKERS)], LOOKS[number // len(MAKERS) % len(LOOKS)]
                text = f"{look} {leaf.lower()} made by {maker}."
                about.append((f"{maker} {look} {leaf}, model {number + 1}", text, [department, leaf]))
        for number in range(self.n_items - self.n_products):
            name = GROCERIES[number % len(GROCERIES)]
            about.append((f"{name} no. {number // len(GROCERIES) + 1}", f"{name}, a grocery.", ["Groceries", name]))
        schema = {"title": pl.String, "text": pl.String, "categories": pl.List(pl.String)}
        return pl.DataFrame(about, schema=schema, orient="row").insert_column(0, self._item_ids).lazy()

    # What only the simulation knows

    @cached_property
    def taste(self) -> Int[np.ndarray, "U L"]:
        """Which product of each leaf is the favourite of each user, from 0."""
        random = np.random.default_rng(self._seeds["taste"])
        return random.integers(self.n_of_leaf, size=(self.n_users, len(LEAVES)))

    def next_item_distribution(self, history: Sequence[str], knows_old: bool = True) -> Float[np.ndarray, "N"]:
        """The exact probability of each item, in the order of ``items()``, to come next, if the visit goes on.

        Args:
            history: raw ids of what a user has, oldest first; the newest is a product.
            knows_old: whether all of the history may be used, or its newest ``recent`` events only.

        Raises:
            KeyError: an item is not of this log.
            ValueError: the newest event is a grocery, no part of a visit.
        """
        row_of = {raw: row for row, raw in enumerate(self._item_ids)}
        return self._chances(np.array([row_of[raw] for raw in history], dtype=np.int64), knows_old)

    def oracle_distributions(self, place: int = -1, knows_old: bool = True) -> Float[np.ndarray, "U N"]:
        """For every user, the distribution of the event at ``place``, given all events before it or the recent ones.

        Args:
            place: -1 for the newest event (leave-one-out's test), -2 for the one before (its validation).
            knows_old: see ``next_item_distribution``.
        """
        if place not in (-1, -2):
            raise ValueError(f"place = {place} is not within the last visit of every user; choose -1 or -2.")
        return np.stack([self._chances(history[:place], knows_old) for history in self._rows])

    def oracle_ranks(self, place: int = -1, knows_old: bool = True) -> pl.DataFrame:
        """Where the best possible ranking puts each user's event at ``place``: user_id, item_id, rank (0 = best).

        Items that are equally likely stand in the order of ``items()``: any other is as good on average. No item is
        excluded.
        """
        chances = self.oracle_distributions(place, knows_old)
        target = self._rows[:, place]
        own = chances[np.arange(self.n_users), target][:, None]
        ahead = (chances > own) | ((chances == own) & (np.arange(self.n_items) < target[:, None]))
        items = self._item_ids.gather(target)
        return pl.DataFrame({"user_id": self._user_ids, "item_id": items, "rank": ahead.sum(axis=1)})

    def _chances(self, history: Int[np.ndarray, "T"], knows_old: bool) -> Float[np.ndarray, "N"]:
        if history[-1] >= self.n_products:
            raise ValueError(
                f"{self._item_ids[int(history[-1])]} is a grocery, no part of a visit; end with a product."
            )
        department, place = divmod(int(history[-1]) // self.n_of_leaf, DEPARTMENTS.shape[1])
        leaf = np.roll(DEPARTMENTS[department], -1)[place]
        known = history if knows_old else history[-self.recent :]
        bought = known[known // self.n_of_leaf == leaf] % self.n_of_leaf
        times = np.bincount(bought, minlength=self.n_of_leaf)
        # Every time that a product was bought makes it so much likelier to be the favourite: Bayes' rule.
        others = (1 - FAITH) / self.n_of_leaf
        favourite = ((FAITH + others) / others) ** (times - times.max())
        chances = np.zeros(self.n_items)
        chances[leaf * self.n_of_leaf :][: self.n_of_leaf] = FAITH * favourite / favourite.sum() + others
        return chances

    # How it comes about

    @cached_property
    def _user_ids(self) -> pl.Series:
        return pl.Series("user_id", [f"user-{row:05d}" for row in range(self.n_users)], dtype=pl.String)

    @cached_property
    def _item_ids(self) -> pl.Series:
        return pl.Series("item_id", [f"item-{row:05d}" for row in range(self.n_items)], dtype=pl.String)

    @cached_property
    def _rows(self) -> Int[np.ndarray, "U E"]:
        """The item of every event. Taste, lives and draws have generators of their own: none depends on another.

        Rows are products by leaf, then groceries.
        """
        lives = np.random.default_rng(self._seeds["lives"])
        kinds = np.stack([self._life(lives) for _ in range(self.n_users)])
        random = np.random.default_rng(self._seeds["draws"])
        is_faithful = random.random(kinds.shape) < FAITH
        product = random.integers(self.n_of_leaf, size=kinds.shape)
        demand = 1 / np.arange(1, self.n_items - self.n_products + 1)
        grocery = self.n_products + random.choice(demand.size, size=kinds.shape, p=demand / demand.sum())
        leaf = np.minimum(kinds, GROCERY - 1)
        product = np.where(is_faithful, np.take_along_axis(self.taste, leaf, axis=1), product)
        return np.where(kinds == GROCERY, grocery, leaf * self.n_of_leaf + product)

    def _life(self, random: np.random.Generator) -> Int[np.ndarray, "E"]:
        """What each event of one user is; the taste has no part in it."""
        visits = [visit for _ in range(-(-self.older // DEPARTMENTS.size)) for visit in _tour(random)]
        # Without these every older event of a visit would have the same distance to the end for all users.
        pause = [GROCERY] * random.integers(visits[0].size)
        *others, last = _tour(random)
        last = last[: random.integers(3, last.size + 1)]
        others = others[: self.recent // (2 * others[0].size)]
        errands = [[GROCERY]] * (self.recent + 2 - sum(map(len, [*others, last])))
        blocks = [*others, *errands]
        recent = [blocks[number] for number in random.permutation(len(blocks))]
        return np.concatenate([np.concatenate([*visits, pause])[-self.older :], *recent, last]).astype(np.int64)


def _tour(random: np.random.Generator) -> list[Int[np.ndarray, "leaves"]]:
    """A visit to every department, in any order: its leaves, from any of them round to the one before it."""
    return [np.roll(leaves, random.integers(leaves.size)) for leaves in random.permutation(DEPARTMENTS)]
