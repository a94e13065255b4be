"""Does one job of a study in a process of its own, which holds the lock of the job as long as it lives."""

from __future__ import annotations

import sys
from argparse import ArgumentError, ArgumentParser
from pathlib import Path

from seqrec.studies.jobs import Job, Places
from seqrec.studies.locks import held
from seqrec.studies.study import read_study

TAKEN = 75  # exit status: another process is at this job


def command(study: Path, job: Job) -> list[str]:
    """The command line that does a job."""
    return [
        *(sys.executable, "-m", "seqrec.studies.worker", str(study), job.data, job.label),
        *(f"--runs={job.places.runs}", f"--results={job.places.results}"),
        *([] if job.seed is None else [f"--seed={job.seed}"]),
        *(["--any-code"] if job.places.any_code else []),
    ]


def main() -> int:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("data")
    parser.add_argument("row")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--any-code", action="store_true")
    given = parser.parse_args()
    places = Places(given.runs, given.results, given.any_code)
    job = Job(read_study(given.study), places, given.data, given.row, given.seed)
    with held(job.lock) as mine:
        if not mine:
            return TAKEN
        if not job.is_done:
            _do(job)
    return 0


def _do(job: Job) -> None:
    # Only now, and only what is needed: these are heavy.
    from seqrec.studies.running import run

    if job.seed is not None:
        run(job)
        return
    try:
        from seqrec.studies.searching import search
    except ModuleNotFoundError as missing:
        raise ImportError(
            f"Tuning needs {missing.name}, which is not installed; run pip install 'seqrec[study]'."
        ) from missing
    search(job)


if __name__ == "__main__":
    from seqrec.suggestions import sentence

    try:
        sys.exit(main())
    except (ArgumentError, ValueError, OSError, FloatingPointError, ImportError) as error:
        print(f"seqrec: error: {sentence(error, sys.argv[1:])}", file=sys.stderr)
        sys.exit(2)
