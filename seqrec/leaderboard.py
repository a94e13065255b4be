"""The commands that set runs side by side: the leaderboard of many, and the comparison of two."""

from __future__ import annotations

from pathlib import Path

from seqrec.board import html, markdown
from seqrec.board.gains import gains_of, parted
from seqrec.board.reported import read_claims
from seqrec.board.results import Row, demand_comparable, read, tables_of
from seqrec.board.sections import p_text, sections_of
from seqrec.data.errors import InputError
from seqrec.data.folders import write_whole

REPORTED = Path("experiments/reported.yaml")


def leaderboard(
    results: list[Path] | Path,
    out: Path = Path("docs/leaderboard"),
    baseline: str | None = None,
    minutes: float = 10.0,
    reported: Path | None = None,
) -> None:
    """Write tables of runs as Markdown and as one HTML page; runs whose numbers mean different things never share one.

    seqrec leaderboard runs --out leaderboard
    seqrec leaderboard experiments/results/studies --baseline sasrec --minutes 30

    Each row is one recipe over its seeds. On top stands which model to choose for short histories, for long ones, for
    cold items and under a budget of training time, as far as the results can tell.

    Args:
        results: a folder of runs, or several; each is searched for result.json at any depth.
        out: the pages to write, without their .md and .html.
        baseline: label of the row that others are held against, or its name in its study; otherwise the SASRec
            where there is one.
        minutes: the budget of training time that the page answers for.
        reported: a file of what papers claim, shown beside; experiments/reported.yaml where that exists.

    Raises:
        InputError: no result was found, or something cannot be read.
    """
    found = read(results if isinstance(results, list) else [results])
    chosen = reported or (REPORTED if REPORTED.is_file() else None)
    sections = sections_of(found, read_claims(chosen) if chosen else [], baseline, minutes)
    if baseline and not any(section.table.row(baseline) for section in sections):
        labels = sorted({row.label for section in sections for row in section.table.rows})
        raise InputError(f"No row is called '{baseline}'; --baseline is one of {', '.join(labels)}.")
    out = out.with_suffix("") if out.suffix in (".md", ".html") else out
    pages = {
        out.with_name(f"{out.name}.md"): markdown.page(sections),
        out.with_name(f"{out.name}.html"): html.page(sections),
    }
    for path, text in pages.items():
        write_whole(path, text)
    runs, tables = (_counted(len(many), what) for many, what in ((found, "run"), (sections, "table")))
    print(f"{' and '.join(map(str, pages))}: {runs} in {tables}.")


def compare(first: Path, second: Path, metric: str = "ndcg@10") -> None:
    """Say how sure the difference of two models is, or which field of their passports keeps them apart.

    seqrec compare runs/sasrec runs/gru4rec
    seqrec compare runs/sasrec runs/gru4rec --metric recall@20

    Each folder holds one run, or the seeds of one recipe; where seeds are several, a user's gain is their mean.

    Args:
        first: folder of a run, or of the seeds of one recipe.
        second: folder of the other.
        metric: what a prediction is worth: recall, ndcg or mrr, and how many of a list count.

    Raises:
        InputError: they answer different questions, there is no such metric, or a folder holds several recipes.
    """
    parted(metric)  # before anything is said
    one, other = _only_row(first), _only_row(second)
    demand_comparable(one.runs[0], other.runs[0])
    for folder, row in ((first, one), (second, other)):
        print(f"{folder}: {row.model}{row.caveat}, {_counted(len(row.runs), 'seed')}, {_figures(row, metric)}")
    gains = gains_of([one, other], metric)
    if gains is None or len(gains.rows) < 2:
        print("The ranks of their users were not both kept, so no interval can be given; run `seqrec test` again.")
        return
    found = gains.draws().paired(0, 1)
    each = found.by_user
    print(
        f"{metric} of the first minus the second: {found.difference:+.4f}, 95 % over users "
        f"[{found.low:+.4f}, {found.high:+.4f}]; "
        + (
            "not compared user by user, because one has more seeds."
            if each is None
            else f"Wilcoxon p {p_text(each.p)}; better for {each.wins:,} users, alike for {each.ties:,}, "
            f"worse for {each.losses:,}."
        )
    )


def _only_row(folder: Path) -> Row:
    tables = tables_of(read([folder]))
    rows = [row for table in tables for row in table.rows]
    if len(rows) > 1:
        raise InputError(
            f"{folder} holds {len(rows)} recipes or protocols ({', '.join(row.label for row in rows)}); give the "
            "folder of one, or put all on one page with `seqrec leaderboard`."
        )
    return rows[0]


def _figures(row: Row, metric: str) -> str:
    names = dict.fromkeys(("recall@10", "ndcg@10", metric))
    found = []
    for name in names:
        value, spread = row.mean(name), row.spread(name)
        if value is not None:
            found.append(f"{name} {value:.4f}" + ("" if spread is None else f" ± {spread:.4f}"))
    return ", ".join(found)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
