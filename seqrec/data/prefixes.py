"""The beginnings of histories that texts and vectors are made of: those that training reads, unless told otherwise."""

from __future__ import annotations

from enum import Enum

import numpy as np
import polars as pl

from seqrec.data.errors import InputError
from seqrec.data.log import Log
from seqrec.data.protocol import LeaveOneOut, Part, Split
from seqrec.data.supervision import EveryPrefix


class Pool(Enum):
    """Which beginnings there are: those that training predicts from, or all but the last event of every user, as in the
    code of SRA-CL. The latter is leaky: one of them ends in the validation item of its user."""

    training = "training"
    official = "official"


class Granularity(Enum):
    """One text for each prefix, or, which is no longer SRA-CL, one for each user, of the whole training part."""

    prefix = "prefix"
    user = "user"


def beginnings(
    log: Log, split: Split, pool: Pool = Pool.training, granularity: Granularity = Granularity.prefix
) -> Part:
    """Slices of the log that may be read, all of their events; each begins with the first event of its user.

    Raises:
        InputError: one text for each user is asked for from the official pool, which has prefixes, or that pool under a
            protocol by which its prefixes would end in targets of the test.
    """
    if pool is Pool.official and split.passport["kind"] != LeaveOneOut.__name__:
        raise InputError(
            f"The official pool is that of LeaveOneOut; under {split.passport['kind']} its histories would end in "
            "targets of the test. Set pool to training."
        )
    if granularity is Granularity.user:
        if pool is Pool.official:
            raise InputError("The official pool is one of prefixes; set granularity to prefix, or pool to training.")
        return split.train
    whole = Part(np.arange(len(log.users)), np.asarray(log.offsets)[:-1], np.asarray(log.offsets)[1:])
    rows = EveryPrefix().rows(split.train if pool is Pool.training else whole, None)
    return Part(rows.users, rows.starts, rows.ends - 1)


def ids_of(log: Log, part: Part) -> pl.DataFrame:
    """``user_id``, the raw id, and ``n_events``, counted from the user's first event, of slices that begin with it."""
    return pl.DataFrame({"user_id": log.users.cast(pl.String)[part.users], "n_events": part.lengths.astype(np.int64)})
