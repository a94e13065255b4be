"""A shop that never was: a simulated log whose true next-item distribution is known, to hold models against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from seqrec.data.errors import InputError
from seqrec.data.sources import Source

TREE: dict[str, tuple[str, ...]] = {
    "Outdoor": ("Tents", "Headlamps", "Backpacks", "Stoves", "Boots"),
    "Kitchen": ("Knives", "Kettles", "Saucepans", "Scales", "Mugs"),
    "Music": ("Guitars", "Strings", "Keyboards", "Headphones", "Tuners"),
    "Garden": ("Seeds", "Shears", "Planters", "Hoses", "Gloves"),
    "Studio": ("Brushes", "Easels", "Pigments", "Canvases", "Pencils"),
}
LEAVES = [(department, leaf) for department, leaves in TREE.items() for leaf in leaves]
MAKERS = ("Alder", "Birch", "Cedar", "Elm", "Fir", "Hazel", "Juniper", "Larch", "Maple", "Rowan")
LOOKS = ("Compact", "Classic", "Sturdy", "Light", "Quiet", "Bright", "Folding", "Travel", "Grand", "Everyday")
VERDICTS = ("sent back", "a disappointment", "does the job", "a good buy", "could not be happier with it")
OPENING_DAY = 1_672_531_200  # 1 January 2023, in seconds since 1970
SUCCESSOR_SHARES = (0.6, 0.3, 0.1)


@dataclass(frozen=True)
class _Shelves:
    """What is sold: every item's leaf category, its share of the leaf's demand, and what tends to follow it."""

    leaf: Int[np.ndarray, "N"]
    demand: Float[np.ndarray, "N"]
    follows: Float[np.ndarray, "N N"]


@dataclass(frozen=True)
class _Walks:
    """What was bought, user after user, oldest first; ``begins`` marks the first event of each session."""

    items: Int[np.ndarray, "E"]
    begins: np.ndarray
    offsets: Int[np.ndarray, "bounds"]

    @property
    def owners(self) -> Int[np.ndarray, "E"]:
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))


class SimulatedShop(Source):
    """Users with a lasting taste who shop in short sessions, never buying an item twice.

    Every item stands in one leaf of a two-level category tree; inside a leaf demand falls like Zipf's law, and every
    item has up to three successors in the same leaf. A user's taste is a distribution over leaves. Before each event a
    new session begins with probability ``1 / session_length``: its item is drawn by taste and demand. Otherwise the
    session goes on in the leaf of the newest item: with probability ``pull`` to one of its successors, else by demand.
    Items that the user already has are left out and what remains is scaled to one, for both cases together, so the
    distribution of the next item given taste and history is known exactly (``next_item_distribution``). It does not
    know the time of the coming event, so neither need a model that is compared with it.

    The work grows with events × items: meant for thousands of items, not millions.

    Args:
        users: how many users, at least 1.
        items: how many items, at least 50 (two per leaf).
        seed: the same seed and arguments give the same shop, event by event.
        days: users arrive evenly over this many days from 1 January 2023.
        mean_events: events per user on average, at least 5. No user has fewer than 5 or more than half the items.
        session_length: events per session on average, at least 1.
        pull: how much of a session follows the successors, in [0, 1].
        zipf: exponent of demand inside a leaf, at least 0.

    Raises:
        InputError: an argument is out of its range.
    """

    def __init__(
        self,
        users: int = 2000,
        items: int = 500,
        seed: int = 0,
        days: float = 365.0,
        mean_events: float = 30.0,
        session_length: float = 4.0,
        pull: float = 0.6,
        zipf: float = 1.0,
    ) -> None:
        for name, value, low, high in (
            ("users", users, 1, np.inf),
            ("items", items, 2 * len(LEAVES), np.inf),
            ("seed", seed, 0, np.inf),
            ("days", days, 0, np.inf),
            ("mean_events", mean_events, 5, items / 2),
            ("session_length", session_length, 1, np.inf),
            ("pull", pull, 0, 1),
            ("zipf", zipf, 0, np.inf),
        ):
            if not low <= value <= high:
                raise InputError(
                    f"A simulated shop cannot have {name} = {value}; choose a value from {low:g} to {high:g}."
                )
        self.n_users = users
        self.n_items = items
        self.days = days
        self.mean_events = mean_events
        self.new_session = 1.0 / session_length
        self.pull = pull
        self.zipf = zipf
        streams = np.random.SeedSequence(seed).spawn(5)
        self._seeds = dict(zip(("shelves", "taste", "walks", "clock", "reviews"), streams, strict=True))

    # What a source gives

    def read(self) -> pl.LazyFrame:
        """The log as a shop writes it: all users together, in order of time; ratings from 1 to 5."""
        return self._log.lazy().select("user_id", "item_id", "timestamp", "rating")

    def items(self) -> pl.LazyFrame:
        """Titles and descriptions, both of which carry the category; ``categories`` is department, then leaf."""
        return self._items.lazy()

    def reviews(self) -> pl.LazyFrame:
        """What users wrote, one line per interaction and in the order of ``read``: user_id, item_id, review."""
        verdict = pl.col("rating").cast(pl.Int64).replace_strict(dict(enumerate(VERDICTS, 1)), return_dtype=pl.String)
        review = pl.format("{}: {}.", pl.col("title"), verdict).alias("review")
        titled = self._log.lazy().join(self.items(), on="item_id", maintain_order="left")
        return titled.select("user_id", "item_id", review)

    # What only the shop knows

    @cached_property
    def taste(self) -> Float[np.ndarray, "U L"]:
        """How often each user's sessions begin in each leaf of the tree: departments first, leaves inside them."""
        random = np.random.default_rng(self._seeds["taste"])
        departments = random.dirichlet(_few(len(TREE)), self.n_users)
        parts = [
            departments[:, [place]] * random.dirichlet(_few(len(leaves)), self.n_users)
            for place, leaves in enumerate(TREE.values())
        ]
        return 0.95 * np.concatenate(parts, axis=1) + 0.05 / len(LEAVES)

    def next_item_distribution(self, user_id: str, history: Sequence[str]) -> Float[np.ndarray, "N"]:
        """The exact probability of each item, in the order of ``items()``, to come next.

        Args:
            user_id: whose taste to use.
            history: raw ids of what this user has, oldest first; need not be the simulated history.

        Raises:
            KeyError: the user or an item is not of this shop.
        """
        row_of = {raw: row for row, raw in enumerate(self._item_ids)}
        user = {raw: row for row, raw in enumerate(self._user_ids)}[user_id]
        rows = np.array([row_of[raw] for raw in history], dtype=np.int64)
        weights = self._fresh(np.array([user]))
        if len(rows):
            weights = self.new_session * weights + self._continued[rows[-1:]]
        weights[0, rows] = 0.0
        return weights[0] / weights[0].sum()

    def oracle_distributions(self, place: int = -1) -> Float[np.ndarray, "U N"]:
        """For every user, the distribution from which the event at ``place`` of the history was drawn.

        Args:
            place: -1 for the newest event (leave-one-out's test), -2 for the one before (its validation), to -4.
        """
        if not -4 <= place <= -1:
            raise ValueError(f"place = {place} is not in every history; choose one from -4 to -1.")
        walks, users = self._walks, np.arange(self.n_users)
        target = walks.offsets[1:] + place
        weights = self.new_session * self._fresh(users) + self._continued[walks.items[target - 1]]
        earlier = np.flatnonzero(np.arange(len(walks.items)) < target[walks.owners])
        weights[walks.owners[earlier], walks.items[earlier]] = 0.0
        return weights / weights.sum(axis=1, keepdims=True)

    def oracle_ranks(self, place: int = -1) -> pl.DataFrame:
        """Where the best possible ranking puts each user's event at ``place``: user_id, item_id, rank (0 = best).

        Ties count against the oracle, as they do against a model. Nobody buys an item twice, so seen items have
        probability zero and excluding them changes no rank.
        """
        chances = self.oracle_distributions(place)
        target = self._walks.items[self._walks.offsets[1:] + place]
        own = chances[np.arange(self.n_users), target]
        ranks = (chances >= own[:, None]).sum(axis=1) - 1
        return pl.DataFrame({"user_id": self._user_ids, "item_id": self._item_ids.gather(target), "rank": ranks})

    # How it comes about

    @cached_property
    def _user_ids(self) -> pl.Series:
        return pl.Series("user_id", [f"user-{row:05d}" for row in range(self.n_users)], dtype=pl.String)

    @cached_property
    def _item_ids(self) -> pl.Series:
        return pl.Series("item_id", [f"item-{row:05d}" for row in range(self.n_items)], dtype=pl.String)

    @cached_property
    def _shelves(self) -> _Shelves:
        random = np.random.default_rng(self._seeds["shelves"])
        shuffled = random.permutation(self.n_items)
        leaf = np.empty(self.n_items, dtype=np.int64)
        leaf[shuffled] = np.arange(self.n_items) % len(LEAVES)
        demand = np.empty(self.n_items)
        follows = np.zeros((self.n_items, self.n_items))
        for members in (shuffled[start :: len(LEAVES)] for start in range(len(LEAVES))):
            weights = np.arange(1, len(members) + 1) ** -self.zipf
            demand[members] = weights / weights.sum()
            shares = np.array(SUCCESSOR_SHARES[: len(members) - 1])
            for item in members:
                others = members[members != item]
                wanted = demand[others] / demand[others].sum()
                chosen = random.choice(others, size=len(shares), replace=False, p=wanted)
                follows[item, chosen] = shares / shares.sum()
        return _Shelves(leaf, demand, follows)

    @cached_property
    def _continued(self) -> Float[np.ndarray, "N N"]:
        """Weight of each next item after each newest one, when the session goes on."""
        shelves = self._shelves
        neighbours = shelves.demand * (shelves.leaf[:, None] == shelves.leaf)
        return (1.0 - self.new_session) * (self.pull * shelves.follows + (1.0 - self.pull) * neighbours)

    def _fresh(self, users: Int[np.ndarray, "some"]) -> Float[np.ndarray, "some N"]:
        """Distribution of an item that opens a session, nothing excluded."""
        return self.taste[users][:, self._shelves.leaf] * self._shelves.demand

    @cached_property
    def _lengths(self) -> Int[np.ndarray, "U"]:
        random = np.random.default_rng(self._seeds["walks"].spawn(1)[0])
        extra = random.gamma(2.0, max(self.mean_events - 5.0, 1e-9) / 2.0, self.n_users)
        return np.minimum(5 + np.rint(extra).astype(np.int64), self.n_items // 2)

    @cached_property
    def _walks(self) -> _Walks:
        """All users take their next step together; those who walk longest come first, so the others just drop out."""
        random = np.random.default_rng(self._seeds["walks"])
        lengths = self._lengths
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        items, begins = np.empty(offsets[-1], dtype=np.int64), np.ones(offsets[-1], dtype=bool)
        for some in np.array_split(np.argsort(-lengths, kind="stable"), -(-self.n_users * self.n_items // 2**21)):
            fresh = self._fresh(some)
            opening = fresh * self.new_session
            unseen = np.ones_like(fresh)
            newest = _draw(fresh, random)
            items[offsets[some]] = newest
            for step in range(1, lengths[some].max()):
                going = int((lengths[some] > step).sum())
                rows = np.arange(going)
                unseen[rows, newest[:going]] = 0.0
                weights = (opening[:going] + self._continued[newest[:going]]) * unseen[:going]
                newest = _draw(weights, random)
                place = offsets[some[:going]] + step
                items[place] = newest
                # Given the item, how likely is it that it opened a session? (Bayes: the two cases share one scale.)
                begins[place] = random.random(going) * weights[rows, newest] < opening[rows, newest]
        return _Walks(items, begins, offsets)

    @cached_property
    def _log(self) -> pl.DataFrame:
        walks = self._walks
        random = np.random.default_rng(self._seeds["clock"])
        minutes = 1 + random.lognormal(np.log(90.0), 1.0, len(walks.items)).astype(np.int64)
        rests = 3600 + random.lognormal(np.log(4 * 86_400.0), 1.0, len(walks.items)).astype(np.int64)
        arrivals = (random.random(self.n_users) * self.days * 86_400).astype(np.int64)
        gaps = np.where(walks.begins, rests, minutes)
        gaps[walks.offsets[:-1]] = 0
        clock = np.cumsum(gaps)
        clock += np.repeat(OPENING_DAY + arrivals - clock[walks.offsets[:-1]], np.diff(walks.offsets))
        random = np.random.default_rng(self._seeds["reviews"])
        liking = self.taste[walks.owners, self._shelves.leaf[walks.items]] / self.taste.max(axis=1)[walks.owners]
        rating = np.clip(np.rint(3.0 + 1.5 * liking + random.normal(0.0, 0.8, len(liking))), 1, 5)
        table = pl.DataFrame(
            {
                "user_id": self._user_ids.gather(walks.owners),
                "item_id": self._item_ids.gather(walks.items),
                "timestamp": clock,
                "rating": rating.astype(np.float32),
            }
        )
        return table.sort("timestamp", maintain_order=True)

    @cached_property
    def _items(self) -> pl.DataFrame:
        random = np.random.default_rng(self._seeds["shelves"].spawn(1)[0])
        rows = []
        for item_id, leaf in zip(self._item_ids, self._shelves.leaf, strict=True):
            department, category = LEAVES[leaf]
            maker, look = random.choice(MAKERS), random.choice(LOOKS)
            title = f"{maker} {look} {category}, model {item_id[-5:]}"
            text = f"{look} {category.lower()} made by {maker}, from our {department.lower()} department."
            rows.append((item_id, title, text, [department, category]))
        schema = {"item_id": pl.String, "title": pl.String, "text": pl.String, "categories": pl.List(pl.String)}
        return pl.DataFrame(rows, schema=schema, orient="row")


def _few(categories: int) -> Float[np.ndarray, "categories"]:
    """Dirichlet weights under which a user likes few of these categories, and more users like the first ones."""
    weights = 1.0 / np.arange(1, categories + 1)
    return 0.4 * categories * weights / weights.sum()


def _draw(weights: Float[np.ndarray, "some N"], random: np.random.Generator) -> Int[np.ndarray, "some"]:
    """One column per row, in proportion to its weight; a column without weight is never drawn."""
    heights = np.cumsum(weights, axis=1)
    # random() is below 1, so the mark lies below the total and the first column above it has weight.
    marks = random.random(len(weights)) * heights[:, -1]
    return (heights <= marks[:, None]).sum(axis=1)
