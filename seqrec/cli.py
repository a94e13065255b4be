"""One program for the whole journey: ``seqrec prepare | fit | … | leaderboard | reproduce``."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import warnings
from argparse import ArgumentError
from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile, zip_longest

from seqrec.suggestions import sentence


@dataclass(frozen=True)
class Command:
    """A command that is a plain function: where it lives, what it does, whether what it must have is named by place
    or by option, and the extra it needs."""

    path: str
    summary: str
    by_place: bool = False
    extra: str | None = None


RUNS = {
    "fit": "train a model; keeps the best checkpoint on validation NDCG@10",
    "validate": "rank the validation targets of a run",
    "test": "rank the test targets of a run; writes result.json and ranks.parquet",
}
COMMANDS = {
    "prepare": Command(
        "seqrec.data.prepare:prepare", "raw log, by card name or your own file, to arrays on disk", True
    ),
    "export": Command(
        "seqrec.run_export:export", "a run to a folder that serves: FAISS index and encoder", extra="cpu"
    ),
    "recommend": Command(
        "seqrec.export.retriever:recommend", "answer for histories of raw ids from a bundle", extra="cpu"
    ),
    "leaderboard": Command(
        "seqrec.leaderboard:leaderboard", "tables of runs that may be compared, with how sure each is", True, "study"
    ),
    "compare": Command("seqrec.leaderboard:compare", "two models on the same users, or why not", True, "study"),
    "reproduce": Command("seqrec.reproduction:reproduce", "train and test recorded runs again", True),
}
ORDER = ("prepare", "fit", "validate", "test", "export", "recommend", "leaderboard", "compare", "reproduce")


def overview() -> str:
    """What ``seqrec --help`` prints; it imports none of the commands, so it is quick."""
    summaries = RUNS | {name: command.summary for name, command in COMMANDS.items()}
    lines = "\n".join(f"  {name:<12} {summaries[name]}" for name in ORDER)
    return f"""usage: seqrec COMMAND [options]

Sequential recommendation: given what a person did so far, which item comes next?

{lines}

`seqrec COMMAND --help` lists the options of a command. A run is a stack of small files, later ones refine earlier:

  seqrec prepare ml-1m
  seqrec fit --config configs/data/ml-1m.yaml --config configs/model/sasrec.yaml --run runs/ml-1m
  seqrec test --run runs/ml-1m
  seqrec export --run runs/ml-1m --out bundles/ml-1m
  seqrec recommend --bundle bundles/ml-1m --history 1193,661,914 -k 10

SEQREC_DEBUG=1 shows the traceback behind an error."""


def run(arguments: list[str]) -> None:
    """Run one command. Raises what the command raises."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(overview())
        return
    name, *rest = arguments
    if name in RUNS:
        from lightning.fabric.utilities.exceptions import MisconfigurationException

        from seqrec.lightning_cli import SeqrecCLI

        try:
            SeqrecCLI(name, rest)
        except MisconfigurationException as refusal:
            raise ValueError(str(refusal)) from refusal
    elif name in COMMANDS:
        from jsonargparse import auto_cli

        from seqrec.help_text import HelpFormatter, explained

        function, by_place = load(name), COMMANDS[name].by_place
        rest = _as_declared(function, _as_a_list(function, rest))
        auto_cli(
            function,
            args=rest,
            prog=f"seqrec {name}",
            as_positional=by_place,
            exit_on_error=False,
            description=explained(function),
            formatter_class=HelpFormatter,
        )
    else:
        from seqrec.data.errors import nearest

        raise ValueError(f"'{name}' is not a command of seqrec, {nearest(name, ORDER)}; see `seqrec --help`.")


def main(arguments: list[str] | None = None) -> int:
    """Run one command and answer a mistake with one sentence and exit status 2."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _say
            run(given)
    except BrokenPipeError:  # the reader of our output, say `head`, has left
        sys.stderr.close()
        return 0
    except (ArgumentError, ValueError, OSError, FloatingPointError, ImportError) as error:
        if os.environ.get("SEQREC_DEBUG"):
            raise
        print(f"seqrec: error: {sentence(error, given)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("seqrec: stopped", file=sys.stderr)
        return 130
    return 0


def _say(message: Warning | str, *_: object) -> None:
    """A warning as a person reads it, without the line of code that gave it."""
    print(f"seqrec: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _as_a_list(function: Callable[..., object], arguments: list[str]) -> list[str]:
    """Several words before the first option as the one list that the function takes first, where it takes one."""
    first = next(iter(inspect.signature(function).parameters.values()))
    words = list(takewhile(lambda word: not word.startswith("-"), arguments))
    takes_several = str(first.annotation).startswith("list") and len(words) > 1
    return [f"[{','.join(words)}]", *arguments[len(words) :]] if takes_several else arguments


def _as_declared(function: Callable[..., object], arguments: list[str]) -> list[str]:
    """Options as the parser knows them: ``--k`` for ``-k``, underscores for hyphens, and "true" after a bare switch."""
    declared = inspect.signature(function).parameters
    options = []
    for argument, following in zip_longest(arguments, arguments[1:]):
        option, equals, value = argument.partition("=")
        name = option.lstrip("-").replace("-", "_")
        if argument.startswith("-") and name in declared:
            bare = declared[name].annotation == "bool" and not equals and following not in ("true", "false")
            options.append(f"--{name}=true" if bare else f"--{name}{equals}{value}")
        else:
            options.append(argument)
    return options


def load(name: str) -> Callable[..., object]:
    """The function behind a command, imported only now."""
    command = COMMANDS[name]
    module, function = command.path.split(":")
    try:
        return getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as missing:
        if command.extra is None or (missing.name or "").startswith("seqrec"):
            raise
        raise ImportError(
            f"`seqrec {name}` needs {missing.name}, which is not installed; run pip install 'seqrec[{command.extra}]'."
        ) from missing


if __name__ == "__main__":
    sys.exit(main())
