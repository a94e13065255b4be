"""Does the jobs of a study one after the other, beside other processes and machines that do the same."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import mean

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from seqrec.studies import worker
from seqrec.studies.jobs import Job, chosen_trial
from seqrec.studies.locks import is_held

PAUSE = 2.0  # seconds between looks at what others are doing


def work(study: Path, jobs: Sequence[Job], console: Console) -> list[Job]:
    """Do every job that is not done, and wait for those that others are at; if they die, their jobs are taken over.

    Args:
        study: the file of the study.
        jobs: in the order they are to be done.
        console: where progress is shown.

    Returns:
        The jobs that failed; those after them were done.
    """
    failed: list[Job] = []
    say = partial(console.print, highlight=False, markup=False, soft_wrap=True)  # brackets are what they are
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("", total=sum(map(size, jobs)))
        while pending := [job for job in jobs if job not in failed and not job.is_done]:
            ready = [job for job in pending if job.is_ready]
            free = next((job for job in ready if not is_held(job.lock)), None)
            if free is None:
                if not ready:  # they wait for a search that failed
                    failed += pending
                    break
                progress.update(bar, completed=_completed(jobs), description=f"others are at {_counted(ready)}")
                time.sleep(PAUSE)
                continue
            status = _do(study, free, jobs, progress, bar)
            if free.is_done:
                say(f"{free.name}: {_said(free)}; {left(jobs, between_jobs=1)}")
            elif status == 0:  # once more would end alike, for we still go by what we read when we began
                failed.append(free)
                say(f"{free.name}: its config, its data or the code changed while it ran; start again")
            elif status != worker.TAKEN:
                failed.append(free)
                say(f"{free.name}: failed with status {status}, see {free.said}: {_last_line(free)}")
            progress.update(bar, completed=_completed(jobs))
    return failed


def size(job: Job) -> int:
    """How far the bar moves with a job: a search counts as its trials."""
    return job.search.trials if job.seed is None else 1


def left(jobs: Sequence[Job], between_jobs: int = 0) -> str:
    """An estimate in words of the time until all jobs are done, by how long jobs like them took.

    Args:
        jobs: done and not.
        between_jobs: programs at work that hold the lock of no job now.
    """
    pending = [job for job in jobs if not job.is_done]
    if not pending:
        return "nothing left"
    done = [job for job in jobs if job.is_done and job.seconds is not None]
    expected = [_expected(job, done) for job in pending]
    known = [seconds for seconds in expected if seconds is not None]
    if len(known) < len(pending):
        return f"{_counted(pending)} left, no estimate yet"
    hands = max(1, between_jobs + sum(is_held(job.lock) for job in pending))
    with_hands = f" with {hands} at work" if hands > 1 else ""
    return f"{_counted(pending)} left, about {_duration(sum(known) / hands)}{with_hands}"


def _counted(jobs: Sequence[Job]) -> str:
    return "1 job" if len(jobs) == 1 else f"{len(jobs)} jobs"


def _expected(job: Job, done: Sequence[Job]) -> float | None:
    """Mean seconds of the jobs most like it: the same row, else the same data, else the same kind; what counts is
    never like what trains. Of a search, only the trials that are left; else those of the trial that was chosen."""
    kind = [other for other in done if (other.seed is None, other.counts) == (job.seed is None, job.counts)]
    for alike in (
        [other for other in kind if (other.data, other.label) == (job.data, job.label)],
        [other for other in kind if other.label == job.label],
        [other for other in kind if other.data == job.data],
        kind,
    ):
        if alike:
            return mean(other.seconds or 0.0 for other in alike) * (1 - _over(job) / size(job))
    if (search := job.before) is None or search not in done:
        return None
    longer = job.epochs / search.epochs if job.epochs and search.epochs else 1.0
    return chosen_trial(search.outcome)["seconds"] * longer


def _do(study: Path, job: Job, jobs: Sequence[Job], progress: Progress, bar: object) -> int:
    job.said.parent.mkdir(parents=True, exist_ok=True)
    with job.said.open("a") as said:
        process = subprocess.Popen(worker.command(study, job), stdout=said, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None:
                progress.update(bar, completed=_completed(jobs), description=job.name)  # type: ignore[arg-type]
                try:
                    process.wait(timeout=PAUSE)
                except subprocess.TimeoutExpired:
                    continue
        except KeyboardInterrupt:
            process.wait()
            raise
    return process.returncode


def _completed(jobs: Sequence[Job]) -> int:
    """Final runs and trials that are over."""
    return sum(size(job) if job.is_done else _over(job) for job in jobs)


def _over(job: Job) -> int:
    """Trials that are over of a search that is not."""
    if job.seed is not None or job.begun is None:
        return 0
    return min(size(job), len(list(job.folder.glob("trial-*/fit.json"))))


def _said(job: Job) -> str:
    outcome = job.outcome
    if job.seed is None:
        chosen = outcome["trials"][outcome["chosen"]]
        return f"trial {chosen['number']} of {len(outcome['trials'])}, {outcome['metric']} {chosen['value']:.4f}"
    return f"ndcg@10 {outcome['metrics']['ndcg@10']:.4f} in {_duration(job.seconds or 0.0)}"


def _last_line(job: Job) -> str:
    lines = [line for line in job.said.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
