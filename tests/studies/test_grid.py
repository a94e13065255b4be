"""A study is run by real processes, killed without warning, shared between two, and not repeated."""

import json

import pytest
from desks import kill, wait_until

from seqrec.cli import main
from seqrec.data.errors import InputError
from seqrec.studies.locks import is_held


@pytest.fixture(scope="module")
def done(desk):
    """The study after it was killed twice: while a trial trained, and while a final run did."""
    import os

    before = os.getcwd()
    os.chdir(desk.folder)
    search, final = desk.job("sasrec", None), desk.job("sasrec", 1)
    for checkpoint in (search.folder.glob, final.folder.glob):
        process = desk.start()
        wait_until(lambda found=checkpoint: any(found("**/last.ckpt")), process)
        kill(process)
    assert not search.lock.exists() or not is_held(search.lock)
    said = desk.run()
    os.chdir(before)
    return said


def result(desk, label: str, seed: int) -> dict:
    return json.loads((desk.results / "tiny" / "shop" / f"{label}-seed{seed}" / "result.json").read_text())


def test_a_study_that_was_killed_goes_on_to_its_end(done, at_desk):
    assert "5 jobs" not in done.splitlines()[0]
    assert "tiny: 4 of 4 jobs done, nothing left." in done
    assert all(job.is_done for job in at_desk.jobs)
    assert "jobs left, about" in done or "nothing left" in done


def test_what_was_killed_ends_as_if_nothing_had_happened(done, at_desk, own_desk):
    own_desk.run("--rows", "sasrec")
    ours, theirs = (json.loads((desk / own_desk.job("sasrec", None).kept).read_text()) for desk in (own_desk.folder, at_desk.folder))
    told = [[(trial["state"], trial["value"], trial["params"]) for trial in each["trials"]] for each in (ours, theirs)]
    assert told[0] == told[1]
    assert ours["chosen"] == theirs["chosen"]
