"""How ``--help`` reads: prose is filled to the width of the screen, and examples keep their lines."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from textwrap import dedent, fill

from jsonargparse import DefaultHelpFormatter


class HelpFormatter(DefaultHelpFormatter):
    """Leaves a paragraph of commands as it was written; argparse would run its lines together."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(
            textwrap.indent(dedent(paragraph), "  ")
            if _is_example(paragraph)
            else fill(" ".join(paragraph.split()), width)
            for paragraph in dedent(text).strip().split("\n\n")
        )


def explained(function: Callable[..., object]) -> str:
    """What the docstring of a function says before it comes to the arguments."""
    return (inspect.getdoc(function) or "").partition("\nArgs:")[0].rstrip()


def _is_example(paragraph: str) -> bool:
    return paragraph.lstrip().startswith("seqrec ")
