"""The one exception that says what is wrong with input data and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Input that cannot be used; its message is one sentence with the file, the column or line, and the remedy."""


def nearest(word: str, known: Iterable[str]) -> str:
    """A phrase that names the known word most like ``word``, or all of them when none is alike."""
    names = list(known)
    by_lower_case = {name.lower(): name for name in reversed(names)}
    close = difflib.get_close_matches(word.lower(), by_lower_case, n=1, cutoff=0.5)
    if close:
        return f"the nearest is '{by_lower_case[close[0]]}'"
    if not names:
        return "there are none"
    return "there are " + ", ".join(f"'{name}'" for name in names)
