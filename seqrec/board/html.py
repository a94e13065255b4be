"""The leaderboard as one HTML page that needs no network: tables that sort and filter, and figures."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files

from plotly import graph_objects as go
from plotly.offline import get_plotlyjs

from seqrec.board import figures
from seqrec.board.markdown import CLAIM_COLUMNS, HOW_TO_READ, PARITY, claim_cells, counted_alone, reading, warning
from seqrec.board.results import differences
from seqrec.board.sections import NOT_RUN, PUBLISHED, Cell, Section, across

COMMAND = "to get it again"


def page(sections: Sequence[Section]) -> str:
    """The whole page, its script, style and figures included."""
    asset = files("seqrec.board") / "page"
    style, script = ((asset / name).read_text(encoding="utf-8") for name in ("style.css", "script.js"))
    tables = (_section(place, section, sections[0]) for place, section in enumerate(sections))
    body = "".join([_choices(sections), *tables, _across(sections)])
    links = "".join(f'<a href="#table-{at}">{escape(each.table.title)}</a>' for at, each in enumerate(sections))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Leaderboard</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{style}</style>'
        f"<script>{get_plotlyjs()}</script></head><body><header><h1>Leaderboard</h1><nav>{links}</nav></header>"
        f'<main>{body}<p class="how">{escape(HOW_TO_READ)}</p></main><script>{script}</script></body></html>\n'
    )


def _choices(sections: Sequence[Section]) -> str:
    """The answers on top of the page."""
    cards = []
    for place, section in enumerate(sections):
        if not section.answers:
            continue
        lines = "".join(
            f"<tr><th>{escape(answer.question)}</th><td><b class='{'said' if len(answer.models) == 1 else 'unsaid'}'>"
            f"{escape(answer.headline)}</b><small>{escape(answer.why)}</small></td></tr>"
            for answer in section.answers
        )
        incomplete = ' <em class="incomplete">incomplete</em>' if section.missing else ""
        title = f'<a href="#table-{place}">{escape(section.table.title)}</a>{incomplete}'
        cards.append(f'<article><h3>{title}</h3><table class="answers">{lines}</table></article>')
    counted = "".join(f"<p>{escape(line)}</p>" for line in counted_alone(sections))
    found = f'<div class="cards">{"".join(cards)}</div>{counted}'
    return f'<section id="choices"><h2>Which model to choose</h2>{found}</section>'


def _section(place: int, section: Section, first: Section) -> str:
    passport = "".join(f"<li>{escape(line)}</li>" for line in reading(section))
    apart = ""
    if section is not first:
        reasons = "; ".join(differences(first.table.passport, section.table.passport))
        apart = f"<p>Apart from the first table because of {escape(reasons)}.</p>"
    warned = f'<p class="warning"><b>Incomplete.</b> {escape(warning(section))}</p>' if section.missing else ""
    rows = section.cells()
    table = _table(section.columns, rows, [row[1].text == NOT_RUN for row in rows])
    return (
        f'<section class="table" id="table-{place}"><h2>{escape(section.table.title)}</h2>{warned}'
        f"<details><summary>Passport</summary><ul>{passport}</ul>{apart}</details>{table}{_published(section)}"
        f"{_claims(section)}"
        f"{_figures(section)}</section>"
    )


def _table(columns: Sequence[str], rows: Sequence[Sequence[Cell]], absent: Sequence[bool]) -> str:
    heads = "".join(f'<th scope="col"><button type="button">{escape(name)}</button></th>' for name in columns)
    lines = []
    for row, is_absent in zip(rows, absent, strict=True):
        cells = "".join(_cell(name, cell) for name, cell in zip(columns, row, strict=True))
        lines.append(f"<tr{' class=absent' if is_absent else ''}>{cells}</tr>")
    return (
        '<label class="filter">Filter <input type="search" placeholder="words, all of which a row must have"></label>'
        f'<div class="wide"><table class="board"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _cell(name: str, cell: Cell) -> str:
    value = "" if cell.value is None else f' data-value="{cell.value!r}"'
    if name == COMMAND and cell.text != "–":
        return f'<td{value}><button type="button" class="copy">copy</button> <code>{escape(cell.text)}</code></td>'
    return f"<td{value}>{escape(cell.text)}</td>"


def _published(section: Section) -> str:
    rows = section.published()
    return f"<h3>{PARITY}</h3>{_table(PUBLISHED, rows, [False] * len(rows))}" if rows else ""


def _claims(section: Section) -> str:
    if not section.claims:
        return ""
    names = list(dict.fromkeys(name for claim in section.claims for name in claim.metrics))
    columns = [*CLAIM_COLUMNS[:2], *names, *CLAIM_COLUMNS[2:], "differs from this table in", "note"]
    rows = [
        [Cell(text) for text in (*claim_cells(claim, names), "; ".join(claim.differences(section.table)), claim.note)]
        for claim in section.claims
    ]
    table = _table(columns, rows, [False] * len(rows))
    return (
        f'<details class="claims"><summary>What others report on {escape(section.table.data)} ({len(rows)} rows): not '
        f"measured here and not comparable</summary>{table}</details>"
    )


def _figures(section: Section) -> str:
    table, gains = section.table, section.gains
    drawn: list[tuple[str, go.Figure | None]] = [
        (f"Against {section.baseline.label}", gains and figures.against(table, gains, section.baseline)),
        ("Quality and cost", figures.costs(table)),
        ("By length of history and popularity of the item", gains and figures.groups(table, gains)),
        ("Coverage and popularity bias", figures.lists(table)),
        ("Learning curves", figures.curves(table)),
    ]
    absent = [title.lower() for title, figure in drawn if figure is None]
    parts = [_figure(title, figure) for title, figure in drawn if figure is not None]
    if absent:
        parts.append(f"<p>Not drawn, because the runs did not keep what it takes: {escape('; '.join(absent))}.</p>")
    return "".join(parts)


def _figure(title: str, figure: go.Figure) -> str:
    drawing = figure.to_html(full_html=False, include_plotlyjs=False, config={"displaylogo": False, "responsive": True})
    return f"<figure><figcaption>{escape(title)}</figcaption>{drawing}</figure>"


def _across(sections: Sequence[Section]) -> str:
    parts = []
    for title, data, labels, critical in across(sections):
        parts.append(_figure(f"{title} on {', '.join(data)}: {critical.verdict}.", figures.critical(labels, critical)))
    return f'<section id="across"><h2>Across data sets</h2>{"".join(parts)}</section>' if parts else ""
