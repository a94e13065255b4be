"""What auxiliaries read of the views of a batch."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from seqrec.objectives.base import Auxiliary
from seqrec.recommenders.base import Encoded


def newest_of(auxiliary: Auxiliary, encoded: Encoded, view: str) -> Float[Tensor, "V D"]:
    """The newest state of each history of a view.

    Raises:
        ValueError: the batch does not carry it.
    """
    if view not in encoded.views:
        raise ValueError(
            f"{type(auxiliary).__name__} reads the view '{view}', the batch carries {sorted(encoded.views)}. "
            "Add a view of that name under data.views."
        )
    return encoded.views[view]
