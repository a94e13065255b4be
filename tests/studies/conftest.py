"""Desks on which a tiny study is run."""

import shutil
from pathlib import Path

import pytest
import yaml
from desks import SASREC, STUDY, Desk

from seqrec.data.prepare import prepare_log
from seqrec.data.simulated import SimulatedShop


@pytest.fixture(scope="session")
def desk(tmp_path_factory) -> Desk:
    """A desk on which nothing is done yet."""
    folder = tmp_path_factory.mktemp("studies")
    prepare_log(SimulatedShop(users=200, items=60, mean_events=12.0), folder / "shop")
    (folder / "shop.yaml").write_text("data: {prepared: shop, max_length: 20, events_per_batch: 200}\n")
    (folder / "sasrec.yaml").write_text(SASREC)
    (folder / "study.yaml").write_text(yaml.safe_dump(STUDY))
    return Desk(folder, Path("study.yaml"), Path("results"), Path("runs"))


@pytest.fixture
def at_desk(desk, monkeypatch) -> Desk:
    """The desk, with its folder as the one we are in; paths in a study are seen from there."""
    monkeypatch.chdir(desk.folder)
    return desk


@pytest.fixture
def own_desk(desk, tmp_path, monkeypatch) -> Desk:
    """A desk of one's own with the same study and nothing done."""
    for name in ("shop", "shop.yaml", "sasrec.yaml", "study.yaml"):
        source = desk.folder / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return Desk(tmp_path, desk.study, desk.results, desk.runs)
