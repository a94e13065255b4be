"""What the clock says of an event: how long after the one before it, and at which hour, weekday and month."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from seqrec.positions.base import InputPosition
from seqrec.positions.time_bias import span
from seqrec.sequences import Sequences

_HOUR, _DAY = 3_600, 86_400


class TimeGap(InputPosition):
    """One learned vector per span of time since the event before it, on a logarithmic scale; a first event has its own.

    The scale is that of ``time_bias.span``: about two numbers for each doubling of the gap. The idea is the gap table
    of Liu et al., "UniRec", CIKM 2024 (arXiv 2406.18470); it has one vector per hour, up to a year.

    Args:
        dim: width D of an event.
        n_spans: how many spans there are, the last of which serves all longer ones; at least 1. 64 reach 7 years.
        init_std: standard deviation of the initial vectors, above 0.
    """

    reads_clock = True

    def __init__(self, dim: int, n_spans: int = 64, init_std: float = 0.02) -> None:
        super().__init__()
        if n_spans < 1:
            raise ValueError(f"n_spans is {n_spans}; it must be at least 1, e.g. 64.")
        self.dim = dim
        self.table = nn.Embedding(n_spans + 1, dim)
        nn.init.normal_(self.table.weight, std=init_std)

    def forward(self, events: Float[Tensor, "T D"], history: Sequences) -> Float[Tensor, "T D"]:
        times = _times(self, history)
        before = times[torch.arange(-1, times.shape[0] - 1, device=times.device).clamp(min=0)]
        is_first = history.places == 0
        past = history.past
        if past is not None and past.times is not None:
            before = torch.where(is_first, past.times[history.owners], before)
            is_first = is_first & (past.counts[history.owners] == 0)
        spans = span(times - before).clamp(max=self.table.num_embeddings - 2)
        return events + self.table(torch.where(is_first, self.table.num_embeddings - 1, spans))


class Calendar(InputPosition):
    """One learned vector for the hour of the day, one for the day of the week and one for the month, in UTC.

    Source: the calendar half of the time module of Liu et al., "UniRec", CIKM 2024 (arXiv 2406.18470), which encodes
    seven such scales by learned waves; here three scales have a vector per value.

    Args:
        dim: width D of an event.
        init_std: standard deviation of the initial vectors, above 0.
    """

    reads_clock = True

    def __init__(self, dim: int, init_std: float = 0.02) -> None:
        super().__init__()
        self.dim = dim
        self.hours, self.weekdays, self.months = (nn.Embedding(n, dim) for n in (24, 7, 12))
        for table in (self.hours, self.weekdays, self.months):
            nn.init.normal_(table.weight, std=init_std)

    def forward(self, events: Float[Tensor, "T D"], history: Sequences) -> Float[Tensor, "T D"]:
        hour, weekday, month = calendar(_times(self, history))
        return events + self.hours(hour) + self.weekdays(weekday) + self.months(month)


def calendar(
    times: Int[Tensor, "*n"],
) -> tuple[Int[Tensor, "*n"], Int[Tensor, "*n"], Int[Tensor, "*n"]]:
    """Hour 0 to 23, weekday from Monday 0 to Sunday 6, and month from January 0 to December 11, in UTC."""
    day = times.div(_DAY, rounding_mode="floor")
    hour = (times - day * _DAY).div(_HOUR, rounding_mode="floor")
    weekday = (day + 3).remainder(7)  # 1970 began on a Thursday
    # Years that begin in March end with the leap day, if any; 153 days are always five of their months.
    since_march = day + 719_468
    of_era = since_march - since_march.div(146_097, rounding_mode="floor") * 146_097
    year = (of_era - of_era // 1_460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    month = ((5 * of_year + 2) // 153 + 2).remainder(12)
    return hour, weekday, month


def _times(position: InputPosition, history: Sequences) -> Int[Tensor, "T"]:
    if history.times is None:
        raise ValueError(f"{type(position).__name__} reads when events happened, but the histories carry no times.")
    return history.times
