"""How a log is split, and what is ranked against what; a number without its protocol means nothing."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from seqrec.data.log import Log

DAY = 86_400


@dataclass(frozen=True)
class Part:
    """Slices of the log, one per row: events ``starts[r]`` up to ``ends[r]`` of the user ``users[r]``.

    In training every event of a slice may be read and predicted. In validation and test the newest event of a slice is
    its target, and all before it may be read.
    """

    users: Int[np.ndarray, "R"]
    starts: Int[np.ndarray, "R"]
    ends: Int[np.ndarray, "R"]

    def __len__(self) -> int:
        return self.users.size

    @property
    def lengths(self) -> Int[np.ndarray, "R"]:
        return self.ends - self.starts

    def digest(self, log: Log) -> str:
        """SHA-256 of which events of which log these are."""
        found = hashlib.sha256(str(log.manifest.get("fingerprint")).encode())
        for bounds in (self.users, self.starts, self.ends):
            found.update(bounds.astype("<i8").tobytes())
        return found.hexdigest()

    def item_counts(self, log: Log) -> Int[np.ndarray, "N"]:
        """How often each item of the catalog occurs in the slices, which must not overlap; fakes are not counted."""
        genuine = ~log.is_fake[self.users]
        change = np.zeros(log.items.size + 1, dtype=np.int8)
        np.add.at(change, self.starts[genuine], 1)
        np.add.at(change, self.ends[genuine], -1)
        inside = np.cumsum(change[:-1], dtype=np.int8).astype(bool)
        return np.bincount(np.asarray(log.items)[inside], minlength=len(log.catalog))


@dataclass(frozen=True)
class Split:
    """The three parts of a log and the passport that says how they were made."""

    train: Part
    validation: Part
    test: Part
    passport: dict[str, Any]


@dataclass(frozen=True)
class Cut:
    """Where a protocol cuts a log, before targets that cannot be asked for are dropped.

    Attributes:
        train_ends: where the training slice of each user ends; it begins with the user's first event.
        validation: which events are targets of validation.
        test: which events are targets of the test.
    """

    train_ends: Int[np.ndarray, "U"]
    validation: Bool[np.ndarray, "E"]
    test: Bool[np.ndarray, "E"]


class Protocol(ABC):
    """Splits a log into training, validation and test. Every item of the catalog is a candidate.

    Args:
        seen_is_excluded: whether a ranking leaves out what the user already has; a target that the user already has is
            then dropped and counted, because serving could never show it.
        drops_cold_items: whether targets that never occur in training are dropped (and counted) or stay, as misses.
    """

    def __init__(self, seen_is_excluded: bool = True, drops_cold_items: bool = False) -> None:
        self.seen_is_excluded = seen_is_excluded
        self.drops_cold_items = drops_cold_items

    @abstractmethod
    def cut(self, log: Log) -> Cut:
        """Say where training ends for each user and which events are targets."""

    @abstractmethod
    def parameters(self) -> dict[str, Any]:
        """What the passport says about this protocol besides the two rules on targets."""

    def split(self, log: Log) -> Split:
        """Split the log and write the passport.

        A target without any event before it cannot be asked for; it is dropped and counted. Fake users train, and
        have no targets.

        Raises:
            ValueError: ``cut`` said something else than it must, or a target would stand in training.
        """
        cut = self._checked(self.cut(log), log)
        users = np.flatnonzero(cut.train_ends > log.offsets[:-1])
        train = Part(users, np.asarray(log.offsets)[users], cut.train_ends[users])
        counts = train.item_counts(log)
        repeats = _repeats(log) if self.seen_is_excluded else None
        genuine = np.repeat(~log.is_fake, np.diff(log.offsets))
        validation, validation_drops = self._evaluation(log, cut.validation & genuine, counts, repeats)
        test, test_drops = self._evaluation(log, cut.test & genuine, counts, repeats)
        parts = {"train": train, "validation": validation, "test": test}
        passport = {
            "kind": _name_of(type(self)),
            "parameters": self.parameters(),
            "seen_is_excluded": self.seen_is_excluded,
            "candidates": "all items",
            "tie_rule": "stable: file order",
            "tied_share": log.manifest.get("share_of_tied_events"),
            "cold_targets": "dropped" if self.drops_cold_items else "kept",
            "targets": {"validation": validation_drops, "test": test_drops},
            "users": {name: int(np.unique(part.users).size) for name, part in parts.items()},
            "rows": {name: len(part) for name, part in parts.items()},
            "fake_users": int(log.is_fake[users].sum()),
            "items": len(log.catalog),
            "train_events": int(train.lengths.sum()),
            "dataset": log.manifest.get("fingerprint"),
            "target_hash": _target_hash(log, test),
        }
        return Split(train, validation, test, passport)

    def _checked(self, cut: Cut, log: Log) -> Cut:
        """What ``cut`` said, as arrays, if it is sound: a protocol may be anybody's own."""
        offsets, name = np.asarray(log.offsets), type(self).__name__
        ends, *targets = (np.asarray(part) for part in (cut.train_ends, cut.validation, cut.test))
        if ends.shape != (offsets.size - 1,) or ((ends < offsets[:-1]) | (ends > offsets[1:])).any():
            raise ValueError(
                f"{name}.cut gave train_ends of shape {ends.shape} that are not one place in the log for each of "
                f"{offsets.size - 1} users, from where their events begin to where they end; add log.offsets[:-1] to "
                "numbers of events."
            )
        for part, chosen in zip(("validation", "test"), targets, strict=True):
            if chosen.dtype != bool or chosen.shape != log.items.shape:
                raise ValueError(
                    f"{name}.cut gave {part} of type {chosen.dtype} and shape {chosen.shape}; give true or false for "
                    f"each of {log.items.size} events."
                )
            at = np.flatnonzero(chosen)
            trained = at < ends[np.searchsorted(offsets, at, side="right") - 1]
            if trained.any():
                raise ValueError(
                    f"{name}.cut has {int(trained.sum())} targets of {part} in training, which would learn "
                    "the answers; end training before them."
                )
        return Cut(ends, *targets)

    def _evaluation(
        self,
        log: Log,
        chosen: Bool[np.ndarray, "E"],
        counts: Int[np.ndarray, "N"],
        repeats: Bool[np.ndarray, "E"] | None,
    ) -> tuple[Part, dict[str, int]]:
        offsets = np.asarray(log.offsets)
        at = np.flatnonzero(chosen)
        users = np.searchsorted(offsets, at, side="right") - 1
        askable = at > offsets[users]
        cold = askable & (counts[log.items[at]] == 0)
        seen = askable & repeats[at] if repeats is not None else np.zeros_like(askable)
        kept = askable & ~seen & ~(cold & self.drops_cold_items)
        tally = {
            "before": int(at.size),
            "without_history": int((~askable).sum()),
            "already_seen_dropped": int(seen.sum()),
            "cold_dropped" if self.drops_cold_items else "cold_kept": int((cold & ~seen).sum()),
        }
        at, users = at[kept], users[kept]
        return Part(users, offsets[users], at + 1), tally


class LeaveOneOut(Protocol):
    """The newest event of each user is the test target, the one before it the validation target, the rest trains.

    Users with fewer than three events contribute to training only.
    """

    def parameters(self) -> dict[str, Any]:
        return {}

    def cut(self, log: Log) -> Cut:
        ends = np.asarray(log.offsets)[1:]
        long_enough = np.diff(log.offsets) >= 3
        validation, test = (np.zeros(log.items.size, dtype=bool) for _ in range(2))
        validation[ends[long_enough] - 2] = True
        test[ends[long_enough] - 1] = True
        return Cut(ends - 2 * long_enough, validation, test)


class GlobalTimeSplit(Protocol):
    """One moment parts the past from the future for all users: training ends before the validation window begins.

    A target's slice holds all that its user did before it, also inside the windows, as a server would know it. A log
    without a clock, whose times are positions in the histories, is refused.

    Args:
        test_from: first second (since 1970) of the test; None means the last ``test_days`` days of the log.
        test_days: length in days of the test window where ``test_from`` is None, above 0.
        validation_days: length in days of the validation window, which ends where the test begins, above 0.
        only_first: whether only a user's first event of each window is a target, or every event.
        seen_is_excluded: see Protocol.
        drops_cold_items: see Protocol; dropping is the warm-item rule.
    """

    def __init__(
        self,
        test_from: int | None = None,
        test_days: float = 7.0,
        validation_days: float = 7.0,
        only_first: bool = True,
        seen_is_excluded: bool = True,
        drops_cold_items: bool = True,
    ) -> None:
        super().__init__(seen_is_excluded, drops_cold_items)
        if test_days <= 0 or validation_days <= 0:
            raise ValueError(
                f"test_days is {test_days} and validation_days is {validation_days}; both must be above 0: "
                "give the length of each window in days."
            )
        self.test_from = test_from
        self.test_days = test_days
        self.validation_days = validation_days
        self.only_first = only_first

    def parameters(self) -> dict[str, Any]:
        window = {"test_days": self.test_days} if self.test_from is None else {"test_from": self.test_from}
        return {**window, "validation_days": self.validation_days, "only_first": self.only_first}

    def cut(self, log: Log) -> Cut:
        if log.manifest.get("unit_of_times") == "position":
            raise ValueError(
                "The times of this data set are positions in the histories, not clock times, so no moment parts all "
                "users; choose seqrec.data.protocol.LeaveOneOut or RatioByUser."
            )
        times, offsets = np.asarray(log.times), np.asarray(log.offsets)
        newest = int(times.max()) if times.size else 0
        test_from = newest + 1 - round(self.test_days * DAY) if self.test_from is None else self.test_from
        validation_from = test_from - round(self.validation_days * DAY)
        trains = times < validation_from
        if not trains.any():
            raise ValueError(
                f"No event happened before second {validation_from}, where the validation window begins; training "
                "needs some: choose a later test_from or shorter windows."
            )
        tests = times >= test_from
        until = np.concatenate([[0], np.cumsum(trains)])
        train_ends = offsets[:-1] + until[offsets[1:]] - until[offsets[:-1]]
        validates = ~trains & ~tests
        if self.only_first:
            validates, tests = _first(validates, offsets), _first(tests, offsets)
        return Cut(train_ends, validates, tests)


class RatioByUser(Protocol):
    """The oldest events of each user train, the next are targets of validation, the newest are targets of the test.

    Of a user with n events, ``floor(n * share)`` but at least one go to validation and to the test. Users with fewer
    than three events, or whose training would be empty, contribute to training only.

    Args:
        validation_share: share of a user's events for validation, in (0, 1).
        test_share: share of a user's events for the test, in (0, 1); both together are below 1.
        seen_is_excluded: see Protocol.
        drops_cold_items: see Protocol.
    """

    def __init__(
        self,
        validation_share: float = 0.1,
        test_share: float = 0.1,
        seen_is_excluded: bool = True,
        drops_cold_items: bool = False,
    ) -> None:
        super().__init__(seen_is_excluded, drops_cold_items)
        if min(validation_share, test_share) <= 0 or validation_share + test_share >= 1:
            raise ValueError(
                f"validation_share is {validation_share} and test_share is {test_share}; both must be above 0 and "
                "their sum below 1, so that something is left for training."
            )
        self.validation_share = validation_share
        self.test_share = test_share

    def parameters(self) -> dict[str, Any]:
        return {"validation_share": self.validation_share, "test_share": self.test_share}

    def cut(self, log: Log) -> Cut:
        offsets = np.asarray(log.offsets)
        lengths = np.diff(offsets)
        # The tiny summand keeps 100 * 0.29 = 28.999… from losing an event to rounding.
        n_test, n_validation = (
            np.maximum(1, np.floor(lengths * share + 1e-9).astype(np.int64))
            for share in (self.test_share, self.validation_share)
        )
        splits = lengths > n_test + n_validation
        test_starts = offsets[1:] - n_test * splits
        train_ends = test_starts - n_validation * splits
        here = np.arange(log.items.size)
        after_train = here >= np.repeat(train_ends, lengths)
        tests = here >= np.repeat(test_starts, lengths)
        return Cut(train_ends, after_train & ~tests, tests)


def _name_of(kind: type) -> str:
    """The name of a protocol; of one of somebody's own with its module, so that none passes for another."""
    return kind.__name__ if kind.__module__ == __name__ else f"{kind.__module__}.{kind.__qualname__}"


def _first(chosen: Bool[np.ndarray, "E"], offsets: Int[np.ndarray, "bounds"]) -> Bool[np.ndarray, "E"]:
    """Only the first chosen event of each user."""
    at = np.flatnonzero(chosen)
    users = np.searchsorted(offsets, at, side="right") - 1
    first = np.zeros_like(chosen)
    first[at[np.diff(users, prepend=-1) > 0]] = True
    return first


def _repeats(log: Log) -> Bool[np.ndarray, "E"]:
    """Whether an earlier event of the same user has the same item."""
    users = np.repeat(np.arange(len(log.offsets) - 1, dtype=np.int64), np.diff(log.offsets))
    keys = users * len(log.catalog) + log.items
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    repeats = np.zeros(keys.size, dtype=bool)
    repeats[order[1:]] = keys[1:] == keys[:-1]
    return repeats


def _target_hash(log: Log, part: Part) -> str:
    """SHA-256 of the (user row, item row) of every target, in order."""
    pairs = np.stack([part.users, log.items[part.ends - 1]], axis=1)
    return hashlib.sha256(pairs.astype("<i8").tobytes()).hexdigest()
