"""What the figures of the page draw is what the results say."""

from pathlib import Path

import numpy as np
import pytest
from made_runs import a_study

from seqrec.board.figures import against, costs, critical, curves
from seqrec.board.gains import gains_of
from seqrec.board.results import Table, read, tables_of
from seqrec.board.statistics import CriticalDifference


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    (found,) = tables_of(read([Path(a_study(tmp_path_factory.mktemp("figures") / "runs", better=2.0))]))
    return found


def test_quality_stands_against_minutes_gibibytes_and_seconds_of_a_thousand_lists(table: Table):
    dots = {(trace.name, trace.xaxis or "x"): (trace.x[0], trace.y[0]) for trace in costs(table).data}
    for row in table.rows:
        ndcg = np.mean([run.fields["metrics"]["ndcg@10"] for run in row.runs])
        minutes = {"sasrec": 15.0, "gru4rec": 5.0}.get(row.label, 1 / 60)
        # Two seconds for 400 lists; half a gibibyte.
        for axis, cost in (("x", minutes), ("x2", 0.5), ("x3", 2.0 * 1000 / 400)):
            assert dots[row.label, axis] == pytest.approx((cost, ndcg)), (row.label, axis)


def test_differences_to_the_baseline_are_drawn_with_their_intervals(table: Table):
    gains = gains_of(table.rows)
    assert gains is not None
    (baseline,) = (row for row in table.rows if row.label == "sasrec")
    figure = against(table, gains, baseline)
    assert figure is not None
    (trace,) = figure.data
    draws, base = gains.draws(), gains.rows.index(baseline)
    for at, label in enumerate(trace.y):
        found = draws.paired([row.label for row in gains.rows].index(label), base)
        ends = trace.x[at] - trace.error_x["arrayminus"][at], trace.x[at] + trace.error_x["array"][at]
        assert (trace.x[at], *ends) == pytest.approx((found.difference, found.low, found.high))


def test_a_bar_joins_rows_whose_mean_ranks_are_no_further_apart_than_the_critical_difference():
    found = CriticalDifference(np.array([2.0, 1.0, 3.4, 5.0]), 1.5, 0.01)
    traces = critical(["b", "a", "c", "d"], found).data
    assert [trace.text[1] for trace in traces if trace.text] == ["a (1.00)", "b (2.00)", "c (3.40)", "d (5.00)"]
    assert [tuple(trace.x) for trace in traces if not trace.text] == [(1.0, 2.0), (2.0, 3.4)]


def test_curves_are_ndcg_on_validation_from_the_first_epoch_on_a_line_per_seed(table: Table):
    figure = curves(table)
    assert figure is not None
    assert sorted(trace.name for trace in figure.data) == ["gru4rec"] * 2 + ["sasrec"] * 2
    for trace in figure.data:
        assert list(trace.x) == list(range(1, 10))
        assert list(trace.y) == pytest.approx([0.1 - 0.08 / epoch for epoch in range(1, 10)])
