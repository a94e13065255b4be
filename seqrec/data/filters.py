"""Puts events in order and says which of them stay: repeats, and users and items with too few events."""

from __future__ import annotations

from enum import Enum

import numpy as np
from jaxtyping import Int

from seqrec.data.events import Events


class Duplicates(Enum):
    """What becomes of several events of the same user with the same item."""

    keep_all = "all"
    keep_first = "first"
    keep_last = "last"


def stable_order(values: Int[np.ndarray, "E"]) -> Int[np.ndarray, "E"]:
    """Places of the values in ascending order, equal ones as they stand.

    Value and place are packed into one 64-bit key where they fit, which sorts several times faster than a stable sort.
    """
    count = len(values)
    if not count:
        return np.zeros(0, dtype=np.int64)
    place_bits = count.bit_length()
    least = int(values.min())
    if (int(values.max()) - least).bit_length() + place_bits > 63:
        return np.argsort(values, kind="stable")
    keys = values.astype(np.int64)
    keys -= least
    keys <<= place_bits
    keys |= np.arange(count)
    keys.sort()
    keys &= (1 << place_bits) - 1
    return keys.astype(np.int32) if place_bits < 31 else keys


def by_user_and_time(events: Events) -> Events:
    """Events grouped by user and oldest first; those of one user at the same time stay in their order."""
    order = stable_order(events.times)
    return events.at(order[stable_order(events.users[order])])


def without_repeats(events: Events, policy: Duplicates) -> Events:
    """Events grouped by user and oldest first, with one or all events per user and item."""
    if policy is Duplicates.keep_all:
        return events
    pairs = events.users.astype(np.int64) * len(events.item_ids) + events.items
    order = stable_order(pairs)
    is_new = np.diff(pairs[order]) != 0
    edge = np.ones(1, dtype=bool)
    kept = np.concatenate([edge, is_new] if policy is Duplicates.keep_first else [is_new, edge])
    mask = np.zeros(len(events), dtype=bool)
    mask[order[kept]] = True
    return events.at(mask)


def core(events: Events, user_core: int, item_core: int) -> Events:
    """The largest part within which every user has ``user_core`` events and every item ``item_core``."""
    if user_core <= 1 and item_core <= 1:
        return events
    per_user, per_item = _counts(events)
    while len(events):
        kept = (per_user >= user_core)[events.users] & (per_item >= item_core)[events.items]
        if kept.all():
            break
        gone_from_users, gone_from_items = _counts(events.at(~kept))
        per_user, per_item = per_user - gone_from_users, per_item - gone_from_items
        events = events.at(kept)
    return events


def long_enough(events: Events, min_length: int) -> Events:
    """Without the users that have fewer than ``min_length`` events."""
    if min_length <= 1:
        return events
    return events.at((np.bincount(events.users, minlength=len(events.user_ids)) >= min_length)[events.users])


def ties(events: Events) -> tuple[float, float]:
    """How much of the order is left to the file, for events grouped by user and oldest first.

    Returns:
        the share of events that have their user's neighbour at the same time, and the share of users whose last two
        events are at the same time, so that their test target is decided by the order of the file.
    """
    same_user = events.users[1:] == events.users[:-1]
    same = same_user & (events.times[1:] == events.times[:-1])
    before, after = np.append(False, same), np.append(same, False)
    is_last = np.append(~same_user, True)
    return float((before | after).mean()), float(before[is_last].mean())


def _counts(events: Events) -> tuple[Int[np.ndarray, "U"], Int[np.ndarray, "N"]]:
    return (
        np.bincount(events.users, minlength=len(events.user_ids)),
        np.bincount(events.items, minlength=len(events.item_ids)),
    )
