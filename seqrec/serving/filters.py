"""What a request leaves out of what is recommended to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Filters:
    """What may be recommended.

    Attributes:
        allow: raw ids of the only items that may be; None allows all.
        deny: raw ids of items that may not be.
        categories: only items of any of these may be; None allows all.
    """

    allow: frozenset[str] | None = None
    deny: frozenset[str] = frozenset()
    categories: frozenset[str] | None = None

    @property
    def given(self) -> dict[str, Any]:
        """As arguments of a ``Retriever``."""
        return vars(self)
