"""The one exception that says what is wrong with input data and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# Among so many words it takes a moment to find the one that is most alike, and so many can be read.
_COMPARED, _NAMED = 1_000, 50


class InputError(ValueError):
    """Input that cannot be used; its message is one sentence with the file, the column or line, and the remedy."""


def nearest(word: str, known: Iterable[str]) -> str:
    """A phrase that names the known word most like ``word``, or some of them when none is alike or they are many."""
    names = list(known)
    by_lower_case = {name.lower(): name for name in reversed(names)} if len(names) <= _COMPARED else {}
    close = difflib.get_close_matches(word.lower(), by_lower_case, n=1, cutoff=0.5)
    if close:
        return f"the nearest is '{by_lower_case[close[0]]}'"
    if not names:
        return "there are none"
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return "there are " + ", ".join(f"'{name}'" for name in names[:_NAMED]) + more
