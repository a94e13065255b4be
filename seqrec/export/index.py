"""The FAISS index of a bundle: item keys in, the catalog rows with the largest inner products out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


class KeyIndex:
    """Exact inner-product search over the keys of a catalog; the id of a key is its catalog row.

    Args:
        keys: one float32 key per item, in row order.

    Raises:
        ModuleNotFoundError: FAISS is not installed.
        FloatingPointError: a key is not finite.
    """

    def __init__(self, keys: Float[Tensor, "N K"]) -> None:
        if not torch.isfinite(keys).all():
            raise FloatingPointError("Some item keys are not finite; train again with a lower learning rate.")
        faiss = _faiss()
        self.keys = keys.detach().float().cpu().contiguous()
        self._index = faiss.IndexIDMap(faiss.IndexFlatIP(keys.shape[1]))
        self._index.add_with_ids(self.keys.numpy(), np.arange(len(keys), dtype=np.int64))

    def search(self, queries: Float[Tensor, "B K"], k: int) -> tuple[Int[Tensor, "B k"], Float[Tensor, "B k"]]:
        """Rows and float32 scores of the ``k`` best items for each query, best first; k is at most the number of items.

        Scores are rounded as FAISS rounds them, so items closer than that may come in any order.
        """
        scores, rows = self._index.search(queries.detach().float().cpu().contiguous().numpy(), k)
        return torch.from_numpy(rows), torch.from_numpy(scores)

    def save(self, path: Path) -> None:
        _faiss().write_index(self._index, str(path))

    @classmethod
    def load(cls, path: Path) -> KeyIndex:
        """Read what ``save`` wrote. The keys come back exactly as they were."""
        faiss = _faiss()
        stored = cls.__new__(cls)
        stored._index = faiss.read_index(str(path))
        flat = faiss.downcast_index(stored._index.index)
        stored.keys = torch.from_numpy(flat.reconstruct_n(0, flat.ntotal))
        return stored


def _faiss() -> Any:
    try:
        import faiss
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "A bundle needs FAISS, which is not installed. Run `pip install 'seqrec[cpu]'`."
        ) from error
    return faiss
