"""The figures of the page, as Plotly draws them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

import numpy as np
import plotly.graph_objects as go
from plotly.colors import qualitative
from plotly.subplots import make_subplots

from seqrec.board.gains import Gains, Group
from seqrec.board.results import Row, Table
from seqrec.board.statistics import CriticalDifference

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "x", "triangle-down", "hexagon", "pentagon")
FONT = {"family": "system-ui, sans-serif", "size": 13}


def styles(table: Table) -> dict[str, tuple[str, str]]:
    """A colour and a symbol for each row of a table, the same in all of its figures."""
    pairs = zip(cycle(qualitative.Safe), cycle(SYMBOLS), strict=False)
    return {row.label: pair for row, pair in zip(table.rows, pairs, strict=False)}


def costs(table: Table) -> go.Figure:
    """Quality against training time, memory and inference time."""
    axes = {
        "training, minutes": lambda row: _over(row.mean("wall_seconds"), 60.0),
        "peak memory, GiB": lambda row: _over(row.mean("peak_memory_bytes"), 2.0**30),
        "seconds per 1,000 lists": lambda row: row.seconds_of_a_thousand,
    }
    figure = make_subplots(1, len(axes), shared_yaxes=True, horizontal_spacing=0.04)
    for column, (title, cost) in enumerate(axes.items(), 1):
        for row in table.rows:
            _dot(figure, table, row, cost(row), row.mean("ndcg@10"), column, column == 1)
        figure.update_xaxes(title=title, row=1, col=column)
    figure.update_xaxes(type="log", col=1)
    figure.update_xaxes(rangemode="tozero", col=2)
    figure.update_xaxes(rangemode="tozero", col=3)
    figure.update_yaxes(title="NDCG@10", row=1, col=1)
    return _finished(figure, 380)


def lists(table: Table) -> go.Figure:
    """Quality against coverage, and against the popularity of what is shown."""
    axes = {
        "coverage@10: share of the catalog shown": "coverage@10",
        "popularity rank@10: 0 shows the most popular item only": "popularity_rank@10",
    }
    figure = make_subplots(1, 2, shared_yaxes=True, horizontal_spacing=0.05)
    for column, (title, name) in enumerate(axes.items(), 1):
        for row in table.rows:
            _dot(figure, table, row, row.mean(name), row.mean("ndcg@10"), column, column == 1)
        figure.update_xaxes(title=title, rangemode="tozero", row=1, col=column)
    figure.update_yaxes(title="NDCG@10", row=1, col=1)
    return _finished(figure, 380)


def groups(table: Table, gains: Gains) -> go.Figure | None:
    """Quality by length of history and by popularity of the target, with intervals over users."""
    panels = [
        ("events before the target", gains.by_history()),
        ("times that the target occurs in training", gains.by_popularity()),
    ]
    panels = [(title, found) for title, found in panels if found]
    if not panels:
        return None
    figure = make_subplots(1, len(panels), horizontal_spacing=0.06)
    for column, (title, found) in enumerate(panels, 1):
        _by_group(figure, table, gains, found, column)
        figure.update_xaxes(title=title, row=1, col=column)
    figure.update_yaxes(title="NDCG@10", row=1, col=1, rangemode="tozero")
    return _finished(figure, 420)


def against(table: Table, gains: Gains, baseline: Row) -> go.Figure | None:
    """The difference of every row to the baseline, with its paired interval."""
    if baseline not in gains.rows or len(gains.rows) < 2:
        return None
    draws, base = gains.draws(), gains.rows.index(baseline)
    rows = [(row.label, draws.paired(at, base)) for at, row in enumerate(gains.rows) if at != base]
    rows.reverse()  # Plotly draws from below
    middle = [found.difference for _, found in rows]
    figure = go.Figure(
        go.Scatter(
            x=middle,
            y=[label for label, _ in rows],
            mode="markers",
            marker={"color": [styles(table)[label][0] for label, _ in rows], "size": 9},
            error_x={
                "array": [found.high - found.difference for _, found in rows],
                "arrayminus": [found.difference - found.low for _, found in rows],
            },
            hovertemplate="%{y}: %{x:+.4f}<extra></extra>",
            showlegend=False,
        )
    )
    figure.add_vline(x=0, line={"dash": "dot", "color": "gray"})
    figure.update_xaxes(title=f"NDCG@10 above {baseline.label}, 95 % over users")
    return _finished(figure, 120 + 26 * len(rows))


def curves(table: Table) -> go.Figure | None:
    """NDCG@10 on validation over the epochs, one line per seed."""
    figure = go.Figure()
    for row in table.rows:
        named = True
        for run in row.runs:
            points = [point for point in run.fields.get("curve") or [] if "val/ndcg@10" in point]
            if len(points) < 2:
                continue
            figure.add_scatter(
                x=[point["epoch"] + 1 for point in points],
                y=[point["val/ndcg@10"] for point in points],
                customdata=[point["seconds"] for point in points],
                mode="lines",
                line={"color": styles(table)[row.label][0], "width": 1.5},
                name=row.label,
                legendgroup=row.label,
                showlegend=named,
                hovertemplate=f"{row.label}, seed {run.fields.get('seed')}: "
                "epoch %{x}, %{y:.4f}, %{customdata:.0f} s"
                "<extra></extra>",
            )
            named = False
    if not figure.data:
        return None
    figure.update_xaxes(title="epoch")
    figure.update_yaxes(title="NDCG@10 on validation")
    return _finished(figure, 380)


def critical(labels: Sequence[str], found: CriticalDifference) -> go.Figure:
    """Mean ranks on one line; a bar joins rows that are not told apart."""
    order = np.argsort(found.mean_ranks, kind="stable")
    ranks = found.mean_ranks[order]
    figure = go.Figure()
    for place, (at, rank) in enumerate(zip(order, ranks, strict=True)):
        height = -1 - place
        figure.add_scatter(
            x=[rank, rank],
            y=[0, height],
            mode="lines+markers+text",
            line={"color": "#555", "width": 1},
            marker={"size": [9, 0], "color": "#222"},
            text=["", f"{labels[at]} ({rank:.2f})"],
            textposition="middle right",
            showlegend=False,
            hoverinfo="skip",
        )
    bars = [(first, max(np.flatnonzero(ranks <= ranks[first] + found.distance))) for first in range(len(ranks))]
    ends = -1
    level = 1.0
    for first, last in bars:
        if last > first and last > ends:
            figure.add_scatter(
                x=[ranks[first], ranks[last]], y=[level, level], mode="lines", line={"color": "#b00", "width": 5},
                showlegend=False, hovertemplate="not told apart<extra></extra>",
            )  # fmt: skip
            ends, level = last, level + 0.6
    figure.update_xaxes(
        title=f"mean rank, 1 is best; critical difference {found.distance:.2f}", range=[0.8, len(ranks) + 1.5]
    )
    figure.update_yaxes(visible=False)
    return _finished(figure, 160 + 24 * len(ranks))


def _by_group(figure: go.Figure, table: Table, gains: Gains, found: Sequence[Group], column: int) -> None:
    drawn = [gains.draws(group) for group in found]
    for at, row in enumerate(gains.rows):
        means = [draws.means[at] for draws in drawn]
        low, high = np.array([np.quantile(draws.drawn[:, at], [0.025, 0.975]) for draws in drawn]).T
        colour, symbol = styles(table)[row.label]
        figure.add_scatter(
            x=[f"{group.name}<br>{group.size:,} targets" for group in found],
            y=means,
            error_y={"array": high - means, "arrayminus": means - low, "thickness": 1, "width": 2},
            mode="lines+markers",
            line={"color": colour, "width": 1.5},
            marker={"symbol": symbol, "size": 8},
            name=row.label,
            legendgroup=row.label,
            showlegend=column == 1,
            hovertemplate=f"{row.label}: %{{y:.4f}}<extra></extra>",
            row=1,
            col=column,
        )


def _dot(figure: go.Figure, table: Table, row: Row, x: float | None, y: float | None, column: int, named: bool) -> None:
    colour, symbol = styles(table)[row.label]
    figure.add_scatter(
        x=[x],
        y=[y],
        error_y={"array": [row.spread("ndcg@10") or 0.0], "thickness": 1},
        mode="markers",
        marker={"color": colour, "symbol": symbol, "size": 11},
        name=row.label,
        legendgroup=row.label,
        showlegend=named,
        hovertemplate=f"{row.label}: %{{x:.4g}}, %{{y:.4f}}<extra></extra>",
        row=1,
        col=column,
    )


def _over(value: float | None, unit: float) -> float | None:
    return None if value is None else value / unit


def _finished(figure: go.Figure, height: int) -> go.Figure:
    figure.update_layout(
        template="plotly_white",
        height=height,
        font=FONT,
        margin={"l": 70, "r": 20, "t": 20, "b": 60},
        legend={"orientation": "v"},
    )
    return figure
