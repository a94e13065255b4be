"""Answers which items come next, in raw ids, from a bundle alone: no training code and no training data."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from seqrec.data.errors import InputError
from seqrec.export.bundle import Bundle, read_bundle
from seqrec.export.histories import HistoryFile, answers_file
from seqrec.ops import ranking
from seqrec.recommenders.base import TopK
from seqrec.recommenders.sequential import SequentialRecommender
from seqrec.sequences import Sequences

# Candidates beyond k and the seen items, so that rounding inside FAISS rarely asks for a second search.
_MARGIN = 32
_HISTORIES_PER_BATCH = 1024
_EVENTS_PER_BATCH = 16_384
_NAMED = 5


@dataclass(frozen=True)
class Recommendation:
    """One recommended item: its raw id, a name that a person can read, and its score."""

    item_id: str
    title: str
    score: float


class Retriever:
    """Recommends from a bundle, exactly what the recommender itself would.

    Args:
        bundle: what ``read_bundle`` returns.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.recommender = bundle.recommender.eval()
        self.catalog = bundle.recommender.catalog
        self.index = bundle.index
        self.max_length = bundle.max_length
        self.users = bundle.users
        self._row_of_user = {} if bundle.users is None else {raw: row for row, raw in enumerate(bundle.users.ids)}
        self._reads_clock, self._reads_asked_at = self.recommender.reads_clock, self.recommender.reads_asked_at
        self._ids, self._titles = self.catalog.ids.to_list(), self.catalog.titles.to_list()

    @classmethod
    def load(cls, folder: Path | str) -> Retriever:
        """Open the bundle in this folder.

        Raises:
            InputError: a file is missing or differs from what was exported, or a newer seqrec wrote it.
            ModuleNotFoundError: FAISS is not installed.
        """
        return cls(read_bundle(Path(folder)))

    def recommend(
        self,
        history: Sequence[str],
        k: int = 10,
        exclude_seen: bool = True,
        times: Sequence[int] | None = None,
        asked_at: int | None = None,
        *,
        allow: Collection[str] | None = None,
        deny: Collection[str] = (),
        categories: Collection[str] | None = None,
    ) -> list[Recommendation]:
        """The k best items to follow a history of raw ids, best first; fewer where the catalog has no more.

        Args:
            history: raw item ids, oldest first. Unknown ones are named in a warning and skipped.
            k: length of the list, at least 1.
            exclude_seen: whether items of the history are left out.
            times: when each of them happened, in seconds since 1970; some models read it.
            asked_at: the moment for which is recommended, in seconds since 1970; some models read it.
            allow: raw ids of the only items that may be recommended; None allows all.
            deny: raw ids of items that may not be recommended.
            categories: only items of any of these may be recommended; None allows all.

        Raises:
            InputError: no item of the history is known, or the model reads times that were not given.
        """
        answer = self.recommend_many(
            [history],
            k,
            exclude_seen,
            None if times is None else [times],
            asked_at,
            allow=allow,
            deny=deny,
            categories=categories,
        )[0]
        if not answer:
            raise InputError(
                f"None of the {len(history)} items of the history is in the catalog; give at least one that is."
            )
        return answer

    @torch.no_grad()
    def recommend_user(
        self,
        user: str,
        recent: Sequence[str] = (),
        k: int = 10,
        exclude_seen: bool = True,
        times: Sequence[int] | None = None,
        asked_at: int | None = None,
        *,
        allow: Collection[str] | None = None,
        deny: Collection[str] = (),
        categories: Collection[str] | None = None,
    ) -> list[Recommendation]:
        """The k best items for a user whom the bundle remembers, without reading their past again.

        Args:
            user: raw id of the user.
            recent: raw ids of what the user did since, oldest first. Unknown ones are named in a warning and skipped.
            k: length of the list, at least 1.
            exclude_seen: whether all that the user has, remembered or recent, is left out.
            times: when each recent item happened, in seconds since 1970; some models read it.
            asked_at: the moment for which is recommended, in seconds since 1970; some models read it.
            allow: raw ids of the only items that may be recommended; None allows all.
            deny: raw ids of items that may not be recommended.
            categories: only items of any of these may be recommended; None allows all.

        Raises:
            InputError: the bundle does not remember this user, or the model reads times that were not given.
        """
        place = self._row_of_user.get(user)
        if self.users is None or place is None or not isinstance(self.recommender, SequentialRecommender):
            raise InputError(
                f"The bundle remembers {len(self._row_of_user):,} users, and '{user}' is not among them; give their "
                "whole history to `recommend`, or run `seqrec export --users true` again."
            )
        if recent:
            self._demand_times([recent], None if times is None else [times], asked_at)
        known, clocks = self._known([recent], None if times is None else [times])
        window = Sequences.pack(known, clocks)
        if asked_at is not None and clocks is not None and known[0]:
            window = window.asking(window.newest, torch.tensor([asked_at]))
        _, remembered = self.recommender.proceed(window, self.users.remembered([place], self.recommender))
        queries = self.recommender.scorer.queries(remembered.newest)
        seen = Sequences.pack([[*self.users.seen_by(place), *known[0]] if exclude_seen else []])
        items, scores = self._nearest(queries, k, seen, self._banned(allow, deny, categories))
        return self._named(TopK(items, scores))[0]

    def recommend_many(
        self,
        histories: Sequence[Sequence[str]],
        k: int = 10,
        exclude_seen: bool = True,
        times: Sequence[Sequence[int]] | None = None,
        asked_at: int | None = None,
        *,
        allow: Collection[str] | None = None,
        deny: Collection[str] = (),
        categories: Collection[str] | None = None,
    ) -> list[list[Recommendation]]:
        """One list per history, as ``recommend`` makes it; an empty list where no item of the history is known."""
        return self._named(
            self.top_k(histories, k, exclude_seen, times, asked_at, allow=allow, deny=deny, categories=categories)
        )

    def similar(self, item_id: str, k: int = 10) -> list[Recommendation]:
        """The k items whose keys have the largest cosine with that of this one, itself left out.

        Raises:
            InputError: the item is not in the catalog.
        """
        rows, _ = self.catalog.rows([item_id])
        if not rows:
            raise InputError(f"'{item_id}' is not in the catalog; give the raw id of an item that is.")
        unit = torch.nn.functional.normalize(self.index.keys, dim=1)
        cosines = unit @ unit[rows[0]]
        cosines[rows[0]] = -torch.inf
        best = cosines.topk(min(k, len(self.catalog) - 1))
        return self._named(TopK(best.indices[None], best.values[None]))[0]

    def rows(self, history: Iterable[str]) -> tuple[list[int], list[str]]:
        """Catalog rows of the known items of a history, in order, and the ids that nobody knows."""
        return self.catalog.rows(history)

    @torch.no_grad()
    def following(
        self,
        states: Float[Tensor, "B D"],
        seen: Sequence[Sequence[int]],
        k: int = 10,
        *,
        allow: Collection[str] | None = None,
        deny: Collection[str] = (),
        categories: Collection[str] | None = None,
    ) -> list[list[Recommendation]]:
        """The k best items to follow the newest events, given by their states.

        Args:
            states: one per history, as the recommender's ``proceed`` makes them.
            seen: catalog rows that are left out, for each history.
            k: length of the lists, at least 1.
            allow: raw ids of the only items that may be recommended; None allows all.
            deny: raw ids of items that may not be recommended.
            categories: only items of any of these may be recommended; None allows all.
        """
        queries = self.recommender.scorer.queries(states)
        banned = self._banned(allow, deny, categories)
        return self._named(TopK(*self._nearest(queries, k, Sequences.pack(seen), banned)))

    def _named(self, best: TopK) -> list[list[Recommendation]]:
        return [
            [
                Recommendation(self._ids[row], self._titles[row], score)
                for row, score in zip(rows, scores, strict=True)
                if row >= 0
            ]
            for rows, scores in zip(best.items.tolist(), best.scores.tolist(), strict=True)
        ]

    def top_k(
        self,
        histories: Sequence[Sequence[str]],
        k: int = 10,
        exclude_seen: bool = True,
        times: Sequence[Sequence[int]] | None = None,
        asked_at: int | None = None,
        *,
        allow: Collection[str] | None = None,
        deny: Collection[str] = (),
        categories: Collection[str] | None = None,
    ) -> TopK:
        """The same lists as catalog rows and scores; -1 and minus infinity where there is no item."""
        if k < 1:
            raise InputError(f"k is {k}; ask for at least 1 item.")
        self._demand_times(histories, times, asked_at)
        known, times = self._known(histories, times)
        items = torch.full((len(known), k), -1)
        scores = torch.full((len(known), k), -torch.inf)
        asked = [place for place, rows in enumerate(known) if rows]
        banned = self._banned(allow, deny, categories)
        for batch in _batches(asked, [len(known[place][-self._reads :]) for place in asked]):
            clocks = None if times is None else [times[place][-self._reads :] for place in batch]
            some = [known[place] for place in batch]
            window = Sequences.pack([history[-self._reads :] for history in some], clocks)
            if asked_at is not None and clocks is not None:
                window = window.asking(window.newest, torch.full_like(window.newest, asked_at))
            items[batch], scores[batch] = self._best(window, some, k, exclude_seen, banned)
        return TopK(items, scores)

    def _known(
        self, histories: Sequence[Sequence[str]], times: Sequence[Sequence[int]] | None
    ) -> tuple[list[list[int]], Sequence[Sequence[int]] | None]:
        """Catalog rows of the known items of each history, and their times; warns of the others."""
        found = [self.catalog.rows(history) for history in histories]
        unknown = [raw for _, others in found for raw in others]
        if times is not None and unknown:
            absent = set(unknown)
            times = [
                [time for raw, time in zip(history, clock, strict=True) if raw not in absent]
                for history, clock in zip(histories, times, strict=True)
            ]
        _warn_of(unknown)
        return [rows for rows, _ in found], times

    @property
    def _reads(self) -> int:
        return self.max_length or 0

    def _demand_times(
        self, histories: Sequence[Sequence[str]], times: Sequence[Sequence[int]] | None, asked_at: int | None
    ) -> None:
        """See that all is given that a position of the model reads, and that every event has its time."""
        if self._reads_clock and times is None:
            raise InputError(
                "This model reads when events happened; give --times T,T,… in seconds since 1970, one for each item."
            )
        if self._reads_asked_at and asked_at is None:
            raise InputError(
                "This model reads for when a recommendation is asked; give --asked_at in seconds since 1970."
            )
        for history, clock in zip(histories, times or [], strict=times is not None):
            if len(history) != len(clock):
                raise InputError(f"A history has {len(history)} items and {len(clock)} times; give one time for each.")

    @torch.no_grad()
    def _best(
        self, window: Sequences, histories: list[list[int]], k: int, exclude_seen: bool, banned: Tensor | None
    ) -> tuple[Int[Tensor, "B k"], Float[Tensor, "B k"]]:
        queries = self.recommender.queries(window, window.newest)
        seen = Sequences.pack(histories if exclude_seen else [[] for _ in histories])
        return self._nearest(queries, k, seen, banned)

    def _banned(
        self, allow: Collection[str] | None, deny: Collection[str], categories: Collection[str] | None
    ) -> Tensor | None:
        """Which rows may not be recommended; None where all may."""
        if allow is None and not deny and categories is None:
            return None
        banned = torch.zeros(len(self.catalog), dtype=torch.bool)
        if allow is not None:
            banned[:] = True
            banned[self.catalog.rows(allow)[0]] = False
        if categories is not None:
            known = "categories" in self.catalog.table.columns
            listed = self.catalog.table["categories"].to_list() if known else [None] * len(self.catalog)
            banned |= torch.tensor([not set(categories) & set(some or ()) for some in listed])
        banned[self.catalog.rows(deny)[0]] = True
        return banned

    def _nearest(
        self, queries: Float[Tensor, "B K"], k: int, seen: Sequences, banned: Tensor | None = None
    ) -> tuple[Int[Tensor, "B k"], Float[Tensor, "B k"]]:
        if not torch.isfinite(queries).all():
            raise FloatingPointError("The encoder answers NaN or infinity; export a run that did not diverge.")
        return ranking.best_candidates(queries, self.index.keys, self._candidates(queries, k, seen, banned), k)

    def _candidates(
        self, queries: Float[Tensor, "B K"], k: int, seen: Sequences, banned: Tensor | None
    ) -> Int[Tensor, "B C"]:
        """Unseen rows that hold the k best of each query, however FAISS rounds; -1 fills up.

        The search widens until the worst candidate of every query is worse than its k-th best by more than rounding.
        """
        keys = self.index.keys
        n_items = keys.shape[0]
        doubt = 2 * (keys.shape[1] + 2) * 2.0**-23 * queries.norm(dim=1) * keys.norm(dim=1).max()
        width = min(k + int(seen.lengths.max()) + _MARGIN, n_items)
        while True:
            rows, scores = self.index.search(queries, width)
            worst = scores[:, -1]
            left_out = _listed(rows, seen, n_items)
            if banned is not None:
                left_out |= banned[rows]
            rows, scores = rows.masked_fill(left_out, -1), scores.masked_fill(left_out, -torch.inf)
            if width == n_items or bool((worst < scores.topk(k, dim=1).values[:, -1] - doubt).all()):
                return rows
            width = min(4 * width, n_items)


def recommend(
    bundle: Path,
    history: str | None = None,
    k: int = 10,
    exclude_seen: bool = True,
    histories: Path | None = None,
    out: Path | None = None,
    times: str | None = None,
    asked_at: int | None = None,
    user: str | None = None,
) -> None:
    """Say which items come next, for one history on the screen or for a file of histories.

    seqrec recommend --bundle bundles/shop --history SKU-1,SKU-7 -k 5
    seqrec recommend --bundle bundles/shop --histories users.parquet --out recommendations.parquet

    Items that the bundle does not know are named and skipped.

    Args:
        bundle: folder that `seqrec export` wrote.
        history: raw item ids, oldest first, with commas between them.
        k: how many items to recommend; also -k.
        exclude_seen: whether items of the history are left out.
        histories: Parquet file with the columns user_id and item_id, one line per event, ordered by timestamp where
            that column exists and by line where it does not; or one line per user with a list in item_id.
        out: Parquet file for the answers to histories: user_id, rank (0 is best), item_id, title, score.
        times: when each item of the history happened, in seconds since 1970, with commas between them; only some
            models read it. In a file of histories it is the column timestamp, in the same unit.
        asked_at: the moment for which is recommended, in seconds since 1970; only some models read it.
        user: raw id of a user whom the bundle remembers (`seqrec export --users true`); the history is then what they
            did since, and may be left out.
    """
    if user is None and (history is None) == (histories is None):
        raise InputError("Give either --history ID,ID,… or --histories FILE.parquet with --out FILE.parquet.")
    if (histories is None) != (out is None):
        raise InputError("--histories and --out belong together: give both, or --history alone.")
    retriever = Retriever.load(bundle)
    if histories is not None and out is not None:
        _answer_file(retriever, Path(histories), Path(out), k, exclude_seen, asked_at)
    else:
        ids = [raw.strip() for raw in (history or "").split(",") if raw.strip()]
        clock = None if times is None else _numbers(times)
        if user is None:
            _show(retriever.recommend(ids, k, exclude_seen, clock, asked_at))
        else:
            _show(retriever.recommend_user(str(user), ids, k, exclude_seen, clock, asked_at))


def _numbers(times: str) -> list[int]:
    try:
        return [int(time) for time in times.split(",")]
    except ValueError:
        raise InputError(f"--times is '{times}'; give whole seconds since 1970 with commas between them.") from None


def _answer_file(
    retriever: Retriever, histories: Path, out: Path, k: int, exclude_seen: bool, asked_at: int | None
) -> None:
    source = HistoryFile(histories, with_times=retriever.recommender.reads_clock)
    answered = 0
    with answers_file(out, source.nobody) as write, warnings.catch_warnings():
        warnings.simplefilter("once")
        for part in track(source, description="recommending", console=Console(stderr=True)):
            clocks = part["timestamp"].to_list() if "timestamp" in part.columns else None
            best = retriever.top_k(part["item_id"].to_list(), k, exclude_seen, clocks, asked_at)
            answered += int((best.items[:, 0] >= 0).sum())
            write(part["user_id"], retriever.catalog, best)
    print(f"{out}: recommendations for {answered:,} of {source.n_users:,} histories.")


def _show(items: list[Recommendation]) -> None:
    table = Table("", "item", "title", "score")
    for place, item in enumerate(items, start=1):
        table.add_row(str(place), item.item_id, item.title, f"{item.score:.4f}")
    Console().print(table)


def _warn_of(unknown: list[str]) -> None:
    if not unknown:
        return
    ids = list(dict.fromkeys(unknown))
    named = ", ".join(ids[:_NAMED]) + (f" and {len(ids) - _NAMED:,} more" if len(ids) > _NAMED else "")
    warnings.warn(f"Not in the catalog, so skipped: {named}.", stacklevel=4)


def _batches(places: list[int], lengths: list[int]) -> Iterator[list[int]]:
    """Cut places into batches of bounded size: few enough histories and few enough events."""
    batch: list[int] = []
    events = 0
    for place, length in zip(places, lengths, strict=True):
        if batch and (len(batch) == _HISTORIES_PER_BATCH or events + length > _EVENTS_PER_BATCH):
            yield batch
            batch, events = [], 0
        batch.append(place)
        events += length
    if batch:
        yield batch


def _listed(rows: Int[Tensor, "B C"], seen: Sequences, n_items: int) -> Tensor:
    """Which of the rows of each history are among what it has seen."""
    owners = torch.arange(rows.shape[0])[:, None]
    return torch.isin(owners * n_items + rows, seen.owners * n_items + seen.items)
