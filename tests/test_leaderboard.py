"""Which runs share a table, and what a row says."""

import json
from pathlib import Path
from typing import Any

import pytest

from seqrec.data.errors import InputError
from seqrec.leaderboard import differences, leaderboard

PASSPORT = {
    "kind": "LeaveOneOut",
    "parameters": {},
    "seen_is_excluded": True,
    "candidates": "all items",
    "tie_rule": "stable: file order",
    "cold_targets": "kept",
    "dataset": "abc",
    "target_hash": "def",
}


def a_run(folder: Path, name: str, ndcg: float, seed: int = 0, dim: int = 64, **passport: Any) -> Path:
    result = {
        "model": "SASRec",
        "data": "beauty",
        "metrics": {"recall@10": 2 * ndcg, "ndcg@10": ndcg},
        "passport": {**PASSPORT, **passport},
        "seed": seed,
        "config": {"seed_everything": seed, "data": {"seed": seed}, "model": {"dim": dim}},
        "commit": "0123456789abcdef",
        "wall_seconds": 90.0,
        "peak_memory_bytes": 2**29,
        "parameters": 1234567,
        "events_per_second": 4000.0,
    }
    (folder / name).mkdir()
    (folder / name / "result.json").write_text(json.dumps(result))
    return folder / name


def rows_of(page: Path) -> list[list[str]]:
    lines = [line for line in page.read_text().splitlines() if line.startswith("| SASRec")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_seeds_of_one_recipe_share_a_row_with_mean_and_deviation(tmp_path: Path):
    runs = [a_run(tmp_path, f"seed{seed}", ndcg, seed) for seed, ndcg in enumerate([0.04, 0.05, 0.06])]
    other = a_run(tmp_path, "wide", 0.07, dim=128)
    leaderboard([*runs, other], tmp_path / "docs" / "leaderboard.md")
    best, mean = rows_of(tmp_path / "docs" / "leaderboard.md")
    assert best[1:4] == ["1", "0.1400", "0.0700"]
    assert mean[:4] == ["SASRec", "3", "0.1000 ± 0.0200", "0.0500 ± 0.0100"]
    assert mean[4:] == ["1,234,567", "1.5", "4,000", "0.50", "012345678", "seed0, seed1, seed2"]


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("kind", "GlobalTime", "split (kind): LeaveOneOut against GlobalTime"),
        ("seen_is_excluded", False, "seen items excluded (seen_is_excluded): true against false"),
        ("candidates", "100 sampled", "candidates (candidates): all items against 100 sampled"),
        ("tie_rule", "random", "order of equal times (tie_rule): stable: file order against random"),
        ("dataset", "xyz", "data set (dataset): abc against xyz"),
        ("target_hash", "xyz", "hash of the test targets (target_hash): def against xyz"),
    ],
)
def test_runs_with_different_passports_never_share_a_table(tmp_path: Path, field: str, value: Any, words: str):
    runs = [a_run(tmp_path, "one", 0.04), a_run(tmp_path, "two", 0.05, 1, **{field: value})]
    page = tmp_path / "leaderboard.md"
    leaderboard(runs, page)
    assert page.read_text().count("| model |") == 2
    assert page.read_text().count("Apart from the first table") == 1
    assert page.read_text().count(f"({field}): ") == 1
    assert differences(PASSPORT, {**PASSPORT, field: value}) == [words]
    with pytest.raises(InputError) as refusal:
        leaderboard(runs, page, compare=True)
    assert words in str(refusal.value)


def test_what_a_passport_says_besides_does_not_part_runs(tmp_path: Path):
    runs = [a_run(tmp_path, "one", 0.04, max_length=50), a_run(tmp_path, "two", 0.05, dim=32, max_length=200)]
    leaderboard(runs, tmp_path / "leaderboard.md", compare=True)
    assert (tmp_path / "leaderboard.md").read_text().count("| model |") == 1


def test_a_folder_of_runs_is_searched_and_nothing_is_read_twice(tmp_path: Path):
    (tmp_path / "runs").mkdir()
    run = a_run(tmp_path / "runs", "one", 0.04)
    leaderboard([tmp_path / "runs", run], tmp_path / "leaderboard.md")
    assert len(rows_of(tmp_path / "leaderboard.md")) == 1
    leaderboard(tmp_path / "runs", tmp_path / "leaderboard.md")
    assert len(rows_of(tmp_path / "leaderboard.md")) == 1


def test_it_says_where_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    leaderboard(a_run(tmp_path, "one", 0.04), tmp_path / "page.md")
    assert capsys.readouterr().out == f"{tmp_path / 'page.md'}: a table of 1 run.\n"


def test_mistakes_are_named(tmp_path: Path):
    with pytest.raises(InputError, match="does not exist"):
        leaderboard([tmp_path / "nowhere"], tmp_path / "page.md")
    with pytest.raises(InputError, match="was found"):
        leaderboard([tmp_path], tmp_path / "page.md")
    (tmp_path / "result.json").write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        leaderboard([tmp_path], tmp_path / "page.md")
    (tmp_path / "result.json").write_text('{"metrics": {}}')
    with pytest.raises(InputError, match="has no passport"):
        leaderboard([tmp_path], tmp_path / "page.md")
    assert not (tmp_path / "page.md").exists()
