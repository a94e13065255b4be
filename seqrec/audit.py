"""Says which users a run trusted least, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from seqrec.data.errors import InputError
from seqrec.data.log import Log
from seqrec.evaluation import detection
from seqrec.objectives.trail import Trail
from seqrec.runs import data_of, read_checkpoint

_STATE = "reweighter._extra_state"


def audit(run: Path, out: Path | None = None, shown: int = 20) -> None:
    """List the users whose weight a run reduced most, with the reasons, and draw how weights went.

    seqrec audit --run runs/shop-lorec

    For every user with a weight below 1: after which epochs it was flagged, which known fraud profile it is most like,
    and what it has. Where the data mark their fakes (`seqrec poison`), they are told apart, and how well the weights of
    the last epoch told them is printed. Writes audit.csv, with all users of a weight below 1, and audit.svg.

    Args:
        run: folder of a run that was trained with a reweighter, such as configs/study/lorec.yaml.
        out: folder for the two files; by default that of the run.
        shown: how many users are printed, at least 1.

    Raises:
        InputError: the run has no checkpoint, or no reweighter that decided anything about users; or its data have
            changed.
    """
    trail, epochs, trained_on = trail_of(run)
    data = data_of(run)
    if trained_on not in (None, data.trained_on):
        raise InputError(
            f"{data.prepared} holds other events than {run} was trained on, so nobody knows whom its weights are of; "
            "prepare or poison it as it was, or train again."
        )
    log = data.log
    table = judgements(trail, log)
    folder = out or run
    folder.mkdir(parents=True, exist_ok=True)
    table.with_columns(
        pl.col("flagged_after", "items").list.eval(pl.element().cast(pl.String)).list.join(" ")
    ).write_csv(folder / "audit.csv")
    draw_weights(trail, torch.from_numpy(log.is_fake), folder / "audit.svg")
    console = Console()
    console.print(_listed(table.head(shown), trail, log) if len(table) else "Nobody has a weight below 1.")
    found = figures(trail, torch.from_numpy(log.is_fake), torch.from_numpy(np.diff(log.offsets)), epochs)
    if trail.counting(epochs) is None:
        console.print(f"No weight counted: they do after {trail.active_from} epochs, and training took {epochs}.")
    elif log.is_fake.any():
        console.print(
            f"Of {int(log.is_fake.sum()):,} marked fakes: precision {found['precision']:.3f}, recall "
            f"{found['recall']:.3f}, AUC {found['auc']:.3f}, among users with as many events "
            f"{found['auc_same_length']:.3f}; mean weight {found['weight_of_fakes']:.3f}, of genuine "
            f"users {found['weight_of_genuine']:.3f}."
        )
    console.print(f"{folder / 'audit.csv'} and {folder / 'audit.svg'} hold the rest.", highlight=False, markup=False)


def trail_of(run: Path) -> tuple[Trail, int, str | None]:
    """What the reweighter of a run decided, the epochs done and what they trained on, from its last checkpoint.

    Raises:
        InputError: there is no checkpoint, it is damaged, or nothing was decided.
    """
    path = run / "checkpoints" / "last.ckpt"
    if not path.is_file():
        raise InputError(f"{path} does not exist, so {run} is not the folder of a run; run `seqrec fit --run {run}`.")
    kept = read_checkpoint(path)
    state = kept["state_dict"]
    if _STATE not in state:
        raise InputError(f"The run {run} weighed no users; train with a reweighter, say configs/study/lorec.yaml.")
    trail = Trail.restored(state[_STATE]["trail"])
    if not trail.epochs:
        raise InputError(
            f"The reweighter of {run} has decided nothing in {kept['epoch'] + 1} epochs: no decision was due, or all "
            "were put off because a third of the users or more would have been flagged; train for more epochs."
        )
    return trail, kept["epoch"] + 1, kept.get("trained_on")


def figures(trail: Trail, is_fake: torch.Tensor, lengths: torch.Tensor, epochs: int) -> dict[str, float]:
    """How well the weights that the last of so many epochs was trained with tell fakes from genuine users.

    Flagged is whose weight was below 1. ``auc_same_length`` holds each fake against genuine users with as many events,
    for most fakes have the fewest that an attack makes up, which alone may give them away. Where no decision counted,
    all weights were 1, and nobody was told from anybody.
    """
    number = trail.counting(epochs)
    weights = torch.ones(is_fake.numel()) if number is None else trail.weights[number]
    found = {"weight_of_fakes": weights[is_fake].mean().item(), "weight_of_genuine": weights[~is_fake].mean().item()}
    if number is None:
        return found
    return {
        "precision": detection.precision(weights < 1, is_fake),
        "recall": detection.recall(weights < 1, is_fake),
        "auc": detection.auc(trail.suspicion[number], is_fake),
        "auc_same_length": detection.auc_within(trail.suspicion[number], is_fake, lengths),
        **found,
    }


def judgements(trail: Trail, log: Log) -> pl.DataFrame:
    """One line per user whose weight is below 1, the most reduced first; among equals the most suspicious."""
    weights, suspicion = trail.weights[-1], trail.suspicion[-1]
    rows = torch.nonzero(weights < 1).squeeze(1)
    order = np.lexsort(((-suspicion[rows]).numpy(), weights[rows].numpy()))
    rows = rows[torch.from_numpy(order)]
    flagged, is_fake = torch.stack(trail.flagged)[:, rows].numpy(), log.is_fake
    lines: list[dict[str, Any]] = []
    for row, of_user in zip(rows.tolist(), flagged.T, strict=True):
        events = log.items[log.offsets[row] : log.offsets[row + 1]]
        near = -1 if trail.nearest is None else int(trail.nearest[row])
        lines.append(
            {
                "user_id": log.users[row],
                "weight": float(weights[row]),
                "suspicion": float(suspicion[row]),
                "marked_fake": bool(is_fake[row]),
                "flagged_after": [epoch for epoch, flag in zip(trail.epochs, of_user, strict=True) if flag],
                "nearest_known": near if near >= 0 else None,
                "similarity": None if near < 0 or trail.similarity is None else float(trail.similarity[row]),
                "items": log.catalog.ids.gather(np.asarray(events)).to_list(),
            }
        )
    schema = {
        "user_id": pl.String,
        "weight": pl.Float64,
        "suspicion": pl.Float64,
        "marked_fake": pl.Boolean,
        "flagged_after": pl.List(pl.Int64),
        "nearest_known": pl.Int64,
        "similarity": pl.Float64,
        "items": pl.List(pl.String),
    }
    return pl.DataFrame(lines, schema=schema)


def draw_weights(trail: Trail, is_fake: torch.Tensor, path: Path) -> None:
    """The weights of marked fakes and of genuine users after each decision: means, and the middle 90 % of each.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure = canvas(7.0, 4.0)
    axes = figure.subplots()
    weights = torch.stack(trail.weights)
    for name, chosen, colour in (("genuine users", ~is_fake, "tab:blue"), ("marked fakes", is_fake, "tab:red")):
        if chosen.any():
            some = weights[:, chosen].double()
            low, high = (some.quantile(q, dim=1) for q in (0.05, 0.95))
            axes.plot(trail.epochs, some.mean(1), marker="o", color=colour, label=f"{name} ({int(chosen.sum()):,})")
            axes.fill_between(trail.epochs, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.axvline(trail.active_from, color="grey", linestyle=":", label="weights count from here")
    axes.set(xlabel="epochs", ylabel="weight", ylim=(0, 1.1), title="Weights of users")
    axes.legend()
    figure.savefig(path, metadata={"Date": None})


def canvas(width: float, height: float) -> Any:
    """An empty figure of matplotlib, in inches, that needs no screen.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib import rcParams
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError as missing:
        raise ImportError("Plots need matplotlib; run pip install 'seqrec[robustness]'.") from missing
    rcParams["svg.hashsalt"] = "seqrec"  # the same figures, the same bytes
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    return figure


def _listed(table: pl.DataFrame, trail: Trail, log: Log) -> Table:
    listed = Table(
        "user", "weight", "flagged after epochs", "most like known fraud", "fake?", "items", title="Least trusted"
    )
    for line in table.iter_rows(named=True):
        items = ", ".join(line["items"][:3]) + (f" … ({len(line['items'])})" if len(line["items"]) > 3 else "")
        listed.add_row(
            escape(line["user_id"]),
            f"{line['weight']:.3f}",
            f"{len(line['flagged_after'])} of {len(trail.epochs)}: {', '.join(map(str, line['flagged_after']))}",
            _profile(line, trail, log),
            "yes" if line["marked_fake"] else "",
            escape(items),
        )
    return listed


def _profile(line: dict[str, Any], trail: Trail, log: Log) -> str:
    if line["nearest_known"] is None or trail.known is None:
        return "–"
    known, number = trail.known, line["nearest_known"]
    rows = known.items[known.offsets[number] : known.offsets[number + 1]].numpy()
    shared = len(set(log.catalog.ids.gather(rows)) & set(line["items"]))
    return f"no. {number}, cosine {line['similarity']:.2f}, {shared} items shared"
