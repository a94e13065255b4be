"""What a final run keeps, and whose it is."""

import json
import os
from dataclasses import replace

from seqrec.studies import running


def test_a_run_that_other_code_began_does_not_count_as_done_by_this_code(own_desk, monkeypatch):
    """It is trained already, and only tested now."""
    monkeypatch.setattr(running, "train", lambda folder, arguments: {})
    monkeypatch.setattr(running, "measure", lambda folder: {"metrics": {}})
    job = own_desk.job("popularity", 1)
    lenient = replace(job, places=replace(own_desk.places, any_code=True))
    job.folder.mkdir(parents=True)
    (job.folder / "job.json").write_text(json.dumps(job.fingerprint | {"code": "older"}))
    (job.folder / "ranks.parquet").touch()
    running.run(lenient)
    assert lenient.is_done
    assert not job.is_done


def test_a_job_sees_one_gpu_that_of_the_machine_or_the_one_it_is_given(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    running.on_one_device()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    running.on_one_device()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"
