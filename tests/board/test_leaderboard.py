"""Which runs share a table, what a row says, and how two runs are compared."""

import json
import shlex
import shutil
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_runs import PASSPORT, a_measured_run, a_run, a_study, sequential
from scipy.stats import wilcoxon

from seqrec.board.answers import answers
from seqrec.board.gains import gains_of
from seqrec.board.results import COMPARED, OPTIONAL, differences, read, tables_of
from seqrec.data.errors import InputError
from seqrec.leaderboard import compare, leaderboard

ROOT = Path(__file__).parents[2]
FIELDS = [
    ("kind", "GlobalTime", "split (kind): LeaveOneOut against GlobalTime"),
    ("parameters", {"test_days": 7}, "parameters of the split (parameters): {} against"),
    ("seen_is_excluded", False, "seen items excluded (seen_is_excluded): true against false"),
    ("cold_targets", "dropped", "targets that training never saw (cold_targets): kept against dropped"),
    ("candidates", "100 sampled", "candidates (candidates): all items against 100 sampled"),
    ("tie_rule", "random", "order of equal times (tie_rule): stable: file order against random"),
    ("dataset", "xyz", "data set (dataset): abc against xyz"),
    ("target_hash", "xyz", "hash of the test targets (target_hash): def against xyz"),
]


def recommender_of(fields: dict[str, Any]) -> dict[str, Any]:
    return fields["config"]["model"]["init_args"]["recommender"]


def rows_of(page: Path, label: str = "SASRec") -> list[list[str]]:
    lines = [line for line in page.read_text().splitlines() if line.startswith(f"| {label}")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in rows if "not run" not in row]


def test_seeds_of_one_recipe_share_a_row_with_mean_and_deviation(tmp_path: Path):
    runs = [a_run(tmp_path, f"seed{seed}", ndcg, seed) for seed, ndcg in enumerate([0.04, 0.05, 0.06])]
    other = a_run(tmp_path, "wide", 0.07, dim=128, commit="0123456789abcdef-dirty")
    leaderboard([*runs, other], tmp_path / "docs" / "leaderboard")
    best, mean = rows_of(tmp_path / "docs" / "leaderboard.md")
    assert best[:6] == ["SASRec (wide)", "SASRec", "1", "–", "0.1400", "0.0700"]
    assert mean[2:6] == ["3", "–", "0.1000 ± 0.0200", "0.0500 ± 0.0100"]
    assert mean[-7:-1] == ["1,234,567", "1.5", "not recorded", "0.50", "–", "012345678"]
    assert best[-2] == "012345678-dirty"
    assert mean[-1] == "seqrec reproduce " + " ".join(str(run) for run in runs)


def test_what_is_said_on_the_way_parts_no_seeds_and_other_texts_or_weights_do(tmp_path: Path):
    """Four seeds: by hand, by a study, with other vectors in the same file, and tested at the last epoch."""
    runs = [a_run(tmp_path, f"seed{seed}", 0.04 + 0.01 * seed, seed) for seed in range(4)]
    said = {1: {"verbose": False, "trainer": {"enable_progress_bar": False}}, 0: {"verbose": True, "trainer": {}}}
    for seed, run in enumerate(runs):
        result = json.loads((run / "result.json").read_text())
        result["config"] |= said.get(seed, said[0])
        result["texts"] = [{"vectors": "titles.parquet", "digest": "other" if seed == 2 else "same"}]
        result["checkpoint"] = "checkpoints/last.ckpt" if seed == 3 else "checkpoints/best.ckpt"
        (run / "result.json").write_text(json.dumps(result))
    (table,) = tables_of(read(runs))
    assert [[run.fields["seed"] for run in row.runs] for row in table.rows] == [[3], [2], [0, 1]]
    assert [row.caveat for row in table.rows] == [" (tested at checkpoints/last.ckpt)", "", ""]


def test_a_copy_of_a_run_is_no_further_seed_and_one_with_other_figures_is_named(tmp_path: Path):
    """The runs and what was kept of them are given together."""
    for seed in (1, 2):
        run = a_measured_run(tmp_path / "runs", f"seed{seed}", [seed, 1, 2], seed=seed)
        shutil.copytree(run, tmp_path / "kept" / run.name)
        (tmp_path / "kept" / run.name / "ranks.parquet").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        leaderboard([tmp_path / "kept", tmp_path / "runs"], tmp_path / "page")
    (row,) = rows_of(tmp_path / "page.md")
    assert row[2] == "2"
    assert row[-1] == f"seqrec reproduce {tmp_path}/runs/seed1 {tmp_path}/runs/seed2"  # these have the ranks
    a_run(tmp_path / "again", "seed1", 0.9, 1)
    with pytest.warns(UserWarning, match=r"again/seed1 has the config and the seed of \S+runs/seed1 and other figures"):
        leaderboard([tmp_path / "again", tmp_path / "runs"], tmp_path / "page")


def test_seeds_of_different_code_are_marked(tmp_path: Path):
    for seed, code in ((1, "new"), (2, "old"), (3, "old")):
        a_run(tmp_path, f"seed{seed}", 0.05, seed, study={"name": "s", "row": "sasrec", "fingerprint": {"code": code}})
    for seeds, said in (((1, 2, 3), "3, of different code"), ((2, 3), "2")):
        leaderboard([tmp_path / f"seed{seed}" for seed in seeds], tmp_path / "page")
        (row,) = rows_of(tmp_path / "page.md", "sasrec")
        assert row[2] == said


def test_an_argument_of_a_part_named_like_one_of_a_run_tells_recipes_apart(tmp_path: Path):
    for seed, layers in enumerate((1, 1, 9)):
        own = {"class_path": "mine.Model", "init_args": {"config": {"layers": layers}, "run": 3}}
        a_run(tmp_path, f"run{seed}", seed=seed, recommender=own)
    (table,) = tables_of(read([tmp_path]))
    assert sorted(len(row.runs) for row in table.rows) == [1, 2]


def test_the_command_of_a_row_survives_a_space_in_a_folder(tmp_path: Path):
    runs = [a_run(tmp_path / "my runs", f"seed{seed}", seed=seed) for seed in (1, 2)]
    (table,) = tables_of(read(runs))
    assert shlex.split(table.rows[0].command)[2:] == [str(run) for run in runs]


def test_results_behind_a_link_are_found_once_though_it_lead_back(tmp_path: Path):
    run = a_run(tmp_path / "disk", "one")
    (tmp_path / "runs" / ".previous").mkdir(parents=True)
    for name, place in (("linked", run), ("again", run), ("back", tmp_path / "runs"), (".previous/kept", run)):
        (tmp_path / "runs" / name).symlink_to(place)
    (found,) = read([tmp_path / "runs"])
    assert found.folder.parent == tmp_path / "runs"


def test_a_run_with_a_callback_is_no_seed_of_one_without(tmp_path: Path):
    for seed, callbacks in enumerate((None, [{"class_path": "lightning.pytorch.callbacks.StochasticWeightAveraging"}])):
        run = a_run(tmp_path, f"run{seed}", seed=seed)
        fields = json.loads((run / "result.json").read_text())
        fields["config"]["trainer"] = {"callbacks": callbacks}
        (run / "result.json").write_text(json.dumps(fields))
    leaderboard(tmp_path, tmp_path / "page")
    assert [row[2] for row in rows_of(tmp_path / "page.md")] == ["1", "1"]


def test_rows_of_one_name_from_two_studies_stay_apart_and_may_be_the_baseline(tmp_path: Path):
    """Under the bare name of two rows goes the one that is better on validation."""
    for study, dim, validation in (("s1", 64, 0.06), ("s6", 32, 0.05)):
        for seed in (1, 2):
            a_run(tmp_path / study, f"sasrec-seed{seed}", 0.05, seed, dim, study={"name": study, "row": "sasrec"},
                  validation={"val/ndcg@10": validation, "epoch": 3})  # fmt: skip
    leaderboard(tmp_path, tmp_path / "page", baseline="sasrec")
    rows = rows_of(tmp_path / "page.md", "sasrec")
    assert sorted(row[0] for row in rows) == ["sasrec (s1)", "sasrec (s6)"]
    assert [row[2] for row in rows] == ["2", "2"]
    assert "NDCG@10 against sasrec (s1)" in (tmp_path / "page.md").read_text()


def test_an_experiment_that_two_studies_share_is_one_row_and_counts_once(tmp_path: Path):
    """The same recipe with the same seeds, under two names."""
    for study, name in (("s1", "sasrec-gbce"), ("s6", "gbce-event")):
        for seed in (1, 2):
            a_run(tmp_path / study, f"{name}-seed{seed}", 0.05, seed, study={"name": study, "row": name})
    leaderboard(tmp_path, tmp_path / "page")
    (row,) = (row for row in rows_of(tmp_path / "page.md", "") if "SASRec" in row)
    assert row[0] == "sasrec-gbce"
    assert row[2] == "2"


@pytest.mark.parametrize(("field", "value", "words"), FIELDS)
def test_runs_with_different_passports_never_share_a_table(tmp_path: Path, field: str, value: Any, words: str):
    runs = [a_run(tmp_path, "one", 0.04), a_run(tmp_path, "two", 0.05, 1, passport={field: value})]
    leaderboard(runs, tmp_path / "page")
    page = (tmp_path / "page.md").read_text()
    assert page.count("| row | model |") == 2
    assert page.count("Apart from the first table") == 1
    assert page.count(f"({field}): ") == 1
    titles = [line for line in page.splitlines() if line.startswith("## beauty")]
    assert len(set(titles)) == 2
    (found,) = differences(PASSPORT, {**PASSPORT, field: value})
    assert found.startswith(words)
    with pytest.raises(InputError) as refusal:
        compare(*runs)
    assert words in str(refusal.value)
    assert (tmp_path / "page.html").read_text().count('class="table" id="table-') == 2


def test_a_title_names_the_protocol_before_the_data_where_two_tables_would_have_the_same(tmp_path: Path):
    runs = [a_run(tmp_path, "one"), a_run(tmp_path, "two", passport={"cold_targets": "dropped", "target_hash": "xyz"})]
    leaderboard(runs, tmp_path / "page")
    titles = [line for line in (tmp_path / "page.md").read_text().splitlines() if line.startswith("## beauty")]
    said = "## beauty, LeaveOneOut, seen items excluded, targets that training never saw"
    assert sorted(titles) == [f"{said}: dropped", f"{said}: kept"]
    leaderboard(runs[0], tmp_path / "page")
    assert "## beauty, LeaveOneOut, seen items excluded\n" in (tmp_path / "page.md").read_text()


def test_tables_that_one_kind_of_field_does_not_tell_apart_are_named_by_both(tmp_path: Path):
    passports = [("a", 1), ("a", 2), ("b", 1)]
    runs = [
        a_run(tmp_path, f"run{number}", passport={"cold_targets": cold, "target_hash": str(hashed)})
        for number, (cold, hashed) in enumerate(passports)
    ]
    titles = [table.title for table in tables_of(read(runs))]
    assert len(set(titles)) == 3
    assert [("hash of the test targets" in title) for title in titles] == [True, True, False]


def test_what_a_passport_says_besides_does_not_part_runs(tmp_path: Path):
    runs = [a_run(tmp_path, "one", 0.04, passport={"max_length": 50})]
    runs += [a_run(tmp_path, "two", 0.05, dim=32, passport={"max_length": 200})]
    leaderboard(runs, tmp_path / "page")
    assert (tmp_path / "page.md").read_text().count("| row | model |") == 1
    compare(*runs)


def test_a_difference_is_given_with_interval_test_and_counts(tmp_path: Path):
    leaderboard(a_study(tmp_path / "runs", better=2.0), tmp_path / "page")
    (header,) = rows_of(tmp_path / "page.md", "row | model")
    assert header.index("NDCG@10 against sasrec") > header.index("ndcg@10")
    (sasrec,), (gru4rec,), (markov,) = (rows_of(tmp_path / "page.md", name) for name in ("sasrec", "gru4rec", "markov"))
    at = header.index("NDCG@10 against sasrec")
    assert sasrec[at] == "baseline"
    assert (sasrec[3], markov[3]) == ("20", "–")
    assert markov[at].startswith("-0.")
    low, high = (float(end) for end in markov[at].partition("[")[2].strip("]").split(", "))
    assert low < float(markov[at].split()[0]) < high < 0
    assert markov[at + 1 : at + 3] == ["–", "1 against 2 seeds"]
    assert gru4rec[at + 1] == "< .0001"
    assert sum(int(count) for count in gru4rec[at + 2].split(" / ")) == 400
    leaderboard(tmp_path / "runs", tmp_path / "page", baseline="markov")
    assert "NDCG@10 against markov" in (tmp_path / "page.md").read_text()
    with pytest.raises(InputError, match="No row is called 'sasrek'"):
        leaderboard(tmp_path / "runs", tmp_path / "page", baseline="sasrek")


def test_p_is_wilcoxons_with_holms_correction_over_the_rows_of_the_table(tmp_path: Path):
    random = np.random.default_rng(3)
    base = random.integers(0, 14, 120)
    ranks = {"a": base} | {
        name: (base + random.integers(-3, 4 + harm, 120)).clip(0)
        for name, harm in (("b", 2), ("c", 1), ("d", 1), ("e", 0))
    }
    for name, drawn in ranks.items():
        a_measured_run(tmp_path / "runs", name, drawn.tolist(), dim=ord(name), study={"name": "made", "row": name})
    leaderboard(tmp_path / "runs", tmp_path / "page", baseline="a")
    (header,) = rows_of(tmp_path / "page.md", "row | model")
    gains = {name: np.where(drawn < 10, 1 / np.log2(drawn + 2), 0) for name, drawn in ranks.items()}
    off = {name: gains[name] - gains["a"] for name in "bcde"}
    plain = {name: wilcoxon(each[each != 0]).pvalue for name, each in off.items()}
    # The smallest counts four times, the next three times, and none may be below one that was smaller.
    corrected, so_far = {}, 0.0
    for place, name in enumerate(sorted(plain, key=plain.__getitem__)):
        so_far = max(so_far, min(1.0, (4 - place) * plain[name]))
        corrected[name] = so_far
    assert sum(0.001 < p < 0.9 and p > 1.5 * plain[name] for name, p in corrected.items()) >= 2  # so that it is seen
    for name in "bcde":
        (row,) = rows_of(tmp_path / "page.md", f"{name} |")
        assert float(row[header.index("p (Holm)")].removeprefix("< ")) == pytest.approx(corrected[name], abs=6e-5)
        counts = row[header.index("win / tie / loss")].split(" / ")
        assert [int(each) for each in counts] == [(off[name] > 0).sum(), (off[name] == 0).sum(), (off[name] < 0).sum()]


def test_every_row_is_held_against_the_next_below_it_that_kept_its_ranks(tmp_path: Path):
    random = np.random.default_rng(0)
    ranks = {name: random.integers(0, hardest, 300) for name, hardest in (("a", 12), ("b", 16), ("d", 60))}
    for name, drawn in ranks.items():
        a_measured_run(tmp_path / "runs", name, drawn.tolist(), dim=ord(name), study={"name": "made", "row": name})
    middle = np.mean([np.where(ranks[name] < 10, 1 / np.log2(ranks[name] + 2), 0).mean() for name in "bd"])
    a_run(tmp_path / "runs", "c", float(middle), dim=7, study={"name": "made", "row": "c"})
    leaderboard(tmp_path / "runs", tmp_path / "page")
    (header,) = rows_of(tmp_path / "page.md", "row | model")
    at = header.index("NDCG@10 against the row below")
    said = {name: rows_of(tmp_path / "page.md", f"{name} |")[0][at] for name in "abcd"}
    assert (said["c"], said["d"]) == ("–", "–")
    for above, under in ("ab", "bd"):
        gains = [np.where(ranks[name] < 10, 1 / np.log2(ranks[name] + 2), 0) for name in (above, under)]
        off = gains[0] - gains[1]
        drawn = [off[random.integers(0, off.size, off.size)].mean() for _ in range(4000)]
        low, high = (float(end) for end in said[above].partition("[")[2].strip("]").split(", "))
        assert float(said[above].split()[0]) == pytest.approx(off.mean(), abs=6e-5)
        assert (low, high) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.003)


def test_a_table_without_the_mandatory_rows_says_so_on_top_and_row_by_row(tmp_path: Path):
    a_study(tmp_path / "runs")
    leaderboard(tmp_path / "runs", tmp_path / "page")
    assert "Incomplete" not in (tmp_path / "page.md").read_text()
    for run in [*(tmp_path / "runs").glob("beauty/markov*"), *(tmp_path / "runs").glob("beauty/sasrec*")]:
        fields = json.loads((run / "result.json").read_text())
        fields.pop("tuning", None)
        fields["config"]["model"]["init_args"]["recommender"]["class_path"] = "seqrec.recommenders.other.Other"
        (run / "result.json").write_text(json.dumps(fields))
    leaderboard(tmp_path / "runs", tmp_path / "page")
    page = (tmp_path / "page.md").read_text()
    assert "**Incomplete.** This table lacks first-order Markov, SASRec with a record of its tuning:" in page
    assert "| first-order Markov | not run |" in page
    assert "| SASRec with a record of its tuning | not run |" in page
    assert "| popularity | not run |" not in page
    assert page.index("Incomplete") < page.index("| row | model |")


def test_popularity_of_another_span_and_a_seed_without_a_record_of_tuning_are_no_mandatory_rows(tmp_path: Path):
    a_study(tmp_path / "runs")
    for name, change in (
        ("popularity-7-days-seed1", lambda fields: recommender_of(fields)["init_args"].update(days=30)),
        ("sasrec-seed2", lambda fields: fields.pop("tuning")),
    ):
        path = tmp_path / "runs" / "beauty" / name / "result.json"
        fields = json.loads(path.read_text())
        change(fields)
        path.write_text(json.dumps(fields))
    leaderboard(tmp_path / "runs", tmp_path / "page")
    page = (tmp_path / "page.md").read_text()
    assert "This table lacks 7-day popularity, SASRec with a record of its tuning:" in page


def test_a_log_without_a_clock_needs_no_row_of_the_last_week(tmp_path: Path):
    for name, has_clock in (("with", True), ("without", False)):
        a_measured_run(tmp_path / name, "run", [1, 2, 3], passport={"has_clock": has_clock})
        leaderboard(tmp_path / name, tmp_path / f"{name}-page")
        page = (tmp_path / f"{name}-page.md").read_text()
        assert ("| 7-day popularity | not run |" in page) is has_clock
        assert "| popularity | not run |" in page


def test_the_baseline_is_a_plain_sasrec_chosen_by_validation(tmp_path: Path):
    """Rows that are better on the test are passed over: another loss, texts, other positions, a worse validation."""
    sasrec = sequential("seqrec.backbones.sasrec.SASRec")
    with_texts = sequential("seqrec.backbones.sasrec.SASRec", "seqrec.embeddings.pretrained.TextTower")
    places = {"class_path": "seqrec.positions.contextual.CAPE"}
    inside, backbone = sasrec["init_args"], sasrec["init_args"]["backbone"]
    gaps = {"class_path": "seqrec.positions.time_gap.TimeGap"}
    in_attention = {"init_args": inside | {"backbone": backbone | {"init_args": {"position": places}}}}
    a_study(tmp_path / "runs")
    others: dict[str, dict[str, Any]] = {
        "two": {"recommender": sasrec | {"heads": 2}, "validation": {"val/ndcg@10": 0.09, "epoch": 1}},
        "gbce": {"recommender": sasrec, "objective": "seqrec.objectives.binary.GBCE"},
        "texts": {"recommender": with_texts},
        "cape": {"recommender": sasrec | in_attention, "validation": {"val/ndcg@10": 0.3, "epoch": 1}},
        "gaps": {
            "recommender": sasrec | {"init_args": inside | {"position": gaps}},
            "validation": {"val/ndcg@10": 0.3},
        },
        "three": {"recommender": sasrec | {"heads": 4}, "validation": {"val/ndcg@10": 0.03, "epoch": 1}},
    }
    told: dict[str, Any] = {"tuning": {"asked": 20}, "passport": {"dataset": "beauty", "target_hash": "beauty"}}
    for name, fields in others.items():
        a_measured_run(
            tmp_path / "runs", name, np.zeros(400, dtype=int), study={"name": "x", "row": name}, **told, **fields
        )
    best = {"validation": {"val/ndcg@10": 0.2, "epoch": 1}, "study": {"name": "x", "row": "four"}}
    a_run(tmp_path / "runs", "four", 0.9, recommender=sasrec | {"heads": 8}, **told, **best)  # and kept no ranks
    leaderboard(tmp_path / "runs", tmp_path / "page")
    assert "NDCG@10 against two" in (tmp_path / "page.md").read_text()
    for run in [
        *(tmp_path / "runs" / name for name in ("two", "three", "four")),
        *(tmp_path / "runs").glob("beauty/sasrec*"),
    ]:
        shutil.rmtree(run)
    leaderboard(tmp_path / "runs", tmp_path / "page")
    assert "| SASRec with a record of its tuning | not run |" in (tmp_path / "page.md").read_text()


def test_an_option_that_came_later_parts_no_older_run_from_a_newer_one(tmp_path: Path):
    older, newer, other = (sequential("seqrec.backbones.sasrec.SASRec") for _ in range(3))
    newer["init_args"] |= {"output": None, "start": "own", "dropout": 0.0}
    other["init_args"] |= {"start": "xavier_normal"}
    for seed, recommender in enumerate((older, newer, other)):
        a_run(tmp_path, f"seed{seed}", recommender=recommender, seed=seed)
    assert sorted(len(row.runs) for table in tables_of(read([tmp_path])) for row in table.rows) == [1, 2]


@pytest.mark.parametrize("field", [field for field in COMPARED if field not in OPTIONAL])
def test_a_passport_that_lacks_what_is_compared_is_refused(tmp_path: Path, field: str):
    run = a_run(tmp_path, "one")
    result = json.loads((run / "result.json").read_text())
    del result["passport"][field]
    (run / "result.json").write_text(json.dumps(result))
    with pytest.raises(InputError, match=rf"has no passport\.{field}"):
        read([tmp_path])


def test_numbers_of_a_passport_are_compared_as_numbers(tmp_path: Path):
    for seed, days in enumerate((7, 7.0, 7.5)):
        a_run(tmp_path, f"seed{seed}", seed=seed, passport={"parameters": {"test_days": days}})
    assert sorted(len(row.runs) for table in tables_of(read([tmp_path])) for row in table.rows) == [1, 2]


def test_what_is_null_was_not_written_down(tmp_path: Path):
    for seed, fields in enumerate(({"study": None, "tuning": None}, {"study": {"name": "s", "fingerprint": None}})):
        a_run(tmp_path, f"seed{seed}", seed=seed, **fields)
    leaderboard(tmp_path, tmp_path / "page")
    assert rows_of(tmp_path / "page.md")[0][2] == "2"


@pytest.mark.filterwarnings("error")
def test_a_figure_that_is_no_number_does_not_differ_from_itself(tmp_path: Path):
    for name in ("one", "copy"):
        a_run(tmp_path, name, float("nan"))
    assert len(tables_of(read([tmp_path]))) == 1


def test_a_row_without_ranks_does_not_keep_the_budget_of_time_from_being_answered(tmp_path: Path):
    a_study(tmp_path / "runs")
    a_run(tmp_path / "runs", "unranked", passport={"dataset": "beauty", "target_hash": "beauty"}, wall_seconds=1.0)
    (table,) = tables_of(read([tmp_path / "runs"]))
    answer = answers(table, gains_of(table.rows), minutes=10.0)[-1]
    assert answer.models
    assert "left out, for lack of the ranks of a seed: SASRec" in answer.why


def test_two_runs_are_compared_on_their_users(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    ranks = np.arange(60) % 12
    one = [a_measured_run(tmp_path / "one", f"seed{seed}", ranks, seed=seed) for seed in (1, 2)]
    a_measured_run(tmp_path / "two", "run", np.where(np.arange(60) < 30, 0, ranks), dim=8)
    compare(tmp_path / "two", tmp_path / "one")
    said = capsys.readouterr().out
    assert "SASRec, 2 seeds, recall@10" in said
    assert "ndcg@10 of the first minus the second: +0." in said
    assert "not compared user by user, because one has more seeds." in said
    compare(tmp_path / "two", one[0])
    said = capsys.readouterr().out
    # Of the first 30 users, ranks 0 to 11 and again, 3 were at rank 0 already.
    assert "better for 27 users, alike for 33, worse for 0." in said
    compare(tmp_path / "two", one[0], "recall@5")
    # 7, 7 and 1 of them were no better than rank 5.
    assert "recall@5 of the first minus the second: +0.2500" in (said := capsys.readouterr().out)
    assert "better for 15 users, alike for 45, worse for 0." in said
    for metric in ("recal@5", "recall", "recall@0", "recall@five"):
        with pytest.raises(InputError, match=f"There is no metric '{metric}'; name one of recall, ndcg, mrr"):
            compare(tmp_path / "two", tmp_path / "one", metric)
    compare(one[0], one[1])
    assert "+0.0000, 95 % over users [+0.0000, +0.0000]; Wilcoxon p 1.0000" in capsys.readouterr().out
    a_measured_run(tmp_path / "three", "run", ranks, dim=16, reads_asked_at=True)
    compare(tmp_path / "three", one[0])
    assert "three: SASRec (knows when it is asked), 1 seed, " in capsys.readouterr().out
    with pytest.raises(InputError, match="holds 3 recipes"):
        compare(tmp_path, tmp_path / "one")
    (tmp_path / "two" / "run" / "ranks.parquet").unlink()
    compare(tmp_path / "two", tmp_path / "one")
    assert "no interval can be given" in capsys.readouterr().out


def test_ranks_that_are_not_those_of_their_result_are_refused(tmp_path: Path):
    run = a_measured_run(tmp_path, "one", [1, 2, 3])
    a_measured_run(tmp_path, "two", [1, 2, 3], users=[7, 8, 9], dim=8)
    with pytest.raises(InputError, match="holds other predictions than"):
        leaderboard(tmp_path, tmp_path / "page")
    fields = json.loads((run / "result.json").read_text())
    fields["metrics"]["count"] = 4
    (run / "result.json").write_text(json.dumps(fields))
    with pytest.raises(InputError, match=r"holds 3 predictions and result\.json counts 4"):
        leaderboard(tmp_path, tmp_path / "page")


def test_a_folder_of_runs_is_searched_and_nothing_is_read_twice(tmp_path: Path):
    run = a_run(tmp_path / "runs", "one", 0.04)
    leaderboard([tmp_path / "runs", run], tmp_path / "page.html")
    assert len(rows_of(tmp_path / "page.md")) == 1
    leaderboard(tmp_path / "runs", tmp_path / "page.md")
    assert len(rows_of(tmp_path / "page.md")) == 1


def test_it_says_where_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    leaderboard(a_run(tmp_path, "one", 0.04), tmp_path / "page")
    assert capsys.readouterr().out == f"{tmp_path / 'page.md'} and {tmp_path / 'page.html'}: 1 run in 1 table.\n"


def test_the_recorded_results_are_read_and_become_a_page_in_seconds(tmp_path: Path):
    began = time.process_time()
    leaderboard([ROOT / "experiments" / "results" / name for name in ("quality", "studies")], tmp_path / "page")
    assert time.process_time() - began < 30
    assert "amazon-beauty, LeaveOneOut, seen items excluded" in (tmp_path / "page.md").read_text()


def test_mistakes_are_named(tmp_path: Path):
    with pytest.raises(InputError, match="does not exist"):
        leaderboard([tmp_path / "nowhere"], tmp_path / "page")
    with pytest.raises(InputError, match="was found"):
        leaderboard([tmp_path], tmp_path / "page")
    (tmp_path / "result.json").write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        leaderboard([tmp_path], tmp_path / "page")
    (tmp_path / "result.json").write_text('{"metrics": {}}')
    with pytest.raises(InputError, match="has no passport"):
        leaderboard([tmp_path], tmp_path / "page")
    whole = json.loads((a_run(tmp_path / "other", "run") / "result.json").read_text())
    for name in ("metrics", "passport", "config"):
        (tmp_path / "result.json").write_text(json.dumps(whole | {name: None}))
        with pytest.raises(InputError, match=f"has no {name}; run"):
            leaderboard([tmp_path], tmp_path / "page")
    (tmp_path / "result.json").write_text(json.dumps(whole | {"metrics": {"ndcg@10": "0.05"}}))
    with pytest.raises(InputError, match=r"has '0\.05' for ndcg@10, which is no number; run"):
        leaderboard([tmp_path], tmp_path / "page")
    assert not (tmp_path / "page.md").exists()
