"""Trains a model on clean and on poisoned data, with and without defences, and measures how far targets were pushed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
import torch
from rich.console import Console

from seqrec.audit import figures
from seqrec.batch import Batch
from seqrec.data.errors import InputError
from seqrec.data.folders import digests_of_named, name_of
from seqrec.data.log import Log
from seqrec.data.poisoning.base import Attack
from seqrec.data.poisoning.poison import poisoned
from seqrec.data.poisoning.targets import Bucket
from seqrec.data.protocol import LeaveOneOut
from seqrec.evaluation.promotion import promotion
from seqrec.recommenders.base import Recommender
from seqrec.reproduction import LEFT_OUT
from seqrec.robustness_report import CLEAN, NO_DEFENCE, read_result, write_report
from seqrec.studies.jobs import code_fingerprint
from seqrec.studies.locks import held
from seqrec.studies.running import on_one_device
from seqrec.training.record import write


@dataclass(frozen=True)
class Cell:
    """One run: data, defence and seed; the clean data have no attack.

    Attributes:
        attack: name of the attack, or ``clean``.
        budget: share of fake users; 0 for the clean data.
        defence: config that refines the model; None is none.
        seed: of training, and added to the seeds of the defence; the fakes are the same for all.
    """

    attack: str
    budget: float
    defence: Path | None
    seed: int

    @property
    def defence_name(self) -> str:
        return NO_DEFENCE if self.defence is None else self.defence.stem

    @property
    def name(self) -> str:
        budget = f"-{self.budget:g}" if self.budget else ""
        return f"{self.attack}{budget}+{self.defence_name}-seed{self.seed}"


def robustness(
    data: Path,
    model: list[Path],
    attacks: list[Attack],
    out: Path,
    defences: list[Path] | None = None,
    budgets: list[float] | None = None,
    targets: Bucket = Bucket.tail,
    n_targets: int = 5,
    seeds: list[int] | None = None,
    attack_seed: int = 0,
    cutoffs: list[int] | None = None,
    any_code: bool = False,
) -> None:
    """Train clean, attacked, and attacked with each defence, and write one table and one picture.

    seqrec robustness --data data/prepared/ml-1m --model [configs/model/sasrec.yaml] --attacks [Random,DP] --defences
    [configs/study/lorec-fit.yaml] --budgets [0.01,0.03] --seeds [1,2,3] --out runs/robustness

    Every data set is also trained without a defence, and every defence also on the clean data. Targets are the same for
    clean and poisoned data of one budget. A run that is done is not repeated, and one that was stopped goes on, unless
    data, configs, targets or the code are no longer what they were: OUT holds a folder for each run and data set,
    results/NAME.json for each finished run, robustness.md and robustness.svg, which leave out results of other targets.

    Args:
        data: folder of a clean prepared data set.
        model: configs that describe the training, later ones refining earlier; `data.prepared` is set for each run.
        attacks: what makes up fakes, by name; see `seqrec poison --help`.
        out: folder to write.
        defences: configs that refine the model, each a defence; see configs/plugin.
        budgets: fake users as shares of the genuine ones; 0.01 where not given.
        targets: bucket of popularity that the targets are drawn from.
        n_targets: how many items are pushed.
        seeds: a run for each, which is also added to the seeds of the defence and of its known fraudsters, so that
            these differ, too; 1, 2 and 3 where not given.
        attack_seed: where targets and fakes come from.
        cutoffs: list lengths of the target metrics; 10, 20 and 50 where not given.
        any_code: also take what another version of the code made.

    Raises:
        InputError: two defences or attacks share a name, the data cannot be poisoned, or another program uses ``out``.
    """
    classes = [type(attack).__name__ for attack in attacks]
    if len(set(classes)) < len(classes):
        raise InputError(
            f"The attacks are {', '.join(classes)}, and results are kept by these names; name each attack once, and "
            "give one with other settings an --out of its own."
        )
    names = [config.stem for config in defences or []]
    if len(set(names)) < len(names) or NO_DEFENCE in names:
        raise InputError(
            f"The defences are called {', '.join(names)}; give each config a name of its own, none 'none'."
        )
    console = Console()
    with held(out / "lock") as ours:
        if not ours:
            raise InputError(
                f"Another `seqrec robustness` works in {out}, and each needs a folder of its own; wait until it has "
                "ended, or choose another --out."
            )
        sets = {CLEAN: data}
        for attack in attacks:
            for budget in budgets or [0.01]:
                name = type(attack).__name__
                folder = out / "data" / f"{name}-{budget:g}"
                poisoned(data, folder, attack, budget, targets, n_targets, attack_seed)
                sets[name, budget] = folder
        pushed, cutoffs, asked = _pushed(list(sets.values())[1:]), cutoffs or [10, 20, 50], []
        _demand_leave_one_out(model, defences or [], sets[CLEAN])
        for (attack, budget), folder in sets.items():
            for cell in _cells(attack, budget, defences or [], seeds or [1, 2, 3]):
                kept = out / "results" / f"{cell.name}.json"
                told, recipe = _told(cell, folder, model)
                if not _holds(kept, recipe, pushed, cutoffs, any_code):
                    console.rule(f"[bold]{cell.name}", align="left")
                    run = out / "runs" / cell.name
                    code = _begin(run, recipe, any_code)
                    result = {**_measured(cell, told, run, pushed, cutoffs), "files": recipe["files"], "code": code}
                    write(kept, json.dumps(result, indent=2) + "\n")
                asked.append(cell.name)
        write_report(out, pushed, asked)


def _cells(attack: str, budget: float, defences: list[Path], seeds: list[int]) -> Iterator[Cell]:
    for defence in (None, *defences):
        for seed in seeds:
            yield Cell(attack, budget, defence, seed)


def _pushed(folders: list[Path]) -> list[int]:
    """The rows of the targets, which all poisoned data sets share."""
    found = [Log.open(folder).manifest["poison"]["target_rows"] for folder in folders]
    if not found:
        raise InputError("No attack was named, so no item is pushed; give --attacks, e.g. [Random].")
    if any(rows != found[0] for rows in found):
        raise InputError("The attacks push different items; choose another --out, or remove its folder data.")
    return found[0]


def _demand_leave_one_out(model: list[Path], defences: list[Path], data: Path) -> None:
    """Refuse another protocol before anything is trained: attackers know what leave-one-out trains on."""
    from seqrec.lightning_cli import complete_config

    for defence in ([], *([each] for each in defences)):
        stack = [f"--config={config}" for config in (*model, *defence)]
        protocol = complete_config([*stack, f"--data.prepared={data}"])["data"]["protocol"]
        if protocol is not None and not issubclass(resolve_name(protocol["class_path"]), LeaveOneOut):
            raise InputError(
                f"data.protocol of {' with '.join(map(str, (*model, *defence)))} is {protocol['class_path']}, and "
                "poisoned data go with LeaveOneOut alone; leave out what sets it."
            )


def _told(cell: Cell, folder: Path, model: list[Path]) -> tuple[list[str], dict[str, Any]]:
    """What the training of a run is told on the command line, and what it is made of: data, config and code."""
    from seqrec.lightning_cli import complete_config

    stack = [*model, *([] if cell.defence is None else [cell.defence])]
    told = [*(f"--config={config}" for config in stack), f"--data.prepared={folder}", f"--seed_everything={cell.seed}"]
    config = complete_config(told)
    drawing = {"model.reweighter": config["model"]["init_args"].get("reweighter")}
    drawing["data.fraudsters"] = config["data"]["fraudsters"]
    for name, part in drawing.items():
        settings = (part or {}).get("init_args", {})
        if "seed" in settings:
            settings["seed"] += cell.seed
            told.append(f"--{name}.init_args.seed={settings['seed']}")
    own = _without_places(config)
    return told, {
        "dataset": Log.open(folder).manifest["fingerprint"],
        "config": own,
        "files": digests_of_named(own, name_of(folder)),
        "code": code_fingerprint(),
    }


def _without_places(config: dict[str, Any]) -> dict[str, Any]:
    """A complete config without what says where things lie."""
    data = {name: value for name, value in config["data"].items() if name != "prepared"}
    return {**{name: value for name, value in config.items() if name not in LEFT_OUT}, "data": data}


def _holds(kept: Path, recipe: dict[str, Any], pushed: list[int], cutoffs: list[int], any_code: bool) -> bool:
    """Whether there is a result, made of the same, that says where these targets stand."""
    if not kept.is_file():
        return False
    result = read_result(kept)
    made = {**result, "dataset": result["passport"]["dataset"], "config": _without_places(result["config"])}
    return (
        result["targets"] == pushed
        and {f"t_hr@{k}" for k in cutoffs} <= result["metrics"].keys()
        and _same(made, recipe, any_code)
    )


def _same(made: dict[str, Any], recipe: dict[str, Any], any_code: bool) -> bool:
    """Whether something was made of the same data, config and files, and by the same code if that is wanted."""
    from seqrec.lightning_cli import differing

    return (
        made["dataset"] == recipe["dataset"]
        and made.get("files", {} if any_code else None) == recipe["files"]
        and (any_code or made.get("code") == recipe["code"])
        and not any(differing(made["config"], recipe["config"]))
    )


def _begin(run: Path, recipe: dict[str, Any], any_code: bool) -> str | None:
    """Make room for a run: what was begun with other data, another config or other code goes. The code that began it,
    None where that was not written down."""
    mark = run / "recipe.json"
    begun = json.loads(mark.read_text()) if mark.is_file() else None
    if begun is None or not _same(begun, recipe, any_code):
        shutil.rmtree(run, ignore_errors=True)
        write(mark, json.dumps(recipe, indent=2) + "\n")
        begun = recipe
    return begun.get("code")


def _measured(cell: Cell, told: list[str], run: Path, pushed: list[int], cutoffs: list[int]) -> dict[str, Any]:
    """Train, unless that is done, test, and look where the targets stand."""
    from seqrec.lightning_cli import SeqrecCLI

    on_one_device()
    if not (run / "fit.json").is_file():
        goes_on = ["--ckpt_path=last"] if (run / "checkpoints" / "last.ckpt").is_file() else []
        SeqrecCLI("fit", [*told, f"--run={run}", *goes_on])
    tested = SeqrecCLI("test", [f"--run={run}", "--verbose=false"])
    task = tested.model
    ranks, lacks = target_ranks(task.recommender.eval(), tested.datamodule.everyone(), pushed)
    result = json.loads((run / "result.json").read_text())
    trail = task.reweighter.trail
    log = tested.datamodule.log
    is_fake, lengths = torch.from_numpy(log.is_fake), torch.from_numpy(np.diff(log.offsets))
    # The model under test is that of the best epoch; what was decided after it trained something else.
    told_apart = cell.defence or trail.epochs
    weighed = figures(trail, is_fake, lengths, result["validation"]["epoch"] + 1) if told_apart else {}
    return {
        "attack": cell.attack,
        "budget": cell.budget,
        "defence": cell.defence_name,
        "seed": cell.seed,
        "targets": pushed,
        "metrics": {**result["metrics"], **promotion(ranks, lacks, cutoffs)},
        "detection": {name: None if value != value else value for name, value in weighed.items()},
        "epochs": result["epochs"],
        "validation": result["validation"],
        "wall_seconds": result["wall_seconds"],
        "passport": result["passport"],
        "commit": result["commit"],
        "config": result["config"],
    }


@torch.no_grad()
def target_ranks(
    recommender: Recommender, batches: Iterable[Batch], targets: list[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Where each target stands for each user of an evaluation, 0 is best, and whether the user counts for it.

    A target is ranked among all items that the user does not have. Users who have it, and those whose next item it is,
    do not count.

    Args:
        recommender: what ranks, ready to evaluate.
        batches: an evaluation; ``seen`` is all that users have.
        targets: rows of the items.

    Returns:
        ranks [targets, U] and whether they count [targets, U].
    """
    ranks, lacks = [], []
    for batch in batches:
        batch = batch.to(recommender.counts.device)
        assert batch.seen is not None, "what users have must be known, whatever a protocol ranks"
        of_targets, counting = [], []
        for target in targets:
            of_targets.append(recommender.ranks(replace(batch, targets=torch.full_like(batch.targets, target))))
            had = torch.zeros_like(batch.targets, dtype=torch.bool)
            had[batch.seen.owners[batch.seen.items == target]] = True
            counting.append(~had & (batch.targets != target))
        ranks.append(torch.stack(of_targets))
        lacks.append(torch.stack(counting))
    return torch.cat(ranks, 1), torch.cat(lacks, 1)
