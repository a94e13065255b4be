"""The words of a command that runs a model, brought into the form and order in which its parser reads them right."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any


def run_first(args: Sequence[str]) -> list[str]:
    """The same words, a run before all that refines its config: it brings a whole one, which would win over them."""
    words, runs, others = iter(args), [], []
    for word in words:
        if word == "--run":
            runs += [word, *islice(words, 1)]
        else:
            (runs if word.startswith("--run=") else others).append(word)
    return [*runs, *others]


def with_nulls(args: Sequence[str]) -> Iterator[str]:
    """The same words, where ``--model.a.b null`` is a piece of config.

    jsonargparse tells a part that is built later of the word None instead; what comes from a config it tells right.
    """
    words = iter(args)
    for word in words:
        key, given, value = word.partition("=")
        if not key.startswith("--model."):
            yield word
            continue
        if not given:
            value = next(words, None)
        if value == "null":
            piece: Any = None
            for name in reversed(key.removeprefix("--").split(".")):
                piece = {name: piece}
            yield f"--config={json.dumps(piece)}"
        else:
            yield word
            if not given and value is not None:
                yield value


def with_help_last(args: Sequence[str]) -> list[str]:
    """The same words, where ``--model.PART.help CLASS`` follows all others.

    jsonargparse knows what stands inside a recommender only once it is said which one; unless a word or a config says
    another, it is the sequential one.
    """
    others, asked = list[str](), list[str]()
    words = iter(args)
    for word in words:
        key, given, _ = word.partition("=")
        if key.startswith("--model.") and key.endswith(".help"):
            asked += [word] if given else [word, *islice(words, 1)]
        else:
            others.append(word)
    if not any(word.startswith("--model.recommender.") for word in asked):
        return [*others, *asked]
    command, *others = others
    return [command, "--model.recommender=seqrec.recommenders.sequential.SequentialRecommender", *others, *asked]
