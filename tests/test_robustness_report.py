"""The report on finished runs, what may stand in it, and what is not done again, by results made up for the test."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from seqrec.audit import figures
from seqrec.cli import main
from seqrec.data.errors import InputError
from seqrec.evaluation import detection
from seqrec.objectives.trail import Trail
from seqrec.robustness import _begin, _holds
from seqrec.robustness_report import interval, write_report
from seqrec.studies.locks import held
from seqrec.training.record import write

sys.path.append(str(Path(__file__).parents[1] / "experiments"))

import robustness as study


def add(out: Path, name: str, **changed: Any) -> dict[str, Any]:
    """A result; `attack` to `seed` are its place, `hr`, `recall` and `model` what it reached and was trained with."""
    defaults = {"attack": "Random", "budget": 0.01, "defence": "none", "seed": 1, "targets": [7], "code": "a"}
    result: dict[str, Any] = {**defaults, "files": {}, "detection": {}, **changed}
    hr, recall = result.pop("hr", 0.1), result.pop("recall", 0.2)
    result["metrics"] = {"t_hr@10": hr / 2, "t_hr@50": hr, "recall@10": recall, "ndcg@10": 0.1}
    passport = {"dataset": f"{result['attack']}{result['budget']}", "target_hash": "t"}
    result["passport"] = passport | result.pop("passport", {})
    config = {"seed_everything": result["seed"], "data": {"prepared": name, "seed": result["seed"]}}
    model = {"init_args": {"recommender": {"dim": 8}, **result.pop("model", {})}}
    result["config"] = {**config, "model": model, **result.pop("config", {})}
    write(out / "results" / f"{name}.json", json.dumps(result))
    return result


def page(out: Path, *asked: str) -> str:
    write_report(out, [7], asked)
    return (out / "robustness.md").read_text()


def cells(said: str, start: str) -> dict[str, str]:
    """The row of a page that starts like this, by the names of the columns."""
    header, (row,) = (
        [line for line in said.splitlines() if line.startswith(f"| {begin}")] for begin in ("attack |", start)
    )
    return dict(zip(*(line.strip("| ").split(" | ") for line in (header[0], row)), strict=True))


def test_a_figure_that_only_some_runs_have_says_how_many(tmp_path):
    for seed, precision in ((1, 0.5), (2, None)):
        add(tmp_path, f"{seed}", defence="forest", seed=seed, detection={"precision": precision})
    row = cells(page(tmp_path), "Random | 1.0% | forest")
    assert row["recall@10"] == "0.2000 ± 0.0000"
    assert row["precision"] == "0.500 (1 of 2)"


def test_a_report_leaves_out_what_is_of_another_training_than_what_was_asked_for_and_says_so(tmp_path):
    trained = {"trainer": {"max_epochs": 2}}
    add(tmp_path, "a-old-model", model={"recommender": {"dim": 16}}, hr=0.9)
    add(tmp_path, "b-old-data", passport={"dataset": "b"}, hr=0.9)
    add(tmp_path, "c-old-targets-of-tests", attack="DP", passport={"target_hash": "other"})
    add(tmp_path, "d-old-texts", files={"v": "1"}, hr=0.9)
    add(tmp_path, "e-old-model", defence="lorec", model={"recommender": {"dim": 16}})
    add(tmp_path, "f-old-length", defence="lorec", config={"trainer": {"max_epochs": 9}})
    add(tmp_path, "g-old-strength", defence="lorec", model={"reweighter": {"weight": 1, "seed": 4}})
    add(tmp_path, "h-unasked", attack="DP", config=trained)
    add(tmp_path, "x-first", hr=0.1, files={"v": "2"}, config=trained)
    add(tmp_path, "y-second", seed=2, hr=0.3, config=trained)
    fought = {"reweighter": {"weight": 2, "seed": 5}, "auxiliaries": [{"class_path": "a.B"}]}
    add(tmp_path, "z-defended", defence="lorec", model=fought, hr=0.05, config=trained)
    with pytest.warns(UserWarning, match="is left out") as said:
        told = page(tmp_path, "x-first", "y-second", "z-defended")
    assert {Path(str(each.message).split()[0]).stem[0] for each in said} == set("abcdefg")
    assert cells(told, "Random | 1.0% | none")["t_hr@50"].startswith("0.2000 ±")
    assert cells(told, "Random | 1.0% | lorec")["t_hr@50"] == "0.0500"
    assert "\n| DP | 1.0% | none | 1 |" in told


def test_an_argument_of_a_part_named_like_one_of_a_run_tells_results_apart(tmp_path):
    for name, layers in (("a", 1), ("b", 9)):
        add(tmp_path, name, model={"recommender": {"config": {"layers": layers}, "run": 3}}, config={"run": name})
    with pytest.warns(UserWarning, match=r"b\.json is of another model"):
        page(tmp_path)


def test_when_a_result_was_written_changes_nothing(tmp_path):
    for name, dim in (("a", 8), ("b", 16)):
        add(tmp_path, name, model={"recommender": {"dim": dim}}, hr=dim / 100)
    with pytest.warns(UserWarning, match=r"b\.json is of another model"):
        told = page(tmp_path)
    assert cells(told, "Random")["t_hr@50"] == "0.0800"


def test_what_a_defence_cuts_and_costs_by_hand_over_the_seeds_that_all_three_runs_share(tmp_path):
    for seed, clean, undefended, defended in ((1, 0.1, 0.5, 0.2), (2, 0.1, 0.3, 0.2), (3, 0.4, 0.3, 0.2)):
        add(tmp_path, f"clean{seed}", attack="clean", budget=0.0, seed=seed, hr=clean)
        add(tmp_path, f"none{seed}", seed=seed, hr=undefended, recall=0.2)
        add(tmp_path, f"lorec{seed}", defence="lorec", seed=seed, hr=defended, recall=0.2 - 0.01 * seed)
    add(tmp_path, "lorec4", defence="lorec", seed=4, hr=0.9, recall=0.9)
    add(tmp_path, "cleaned", attack="clean", budget=0.0, defence="lorec", recall=0.19)
    add(tmp_path, "alone", attack="DP", defence="lorec")
    told = page(tmp_path)
    row = cells(told, "Random | 1.0% | lorec")
    cuts, changes = [0.75, 0.5], [-0.05, -0.1, -0.15]  # with seed 3 nothing rose
    assert row["cut of t_hr@50"] == f"62.5% ± {interval(cuts):.1%} (n = 2)"
    assert row["change of recall@10"] == f"-10.0% ± {interval(changes):.1%} (n = 3)"
    for start, change in (
        ("clean | – | lorec", "-5.0% (n = 1)"),
        ("DP | 1.0% | lorec", "–"),
        ("Random | 1.0% | none", "–"),
    ):
        assert [cells(told, start)[name] for name in ("cut of t_hr@50", "change of recall@10")] == ["–", change]


def test_a_row_lists_its_seeds_and_says_when_its_runs_are_of_different_code(tmp_path):
    for seed in (10, 2):
        add(tmp_path, f"none{seed}", seed=seed)
        add(tmp_path, f"lorec{seed}", defence="lorec", seed=seed, code=f"of {seed}")
    told = page(tmp_path)
    assert cells(told, "Random | 1.0% | none")["seeds"] == "2, 10"
    assert cells(told, "Random | 1.0% | lorec")["seeds"] == "2, 10, of different code"


def test_a_page_says_what_was_not_run(tmp_path):
    for attack in (each for each in study.ATTACKS if each != "Rev"):
        for seed in (1, 2):
            for budget in (0.01, 0.03):
                add(tmp_path, f"{attack}{budget}{seed}", attack=attack, budget=budget, seed=seed)
    for seed in (1, 2):
        add(tmp_path, f"clean{seed}", attack="clean", budget=0.0, seed=seed)
    assert "\n**Incomplete**: Rev never run.\n" in page(tmp_path)
    for budget in (0.01, 0.03):
        for seed in (1, 2):
            add(tmp_path, f"Rev{budget}{seed}", attack="Rev", budget=budget, seed=seed)
    assert "Incomplete" not in page(tmp_path)
    (tmp_path / "results" / "DP0.031.json").unlink()
    for seed in (1, 2):
        (tmp_path / "results" / f"Random0.01{seed}.json").unlink()
    assert "\n**Incomplete**: no seed 1 of DP 3.0% + none; no seed 1, 2 of Random 1.0% + none.\n" in page(tmp_path)


def test_a_page_says_what_each_defence_was(tmp_path):
    forest = {"class_path": "seqrec.objectives.isolation.IsolationForest", "init_args": {"share": 0.02, "seed": 5}}
    known = {"class_path": "seqrec.data.poisoning.known.KnownFraudsters", "init_args": {"share": 0.5, "n_targets": 5}}
    gone = {"class_path": "seqrec.nowhere.Gone", "init_args": {"weight": 1}}
    add(tmp_path, "none")
    add(tmp_path, "lorec", defence="lorec", model={"reweighter": forest}, config={"data": {"fraudsters": known}})
    add(tmp_path, "other", defence="other", model={"auxiliaries": [gone]})
    add(tmp_path, "unknown", defence="unknown")
    lines = [
        line for line in page(tmp_path).splitlines() if line.startswith(("- lorec", "- other", "- unknown", "- none"))
    ]
    assert lines == [
        "- lorec: `seqrec.objectives.isolation.IsolationForest()`, "
        "`seqrec.data.poisoning.known.KnownFraudsters(share=0.5)`",
        "- other: `seqrec.nowhere.Gone(weight=1)`",
    ]


def test_detection_is_that_of_the_weights_that_the_model_was_trained_with():
    """Two users, of whom the second is fake and found after 5 epochs; after 10 the first is taken for a worse one."""
    trail, is_fake, lengths = Trail(active_from=8), torch.tensor([False, True]), torch.tensor([9, 10])
    for epochs, weights in ((5, [1.0, 0.1]), (10, [0.1, 0.3])):
        trail.decided(epochs, torch.tensor(weights), torch.tensor(weights) < 1, -torch.tensor(weights))
    equal = {"weight_of_fakes": 1.0, "weight_of_genuine": 1.0}
    assert figures(trail, is_fake, lengths, epochs=6) == figures(trail, is_fake, lengths, epochs=8) == equal
    for epochs in (9, 10):
        found = figures(trail, is_fake, lengths, epochs)
        assert (found["precision"], found["recall"], found["auc"]) == (1.0, 1.0, 1.0)
        assert found["weight_of_fakes"] == pytest.approx(0.1)
    found = figures(trail, is_fake, lengths, epochs=11)
    assert (found["precision"], found["recall"], found["auc"]) == (0.5, 1.0, 0.0)


def test_clean_data_have_no_fakes_to_find(tmp_path):
    nobody = torch.zeros(3, dtype=torch.bool)
    assert torch.tensor(detection.precision(~nobody, nobody)).isnan()
    found = {"precision": 0.0, "recall": None, "weight_of_fakes": None, "weight_of_genuine": 0.9}
    add(tmp_path, "clean", attack="clean", budget=0.0, defence="lorec", detection=found)
    told = page(tmp_path)
    assert "part of what detection finds is length; `auc_same_length` holds each fake against genuine users" in told
    row = cells(told, "clean | – | lorec")
    assert (row["precision"], row["weight_of_genuine"]) == ("–", "0.900")


def test_a_defence_that_no_clean_run_has_is_named_in_the_picture(tmp_path):
    add(tmp_path, "clean", attack="clean", budget=0.0)
    add(tmp_path, "attacked", defence="forest")
    page(tmp_path)
    assert "<!-- forest -->" in (tmp_path / "robustness.svg").read_text()


def test_a_result_holds_if_data_files_and_code_are_the_same(tmp_path):
    result = add(tmp_path, "kept", files={"v": "1"})
    path, config = tmp_path / "results" / "kept.json", {"data": {"seed": 1}, "model": result["config"]["model"]}
    recipe = {"dataset": "Random0.01", "config": config, "files": {"v": "1"}, "code": "a"}
    texts, code, no_texts = {"files": {"v": "2"}}, {"code": "b"}, {"files": {}}

    def holds(**wanted: Any) -> list[bool]:
        return [_holds(path, recipe | wanted, [7], [10, 50], any_code) for any_code in (False, True)]

    assert holds() == [True, True]
    assert holds(**texts) == [False, False]
    assert holds(**code) == [False, True]
    for lost, with_texts, without in (
        ("code", [False, True], [False, False]),
        ("files", [False, False], [False, True]),
    ):
        write(path, json.dumps({name: value for name, value in result.items() if name != lost}))
        assert (holds(), holds(**no_texts)) == (with_texts, without)


def test_a_result_that_was_cut_short_is_named(tmp_path):
    add(tmp_path, "kept")
    path = tmp_path / "results" / "kept.json"
    for cut in (path.read_text()[:50], "[]", "{}"):
        path.write_text(cut)
        for ask in (lambda: page(tmp_path), lambda: _holds(path, {}, [7], [10], False)):
            with pytest.raises(InputError, match=r"kept\.json is cut short or no result .* remove it"):
                ask()


def test_a_run_that_other_code_began_goes_on_only_if_any_code_will_do(tmp_path):
    recipe = {"dataset": "d", "config": {"dim": 8}, "files": {}, "code": "a"}
    assert _begin(tmp_path / "run", recipe, False) == "a"
    trained = tmp_path / "run" / "fit.json"
    trained.touch()
    assert _begin(tmp_path / "run", recipe | {"code": "b"}, True) == "a"
    assert trained.exists()
    assert _begin(tmp_path / "run", recipe | {"code": "b"}, False) == "b"
    assert not trained.exists()


def given(tmp_path: Path, attacks: str) -> list[str]:
    return ["robustness", f"--data={tmp_path}", "--model=[]", f"--attacks={attacks}", f"--out={tmp_path / 'out'}"]


def test_two_attacks_of_one_name_are_refused(tmp_path, capsys):
    assert main(given(tmp_path, "[Random,Random]")) == 2
    assert "name each attack once" in capsys.readouterr().err


def test_two_programs_do_not_work_in_one_folder(tmp_path, capsys):
    with held(tmp_path / "out" / "lock"):
        assert main(given(tmp_path, "[Random]")) == 2
    assert "wait until it has ended, or choose another --out" in " ".join(capsys.readouterr().err.split())


def test_a_study_of_robustness_keeps_newer_results_and_changes_one_thing_at_a_time(tmp_path, monkeypatch):
    asked = []

    def command(*words: str) -> None:
        asked.extend(words)
        for report in ("robustness.md", "robustness.svg"):
            write(tmp_path / "runs/amazon-beauty-sasrec" / report, "")

    monkeypatch.setattr(study, "seqrec", command)
    folders = [tmp_path / place / "amazon-beauty-sasrec" / "results" for place in ("runs", "kept")]
    write(folders[0] / "one.json", "newer")
    write(folders[1] / "one.json", "older")
    write(folders[1] / "two.json", "of another machine")
    places = [f"--runs={tmp_path / 'runs'}", f"--results={tmp_path / 'kept'}", "--vectors=v.parquet", "--any-code"]
    monkeypatch.setattr(sys, "argv", ["robustness.py", *places])
    study.main()
    assert "--any_code=true" in asked
    for folder in folders:
        assert [(folder / f"{name}.json").read_text() for name in ("one", "two")] == ["newer", "of another machine"]
    settings = {name: (reads, told) for name, (_, reads, told) in study.DEFENCES.items() if name.startswith("lorec")}
    assert settings["lorec"] == (True, {"sees": "fit"})
    assert (settings["lorec-by-states"], settings["lorec-without-texts"]) == ((True, {}), (False, {}))
    for name in ("lorec-without-agreement", "lorec-without-entropy"):
        reads, told = settings[name]
        assert reads
        assert len(told.items() - settings["lorec"][1].items()) == 1


def test_intervals_are_those_of_student():
    assert interval([1.0]) is None
    assert interval([1.0, 2.0, 3.0]) == pytest.approx(4.3027 / 3**0.5, rel=1e-4)
