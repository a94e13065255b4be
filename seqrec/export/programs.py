"""The query encoder of a bundle as programs that need no seqrec: torch.export and ONNX."""

from __future__ import annotations

from enum import Enum
from pathlib import Path

from seqrec.recommenders.keyed import KeyedRecommender
from seqrec.sequences import Sequences


class Format(Enum):
    torch = "encoder.pt2"
    onnx = "encoder.onnx"


def write_programs(
    recommender: KeyedRecommender, folder: Path, formats: tuple[Format, ...], max_length: int | None, samples: Sequences
) -> list[str]:
    return []
