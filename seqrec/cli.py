"""One program for the whole journey: ``seqrec prepare | fit | test | export | serve | …``."""

from __future__ import annotations

import importlib
import inspect
import os
import signal
import sys
import warnings
from argparse import ArgumentError
from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile, zip_longest
from textwrap import shorten

from seqrec.suggestions import sentence


@dataclass(frozen=True)
class Command:
    """A command that is a plain function: where it lives, what it does, whether what it must have is named by place
    or by option, the extra it needs, and the one option that may be given as a mere word at the end."""

    path: str
    summary: str
    by_place: bool = False
    extra: str | None = None
    word: str | None = None


RUNS = {
    "fit": "train a model; keeps the best checkpoint on validation NDCG@10",
    "validate": "rank the validation targets of a run",
    "test": "rank the test targets of a run; writes result.json and ranks.parquet",
}
COMMANDS = {
    "prepare": Command(
        "seqrec.data.prepare:prepare", "raw log, by card name or your own file, to arrays on disk", True
    ),
    "describe items": Command("seqrec.run_describe:describe_items", "a text on every item, by a template or an LLM"),
    "describe histories": Command("seqrec.run_describe:describe_histories", "a text on the taste behind every prefix"),
    "embed items": Command("seqrec.run_embed:embed_items", "a vector of every item, of its text or from a file"),
    "embed histories": Command("seqrec.run_embed:embed_histories", "a vector of every training prefix"),
    "neighbours": Command("seqrec.run_embed:neighbours", "the nearest neighbours of every vector"),
    "export": Command(
        "seqrec.run_export:export", "a run to a folder that serves: FAISS index and encoder", extra="cpu"
    ),
    "recommend": Command(
        "seqrec.export.answers:recommend", "answer for histories of raw ids from a bundle", extra="cpu"
    ),
    "withhold": Command(
        "seqrec.data.withhold:withhold", "a prepared data set without some items, to ask for them later"
    ),
    "cold": Command("seqrec.run_cold:cold", "rank items that training never saw, by their texts", extra="cpu"),
    "add-items": Command(
        "seqrec.export.changes:add_items", "new items into a bundle, from their texts", extra="cpu", word="items"
    ),
    "block-items": Command("seqrec.export.changes:block_items", "never recommend some items of a bundle", extra="cpu"),
    "remove-items": Command("seqrec.export.changes:remove_items", "items out of a bundle for good", extra="cpu"),
    "push": Command("seqrec.export.hub:push", "a bundle to a model hub", extra="hub"),
    "pull": Command("seqrec.export.hub:pull", "a bundle from a model hub", extra="hub"),
    "poison": Command(
        "seqrec.data.poisoning.poison:poison", "a prepared data set with fake users in it, who are marked"
    ),
    "audit": Command("seqrec.audit:audit", "the users whom a run trusted least, and why", extra="robustness"),
    "robustness": Command(
        "seqrec.robustness:robustness",
        "how far attacks push items in a model, and what defences help",
        extra="robustness",
    ),
    "serve": Command(
        "seqrec.serving.command:serve", "answer over HTTP from a bundle, with a page to try it", extra="serve"
    ),
    "leaderboard": Command(
        "seqrec.leaderboard:leaderboard", "tables of runs that may be compared, with how sure each is", True, "study"
    ),
    "compare": Command("seqrec.leaderboard:compare", "two models on the same users, or why not", True, "study"),
    "reproduce": Command("seqrec.reproduction:reproduce", "train and test recorded runs again", True),
}
TEXTS = ("describe items", "describe histories", "embed items", "embed histories", "neighbours")
CHANGES = ("add-items", "block-items", "remove-items", "push", "pull")
ROBUSTNESS = ("poison", "audit", "robustness")
ORDER = (
    *("prepare", "withhold", *TEXTS, "fit", "validate", "test", "cold", "export", "recommend", "serve"),
    *(*CHANGES, *ROBUSTNESS, "leaderboard", "compare", "reproduce"),
)


def overview() -> str:
    """What ``seqrec --help`` prints; it imports none of the commands, so it is quick."""
    summaries = RUNS | {name: command.summary for name, command in COMMANDS.items()}
    lines = "\n".join(f"  {name:<18} {summaries[name]}" for name in ORDER)
    return f"""usage: seqrec COMMAND [options]

Sequential recommendation: given what a person did so far, which item comes next?

{lines}

`seqrec COMMAND --help` lists the options of a command. A run is a stack of small files, later ones refine earlier:

  seqrec prepare ml-1m
  seqrec fit --config configs/data/ml-1m.yaml --config configs/model/sasrec.yaml --run runs/ml-1m
  seqrec test --run runs/ml-1m
  seqrec export --run runs/ml-1m --out bundles/ml-1m
  seqrec recommend --bundle bundles/ml-1m --history 1193,661,914 -k 10
  seqrec serve --bundle bundles/ml-1m

SEQREC_DEBUG=1 shows the traceback behind an error."""


def run(arguments: list[str]) -> None:
    """Run one command. Raises what the command raises."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(overview())
        return
    name, *rest = worded(arguments)
    if name in RUNS:
        from lightning.fabric.utilities.exceptions import MisconfigurationException
        from lightning.pytorch.utilities.exceptions import SIGTERMException

        from seqrec.lightning_cli import SeqrecCLI

        try:
            SeqrecCLI(name, rest)
        except SIGTERMException as stopped:  # else whoever waits for the exit status takes it for done
            raise SystemExit(128 + signal.SIGTERM) from stopped
        except MisconfigurationException as refusal:
            raise ValueError(str(refusal)) from refusal
        except RuntimeError as refusal:
            if str(refusal).startswith("Error(s) in loading state_dict"):
                first = shorten(next(iter(str(refusal).splitlines()[1:]), ""), 160)
                raise ValueError(
                    f"The checkpoint is of another model than the config describes ({first}); give the config.yaml of "
                    "its run, or train anew without --ckpt_path."
                ) from refusal
            if not str(refusal).startswith("Early stopping conditioned on"):
                raise
            raise ValueError(
                "Training ended before its first validation, so nobody knows how good it is; train for an epoch at "
                "least, or set trainer.val_check_interval."
            ) from refusal
    elif name in COMMANDS:
        from jsonargparse import auto_cli

        from seqrec.help_text import HelpFormatter, explained

        function, by_place = load(name), COMMANDS[name].by_place
        rest = _as_declared(function, _as_a_list(function, _with_last_word(COMMANDS[name].word, rest)))
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


def worded(arguments: list[str]) -> list[str]:
    """The arguments with the command in one piece, also where it has two words."""
    two = " ".join(arguments[:2])
    return [two, *arguments[2:]] if two in COMMANDS else arguments


def main(arguments: list[str] | None = None) -> int:
    """Run one command and answer a mistake with one sentence and exit status 2."""
    given = sys.argv[1:] if arguments is None else arguments
    if not {"", os.getcwd()} & {*sys.path}:
        sys.path.append(os.getcwd())  # parts of one's own are found where one works
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
        print(f"seqrec: error: {sentence(error, worded(given))}", file=sys.stderr)
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


def _with_last_word(option: str | None, arguments: list[str]) -> list[str]:
    """A word at the end that belongs to no option before it as the value of this one."""
    before, last = arguments[-2:] if len(arguments) > 1 else ("", *arguments) if arguments else ("", "-")
    is_alone = not last.startswith("-") and (not before.startswith("-") or "=" in before)
    return [*arguments[:-1], f"--{option}={last}"] if option is not None and is_alone else arguments


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
