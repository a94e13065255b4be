"""What a study file may say, and that the studies of this repository can be read."""

from pathlib import Path

import pytest
import yaml
from optuna.trial import FixedTrial

from seqrec.data.errors import InputError
from seqrec.lightning_cli import complete_config
from seqrec.studies.jobs import Places, jobs_of
from seqrec.studies.searching import suggested
from seqrec.studies.study import read_study

ROOT = Path(__file__).parents[2]
STUDIES = sorted((ROOT / "experiments" / "studies").glob("*.yaml"))
MANDATORY = {"popularity", "popularity-7-days", "markov"}
# Their logs keep no clock here: times are positions in the histories.
CLOCKLESS = {"data/prepared/ml-1m", "data/prepared/ml-1m-5core", "data/prepared/amazon-toys"}
READ_CLOCKS = {"RecentPopularity", "TimeBias", "TimeGap", "Calendar", "GlobalTime"}

SMALL = {
    "name": "small",
    "about": "Nothing.",
    "data": {"shop": []},
    "seeds": [1, 2],
    "search": {"trials": 4},
    "rows": {"one": {"space": {"model.learning_rate": {"low": 0.1, "high": 1.0}}}, "two": {"seeds": [7]}},
}


def written(path: Path, **changed) -> Path:
    path.write_text(yaml.safe_dump(SMALL | changed))
    return path


def test_a_search_comes_before_its_final_runs(tmp_path):
    study = read_study(written(tmp_path / "study.yaml"))
    jobs = jobs_of(study, Places(tmp_path / "runs", tmp_path / "results"))
    assert [(job.label, job.seed) for job in jobs] == [("one", None), ("one", 1), ("one", 2), ("two", 7)]
    assert [job.before and job.before.name for job in jobs] == [None, "shop/one, search", "shop/one, search", None]


def test_data_that_are_not_there_are_named_with_the_command_that_makes_them(tmp_path):
    (tmp_path / "shop.yaml").write_text("data: {prepared: data/prepared/some-shop}")
    for stack, words in (([str(tmp_path / "shop.yaml")], "seqrec prepare some-shop"), ([], "says data.prepared")):
        study = read_study(written(tmp_path / "study.yaml", data={"shop": stack}))
        with pytest.raises(InputError, match=words):
            _ = jobs_of(study, Places(tmp_path / "runs", tmp_path / "results"))[0].is_done


@pytest.mark.parametrize(("text", "words"), [("data: [", "is not YAML"), ("- data", "holds no keys")])
def test_a_config_that_is_none_is_named(tmp_path, text, words):
    (tmp_path / "shop.yaml").write_text(text)
    study = read_study(written(tmp_path / "study.yaml", data={"shop": [str(tmp_path / "shop.yaml")]}))
    with pytest.raises(InputError, match=rf"shop\.yaml {words}"):
        _ = jobs_of(study, Places(tmp_path / "runs", tmp_path / "results"))[0].is_done


def test_a_row_is_run_on_the_data_of_the_study_whatever_its_own_configs_name(tmp_path):
    for name in ("toys", "published"):
        (tmp_path / f"{name}.yaml").write_text(f"data: {{prepared: data/prepared/{name}}}")
    toys, published = ([str(tmp_path / f"{name}.yaml")] for name in ("toys", "published"))
    rows = {"one": {"configs": published}, "two": {"configs": published, "set": {"data.prepared": "own"}}, "three": {}}
    data = {"toys": toys, "published": published}
    study = read_study(written(tmp_path / "study.yaml", data=data, rows=rows, seeds=[1]))
    told = {job.name: job.arguments for job in jobs_of(study, Places(tmp_path / "runs", tmp_path / "results"))}
    assert told["toys/one, seed 1"][-1] == "--data.prepared=data/prepared/toys"
    assert told["published/one, seed 1"] == [f"--config={published[0]}"] * 2
    assert told["toys/two, seed 1"][-1] == "--data.prepared=own"
    assert told["toys/three, seed 1"] == [f"--config={toys[0]}"]


def test_a_row_may_be_for_some_of_the_data_only(tmp_path):
    rows = {"one": {"data": ["toys"]}, "two": {}}
    study = read_study(written(tmp_path / "study.yaml", data={"shop": [], "toys": []}, rows=rows, seeds=[1]))
    jobs = jobs_of(study, Places(tmp_path / "runs", tmp_path / "results"))
    assert [job.name for job in jobs] == ["shop/two, seed 1", "toys/one, seed 1", "toys/two, seed 1"]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"sedes": [1]}, "has the key 'sedes'; the nearest is 'seeds'"),
        ({"seeds": []}, "seeds of the study is []"),
        ({"data": {}}, "no rows or no data"),
        ({"search": None}, "row one has a space, but the study no `search`"),
        ({"search": {"trials": 0}}, "it must be at least 1"),
        ({"search": {}}, "search has no 'trials'"),
        ({"data": {"shop": ["nowhere.yaml"]}}, "nowhere.yaml, which does not exist"),
        ({"rows": {"one": {"space": {"a": {"low": 1}}}}}, "give it choices, or low and high"),
        ({"rows": {"one": {"data": ["shpo"]}}}, "row one is for the data 'shpo'; the nearest is 'shop'"),
        ({"rows": {"one": {"trials": 9}}}, "has the key 'trials'"),
        ({"rows": None}, "rows of the study is None; give it keys with values"),
        ({"data": ["shop"]}, "data of the study is ['shop']; give it keys with values"),
        ({"seeds": 1}, "seeds of the study is 1; give it a list"),
        ({"rows": {"one": {"seeds": 1}}}, "seeds of row one is 1; give it a list"),
        ({"rows": {"one": {"set": ["a"]}}}, "set of row one is ['a']"),
        ({"search": {"trials": 2, "first": ["a"]}}, "first of search is ['a']"),
        (
            {"rows": {"one": {"space": {"a": {"low": "1e-4", "high": 1.0}}}}},
            "in YAML a small one has a point, as 1.0e-4",
        ),
        ({"rows": {"one": {"space": {"a": {"low": 2, "high": 1}}}}}, "low must not be above high"),
        ({"rows": {"one": {"space": {"a": {"choices": 3}}}}}, "give choices a list"),
        ({"rows": {2024: {}}}, "2024 is no text, as names of rows and data are"),
        ({"data": {1: []}}, "1 is no text"),
        (
            {"data": {"shop": "configs/data/shop.yaml"}},
            "data shop is 'configs/data/shop.yaml'; give it a list of files",
        ),
        ({"data": {"shop": None}}, "data shop is None; give it a list of files"),
        ({"rows": {"one": {"configs": [1]}}}, "configs of row one is [1]; give it a list of files"),
        ({"name": None}, "name of the study is None; give it a text"),
        ({"search": {"trials": "20"}}, "trials of search is '20'; give it a whole number"),
        ({"search": {"trials": None}}, "trials of search is None; give it a whole number"),
        ({"search": {"trials": 2, "warmup_epochs": 0.5}}, "warmup_epochs of search is 0.5"),
        ({"seeds": [1, 1]}, "seeds of the study is [1, 1]; give it whole numbers from 0 on, none twice"),
        ({"seeds": [[1]]}, "seeds of the study is [[1]]"),
        ({"seeds": [-1]}, "seeds of the study is [-1]"),
        ({"rows": {"one": {"seeds": []}}}, "seeds of row one is []"),
        ({"rows": {"one": {"data": []}}}, "row one is for no data"),
        ({"name": "../x"}, "'../x' names a folder"),
        ({"data": {"..": []}}, "'..' names a folder"),
        ({"rows": {"a/b": {}}}, "'a/b' names a folder"),
        ({"rows": {"one": {"space": {"a": {"low": 0, "high": 1.0, "log": True}}}}}, "with log there is no step"),
        ({"rows": {"one": {"space": {"a": {"low": 1, "high": 8, "log": True, "step": 2}}}}}, "with log there is no"),
        ({"rows": {"one": {"space": {"a": {"low": 1, "high": 8, "step": 0}}}}}, "above 0, and so is a step"),
    ],
)
def test_a_mistake_in_a_study_is_named(tmp_path, changed, words):
    with pytest.raises(InputError) as refusal:
        read_study(written(tmp_path / "study.yaml", **changed))
    assert words in str(refusal.value)


def test_a_study_that_has_a_row_twice_or_is_no_text_is_refused(tmp_path):
    path = written(tmp_path / "study.yaml")
    whole = path.read_text()
    path.write_text(whole.replace("  two:", "  one:"))
    with pytest.raises(InputError, match=r"study\.yaml is not YAML \(the key 'one' comes twice in .*line \d+"):
        read_study(path)
    path.write_text(whole + "x: {a: &a {b: 1}, c: {<<: *a, b: 2}}\n")  # to refine what is repeated is no mistake
    with pytest.raises(InputError, match="has the key 'x'"):
        read_study(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="is not YAML"):
        read_study(path)


def test_there_are_the_six_studies_of_the_leaderboard_and_those_of_positions_contrast_and_times():
    numbered, others = [], []
    for path in STUDIES:
        (numbered if path.stem[1:2].isdigit() else others).append(path.stem)
    assert [stem.partition("-")[0] for stem in numbered] == ["s1", "s2", "s3", "s4", "s5", "s6"]
    assert others == ["positions-ml-1m", "positions-yelp", "positions", "sra-cl", "time-bias"]


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_of_this_repository_can_be_read_and_holds_the_mandatory_rows(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    study = read_study(path)
    assert study.name == path.stem
    # The log of MovieLens-1M keeps no clock here, so nobody knows its last week.
    assert set(study.rows) >= MANDATORY - ({"popularity-7-days"} if path.stem.endswith("ml-1m") else set())
    if study.search is not None:
        assert study.rows["sasrec"].space is not None


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_no_row_of_a_study_reads_a_clock_where_there_is_none(path, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    study = read_study(path)
    told = {name: "".join(Path(file).read_text() for file in stack) for name, stack in study.data.items()}
    without = {name for name, text in told.items() if any(f"prepared: {prepared}\n" in text for prepared in CLOCKLESS)}
    for job in jobs_of(study, Places(tmp_path / "runs", tmp_path / "results")):
        if job.name.partition("/")[0] in without and job.before is None:
            used = str(complete_config(job.arguments))
            assert not {name for name in READ_CLOCKS if f".{name}" in used}, job.name


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_what_is_tried_first_is_something_that_the_search_could_draw(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    study = read_study(path)
    first = {} if study.search is None else study.search.first
    for row in study.rows.values():
        for key, choice in (row.space or {}).items():
            if key in first:
                drawn = FixedTrial({key: first[key]})
                assert suggested(drawn, key, choice) == first[key]


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_trials_of_a_study_train_as_many_epochs_as_its_final_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    jobs = jobs_of(read_study(path), Places(tmp_path / "runs", tmp_path / "results"))
    for job in jobs:
        if job.before is not None:
            assert job.epochs is not None
            assert job.before.epochs == job.epochs
    for search in [job for job in jobs if job.seed is None][:1]:
        assert complete_config(search.arguments)["trainer"]["max_epochs"] == search.epochs
