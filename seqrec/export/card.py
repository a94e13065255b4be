"""The model card of a bundle: a README that says what it is, how good it is, and where its limits are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from seqrec.recommenders.keyed import KeyedRecommender

CARD = "README.md"


def card(fields: Mapping[str, Any], recommender: KeyedRecommender) -> str:
    return "TODO"
