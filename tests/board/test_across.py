"""Which data sets and rows are ranked together, each data set once."""

import json
import shutil
from pathlib import Path

from made_runs import a_run, a_study

from seqrec.leaderboard import leaderboard


def test_data_sets_split_alike_are_ranked_together(tmp_path: Path):
    for number, data in enumerate(("beauty", "toys", "yelp")):
        a_study(tmp_path / "runs", data=data, better=2.0, seed=number)
    leaderboard(tmp_path / "runs", tmp_path / "page")
    across = (tmp_path / "page.md").read_text().partition("## Across data sets")[2]
    assert "on beauty, toys, yelp: mean ranks by NDCG@10" in across
    assert "| sasrec | 1.00 |" in across
    assert "| popularity | 5.00 |" in across


def test_data_sets_that_were_split_otherwise_are_not_ranked_together(tmp_path: Path):
    for data in ("beauty", "toys"):
        a_study(tmp_path / "runs", data=data)
    for run in (tmp_path / "runs" / "toys").rglob("result.json"):
        result = json.loads(run.read_text())
        result["passport"]["seen_is_excluded"] = False
        run.write_text(json.dumps(result))
    leaderboard(tmp_path / "runs", tmp_path / "page")
    assert "Across data sets" not in (tmp_path / "page.md").read_text()


def test_a_data_set_counts_once_however_often_it_was_prepared_or_begun_with(tmp_path: Path):
    for number, data in enumerate(("beauty", "toys")):
        a_study(tmp_path / data, data=data, better=2.0, seed=number)
    for run in sorted((tmp_path / "beauty").rglob("result.json")):
        result = json.loads(run.read_text())
        result["passport"] |= {"dataset": "prepared anew", "learned_before": ["elsewhere"]}
        again = tmp_path / "again" / run.parent.name
        shutil.copytree(run.parent, again)
        (again / "result.json").write_text(json.dumps(result))
    leaderboard(tmp_path, tmp_path / "page")
    across = (tmp_path / "page.md").read_text().partition("## Across data sets")[2]
    assert "on beauty, toys: " in across
    assert "beauty, beauty" not in across


def test_studies_that_share_some_rows_and_data_are_ranked_together_where_they_meet(tmp_path: Path):
    """One study is on three data sets, the other on two, with another recipe of the same name and one row more."""
    for data in ("beauty", "toys", "yelp"):
        a_study(tmp_path / data, data=data, better=2.0)
    for data, dim in (("beauty", 32), ("yelp", 16)):
        for name in ("sasrec", "hstu"):
            a_run(tmp_path / "other" / data, f"{name}-seed1", 0.01, 1, dim, study={"name": "other", "row": name},
                  data=data, passport={"dataset": data, "target_hash": data}, objective=name)  # fmt: skip
    leaderboard(tmp_path, tmp_path / "page")
    page = (tmp_path / "page.md").read_text()
    assert "| sasrec (made) |" in page
    assert "| sasrec (other) |" in page
    across = page.partition("## Across data sets")[2]
    everywhere, somewhere = across.split("mean ranks by NDCG@10")[1:]
    assert "on beauty, toys, yelp: " in across
    assert "| sasrec | 1.00 |" in everywhere
    assert "hstu" not in everywhere
    assert "| hstu | 6.00 |" in somewhere
