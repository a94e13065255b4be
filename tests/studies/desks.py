"""A tiny study of a simulated shop, run by the real program in processes of its own."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from seqrec.studies.jobs import Job, Places, jobs_of
from seqrec.studies.study import read_study

ROOT = Path(__file__).parents[2]

QUIET = {"trainer.accelerator": "cpu", "trainer.log_every_n_steps": 1}
FIRST = {"model.learning_rate": 0.02, "model.of.another.row": 1}
STUDY = {
    "name": "tiny",
    "about": "The mandatory rows on a simulated shop.",
    "data": {"shop": ["shop.yaml"]},
    "seeds": [1],
    "search": {"trials": 3, "warmup_epochs": 1, "set": {"trainer.max_epochs": 2}, "first": FIRST},
    "rows": {
        "popularity": {"configs": [f"{ROOT}/configs/model/popularity.yaml"], "set": QUIET},
        "sasrec": {
            "configs": ["sasrec.yaml"],
            "set": {"trainer.max_epochs": 12, **QUIET},
            "space": {"model.learning_rate": {"low": 0.001, "high": 0.03, "log": True}},
        },
    },
}
SASREC = """
model:
  recommender:
    class_path: seqrec.recommenders.sequential.SequentialRecommender
    init_args:
      embedding: {class_path: seqrec.embeddings.ids.IdEmbedding, init_args: {dim: 8}}
      backbone: {class_path: seqrec.backbones.sasrec.SASRec, init_args: {dim: 8, n_layers: 1, n_heads: 2, dropout: 0.1}}
      dropout: 0.1
  objective: seqrec.objectives.softmax.FullSoftmax
"""


@dataclass(frozen=True)
class Desk:
    """A folder with a study file, and the program that works on it."""

    folder: Path
    study: Path
    results: Path
    runs: Path

    @property
    def places(self) -> Places:
        return Places(self.runs, self.results)

    @property
    def jobs(self) -> list[Job]:
        return jobs_of(read_study(self.study), self.places)

    def job(self, label: str, seed: int | None) -> Job:
        return next(job for job in self.jobs if (job.label, job.seed) == (label, seed))

    def start(self, *options: str) -> subprocess.Popen:
        command = [sys.executable, str(ROOT / "experiments" / "grid.py"), str(self.study)]
        command += [f"--runs={self.runs}", f"--results={self.results}", *options]
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(
            command, cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def run(self, *options: str, status: int = 0) -> str:
        process = self.start(*options)
        said, _ = process.communicate()
        assert process.returncode == status, said + self.logs()
        return said

    def logs(self) -> str:
        return "\n".join(log.read_text()[-3000:] for log in self.runs.rglob("*.log"))


def kill(processes: list[psutil.Process]) -> None:
    """End processes without a word of warning."""
    for process in processes:
        process.kill()
    psutil.wait_procs(processes)


def wait_until(true: Callable[[], object], process: subprocess.Popen, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.005)
