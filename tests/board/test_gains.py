"""Groups of predictions, and the mean over the seeds of a row."""

import shutil

import numpy as np
import pytest
from made_runs import a_measured_run

from seqrec.board.gains import gains_of
from seqrec.board.results import read, tables_of
from seqrec.data.errors import InputError


def test_groups_hold_what_they_say_and_small_ones_are_left_out(tmp_path):
    history = np.repeat([1, 5, 6, 50, 51], [20, 20, 29, 40, 60])
    popularity = np.repeat([0, 3, 21], [40, 50, 79])
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


def test_a_gain_is_the_mean_over_the_seeds_and_equals_the_result(tmp_path):
    for seed, rank in ((1, 0), (2, 99)):
        a_measured_run(tmp_path, f"seed{seed}", [rank, 0], seed=seed)
    (table,) = tables_of(read([tmp_path]))
    gains = gains_of(table.rows)
    assert gains is not None
    assert gains.values.tolist() == [[0.5, 1.0]]
    assert gains.draws().means == pytest.approx([table.rows[0].mean("ndcg@10")])


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
