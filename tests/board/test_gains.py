"""Groups of predictions, and the mean over the seeds of a row."""

import shutil

import numpy as np
import polars as pl
import pytest
from made_runs import a_measured_run

from seqrec.board.gains import gains_of
from seqrec.board.results import read, tables_of
from seqrec.data.errors import InputError


def test_groups_hold_what_they_say_and_small_ones_are_left_out(tmp_path):
    history = np.repeat([1, 5, 6, 50, 51], [20, 20, 29, 40, 60])
    popularity = np.repeat([0, 5, 21], [40, 50, 79])
    a_measured_run(tmp_path, "one", [3] * 169, history, popularity)
    (table,) = tables_of(read([tmp_path]))
    gains = gains_of(table.rows)
    assert gains is not None
    assert [(group.name, group.size) for group in gains.by_history()] == [
        ("1 to 5", 40), ("21 to 50", 40), ("over 50", 60)
    ]  # fmt: skip
    assert [(group.name, group.size) for group in gains.by_popularity()] == [
        ("0", 40), ("1 to 5", 50), ("21 to 100", 79)
    ]  # fmt: skip
    cold = gains.cold()
    assert cold is not None
    assert cold.chosen.tolist() == (popularity <= 5).tolist()


def test_short_and_long_are_a_quarter_each_and_what_is_as_long_as_its_edge(tmp_path):
    history = np.arange(101) // 2
    a_measured_run(tmp_path, "one", [3] * 101, history, history)
    (table,) = tables_of(read([tmp_path]))
    gains = gains_of(table.rows)
    assert gains is not None
    assert gains.short().chosen.tolist() == (history <= 12).tolist()
    assert gains.long().chosen.tolist() == (history >= 37).tolist()


def test_many_targets_of_few_users_are_a_small_group(tmp_path):
    users = np.concatenate([np.arange(30), np.repeat([30, 31], 40)])
    history = np.repeat([1, 60], [30, 80])
    a_measured_run(tmp_path, "one", [3] * 110, history, np.zeros(110, int), users)
    (table,) = tables_of(read([tmp_path]))
    gains = gains_of(table.rows)
    assert gains is not None
    assert [(group.name, group.size, group.n_users) for group in gains.by_history()] == [("1 to 5", 30, 30)]


def test_a_gain_is_the_mean_over_the_seeds_and_equals_the_result(tmp_path):
    for seed, rank in ((1, 0), (2, 99)):
        a_measured_run(tmp_path, f"seed{seed}", [rank, 0], seed=seed)
    (table,) = tables_of(read([tmp_path]))
    gains = gains_of(table.rows)
    assert gains is not None
    assert gains.values.tolist() == [[0.5, 1.0]]
    assert gains.draws().means == pytest.approx([table.rows[0].mean("ndcg@10")])


def test_a_target_that_a_user_meets_twice_is_lined_up_by_what_came_before_it(tmp_path):
    """One model knows it after 3 events, the other after 40."""
    for name, ranks in (("short", [0, 50]), ("long", [50, 0])):
        run = a_measured_run(tmp_path, name, ranks, [3, 40], dim=ranks[0] + 1, users=[7, 7])
        twice = pl.read_parquet(run / "ranks.parquet").with_columns(target=pl.lit(5))
        twice.reverse().write_parquet(run / "ranks.parquet")
    (table,) = tables_of(read([tmp_path]))
    gains = gains_of(table.rows)
    assert gains is not None
    assert gains.history.tolist() == [3, 40]
    assert dict(zip([row.runs[0].folder.name for row in gains.rows], gains.values.tolist(), strict=True)) == {
        "short": [1.0, 0.0], "long": [0.0, 1.0]
    }  # fmt: skip


@pytest.mark.parametrize("kept", [40, 0])
def test_ranks_that_were_cut_short_are_named(tmp_path, kept):
    path = a_measured_run(tmp_path, "one", [2, 0]) / "ranks.parquet"
    path.write_bytes(path.read_bytes()[:kept])
    (table,) = tables_of(read([tmp_path]))
    with pytest.raises(InputError, match=r"one/ranks\.parquet holds no ranks .*run `seqrec test` for that run again"):
        gains_of(table.rows)


def test_ranks_of_another_run_are_refused(tmp_path):
    runs = [a_measured_run(tmp_path, name, [rank, 0], dim=rank + 1) for name, rank in (("one", 2), ("two", 5))]
    shutil.copy(runs[0] / "ranks.parquet", runs[1] / "ranks.parquet")
    (table,) = tables_of(read([tmp_path]))
    with pytest.raises(
        InputError, match=r"two/ranks\.parquet does not give the NDCG@10 of 0\.6781 that result\.json says"
    ):
        gains_of(table.rows)


def test_a_row_of_which_a_seed_lost_its_ranks_is_left_out(tmp_path):
    runs = [a_measured_run(tmp_path, f"seed{seed}", [1, 2], seed=seed) for seed in (1, 2)]
    (runs[1] / "ranks.parquet").unlink()
    (table,) = tables_of(read([tmp_path]))
    assert gains_of(table.rows) is None
