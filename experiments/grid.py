"""Runs a study: every recipe on every data set with every seed, all tuned alike.

It skips what is done and resumes what was stopped. Start it again after a crash, and on further machines that share
the folders: each job is done by one of them. See experiments/README.md.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from seqrec.data.errors import InputError
from seqrec.studies.grid import left, work
from seqrec.studies.jobs import Places, jobs_of
from seqrec.studies.study import read_study

HERE = Path(__file__).parent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="a file such as experiments/studies/s1-beauty.yaml")
    parser.add_argument("--runs", type=Path, default=Path("runs/studies"), help="folder for the runs themselves")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "studies", help="folder for what is kept")
    parser.add_argument("--rows", nargs="+", help="only these rows")
    parser.add_argument("--data", nargs="+", help="only these data sets")
    parser.add_argument("--seeds", type=int, nargs="+", help="only these seeds, and the searches before them")
    parser.add_argument("--any-code", action="store_true", help="count as done what another version of the code did")
    parser.add_argument("--list", action="store_true", help="say what is done and what is left, and do nothing")
    options = parser.parse_args()
    console = Console(markup=False)
    study = read_study(options.study)
    for wanted, known in ((options.rows, study.rows), (options.data, study.data)):
        for name in wanted or []:
            if name not in known:
                raise InputError(f"{options.study} has no '{name}'; there are {', '.join(known)}.")
    seeds = {*study.seeds, *(seed for row in study.rows.values() for seed in row.seeds or ())}
    for seed in options.seeds or []:
        if seed not in seeds:
            raise InputError(f"{options.study} has no seed {seed}; there are {', '.join(map(str, sorted(seeds)))}.")
    jobs = [
        job
        for job in jobs_of(study, Places(options.runs, options.results, options.any_code))
        if job.label in (options.rows or study.rows)
        and job.data in (options.data or study.data)
        and (not options.seeds or {*options.seeds} & {*job.seeds})
    ]
    if options.list:
        for job in jobs:
            console.print(f"{'done' if job.is_done else 'left'}  {job.name}", highlight=False)
    failed = [] if options.list else work(options.study, jobs, console)
    console.print(
        f"{study.name}: {sum(job.is_done for job in jobs)} of {len(jobs)} jobs done, {left(jobs)}.", soft_wrap=True
    )
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (InputError, OSError) as error:
        print(f"grid: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("grid: stopped; start it again to go on", file=sys.stderr)
        sys.exit(130)
