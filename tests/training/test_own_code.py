"""Parts of someone's own are known by their sources, wherever a figure says what made it."""

import json
from pathlib import Path

import pytest
from small_shop import a_shop, command

from seqrec.board.results import Result
from seqrec.board.sections import _commit
from seqrec.cli import main
from seqrec.reproduction import _check_own_code
from seqrec.studies.jobs import Places, jobs_of
from seqrec.studies.study import read_study
from seqrec.training.own_code import own_code

PART = """
import torch
from seqrec.backbones.base import Backbone


class Scaled(Backbone):
    causal = True

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.scale = torch.nn.Parameter(torch.ones(dim))

    def forward(self, events, history):
        return events * self.scale
"""
NAMED = {"model": {"backbone": {"class_path": "their_parts.Scaled"}, "norm": "torch.nn.LayerNorm", "k": [1, "a.b.c"]}}


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "their_parts.py").write_text(PART)
    return tmp_path


def test_modules_outside_what_is_installed_are_known_by_their_content(here):
    before = own_code(NAMED)
    assert list(before) == ["their_parts"]
    assert own_code(['{"class_path": "their_parts.Scaled"}']) == before
    (here / "their_parts.py").write_text(PART + "\n# changed\n")
    assert own_code(NAMED) != before
    assert own_code(["seqrec.backbones.sasrec.SASRec", "json.JSONDecoder", "torch.nn.GELU", "no_such.Part"]) == {}


def test_a_package_is_known_by_all_its_files(here):
    (here / "their_package").mkdir()
    for name in ("__init__.py", "parts.py", "helper.py"):
        (here / "their_package" / name).write_text("one = 1\n")
    before = own_code("their_package.parts.Part")
    (here / "their_package" / "helper.py").write_text("one = 2\n")
    assert own_code("their_package.parts.Part") != before


def test_a_module_is_known_by_those_of_its_own_that_it_imports_and_they_import(here):
    (here / "their_parts.py").write_text("import torch\nfrom their_helper.deep import one\n" + PART)
    (here / "their_helper").mkdir()
    (here / "their_helper" / "__init__.py").write_text("def late():\n    import their_other, their_parts\n")
    (here / "their_helper" / "deep.py").write_text("one = 1\n")
    (here / "their_other.py").write_text("two = 1\n")
    (here / "unrelated.py").write_text("three = 1\n")
    before = own_code(NAMED)
    assert list(before) == ["their_parts"]
    (here / "unrelated.py").write_text("three = 2\n")
    assert own_code(NAMED) == before
    for name in ("their_helper/deep.py", "their_other.py"):
        source = (here / name).read_text()
        (here / name).write_text(source + "changed = 1\n")
        assert own_code(NAMED) != before
        (here / name).write_text(source)
    (here / "their_other.py").write_text("this is no Python\n")
    assert own_code(NAMED) != before


def test_a_job_is_not_done_once_a_part_of_ones_own_has_changed(here, monkeypatch):
    monkeypatch.chdir(a_shop(here))
    backbone = json.dumps({"class_path": "their_parts.Scaled", "init_args": {"dim": 8}})
    row = {"configs": ["model.yaml"], "set": {"model.recommender.init_args.backbone": backbone}}
    study = {"name": "s", "about": "a", "data": {"shop": ["data.yaml"]}, "seeds": [1], "rows": {"one": row}}
    Path("study.yaml").write_text(json.dumps(study))
    (job,) = jobs_of(read_study(Path("study.yaml")), Places(here / "runs", here / "results"))
    before = job.fingerprint
    assert "own_code" in before
    Path("their_parts.py").write_text(PART + "\n# changed\n")
    assert job.fingerprint != before


def test_a_result_names_the_code_and_a_test_says_that_it_has_changed(here, capsys):
    a_shop(here)
    key = "--model.recommender.init_args.backbone"
    backbone = [f"{key}=their_parts.Scaled", f"{key}.init_args.dim=8"]
    assert main(command(here, "fit", "run", *backbone, "--trainer.max_epochs=1")) == 0
    assert main(["test", f"--run={here / 'run'}", "--verbose=false"]) == 0
    assert "their_parts" not in capsys.readouterr().err
    result = json.loads((here / "run" / "result.json").read_text())
    assert result["own_code"] == own_code("their_parts.Scaled")
    assert _commit(result).endswith(f" with their_parts {result['own_code']['their_parts'][:9]}")
    assert Result(here / "run", result).code == result["own_code"]["their_parts"]
    _check_own_code(Result(here / "run", result))
    (here / "their_parts.py").write_text(PART + "\n# changed\n")
    with pytest.warns(UserWarning, match=r"The code of their_parts is not what .*run was made with"):
        _check_own_code(Result(here / "run", result))
    assert main(["test", f"--run={here / 'run'}", "--verbose=false"]) == 0
    assert f"The code of their_parts is not what it was when {here / 'run'} was trained" in capsys.readouterr().err
