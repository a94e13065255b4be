"""Search over the item keys of a bundle with FAISS: exactly, and beside that quickly where a quick index stands by."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

# FAISS gives no longer lists on a GPU.
_MOST_ON_GPU = 2048


class KeyIndex:
    """The catalog rows with the largest inner products; the id of a key is its catalog row.

    The exact keys are always at hand, so that what a quick index finds is scored exactly, and what it cannot promise
    (the best among some items) is searched exactly. Searches run on a GPU where FAISS sees one, except those among some
    items and those of an index that FAISS cannot run there. Any number of threads may search at once.

    Args:
        keys: one float32 key per item, in row order.
        quick: a FAISS index of inner products over the same keys; None searches exactly.
        overfetch: how many times as many candidates as wanted a quick search takes, for they are scored again.

    Raises:
        ModuleNotFoundError: FAISS is not installed.
        FloatingPointError: a key is not finite.
    """

    def __init__(self, keys: Float[Tensor, "N K"], quick: Any = None, overfetch: int = 1) -> None:
        if not torch.isfinite(keys).all():
            raise FloatingPointError("Some item keys are not finite; train again with a lower learning rate.")
        flat = faiss().IndexFlatIP(keys.shape[1])
        flat.add(keys.detach().float().cpu().contiguous().numpy())
        self._hold(flat, quick, overfetch)

    @classmethod
    def around(cls, flat: Any, quick: Any = None, overfetch: int = 1) -> KeyIndex:
        """The same around FAISS's exact index, whose keys come back exactly as they were, without a copy."""
        index = cls.__new__(cls)
        index._hold(flat, quick, overfetch)
        return index

    def _hold(self, flat: Any, quick: Any, overfetch: int) -> None:
        self.flat, self.quick, self.overfetch = flat, quick, overfetch
        self.keys = torch.from_numpy(np.asarray(_Memory(flat)).reshape(flat.ntotal, flat.d))
        self.longest = float(torch.linalg.vector_norm(self.keys, dim=1).max()) if flat.ntotal else 0.0
        self._fastest, self._one_at_a_time = on_gpus(flat if quick is None else quick)

    def search(self, queries: Float[Tensor, "B K"], k: int) -> tuple[Int[Tensor, "B k"], Float[Tensor, "B k"]]:
        """Rows and float32 scores of the ``k`` best items for each query, best first; k is at most the number of items.

        Exact unless there is a quick index, which may miss some, and finds -1 where it runs out of items. Scores are
        rounded as FAISS rounds them, so items closer than that may come in any order.
        """
        if k > _MOST_ON_GPU:
            return _as_tensors((self.flat if self.quick is None else self.quick).search(_as_array(queries), k))
        with self._one_at_a_time:
            return _as_tensors(self._fastest.search(_as_array(queries), k))

    def search_among(
        self, queries: Float[Tensor, "B K"], k: int, admitted: Bool[Tensor, "N"] | None
    ) -> tuple[Int[Tensor, "B k"], Float[Tensor, "B k"]]:
        """The same for the ``k`` best of the admitted items (None: all), exactly, whatever stands by."""
        if admitted is None:
            return (
                self.search(queries, k) if self.quick is None else _as_tensors(self.flat.search(_as_array(queries), k))
            )
        bits = np.packbits(admitted.numpy(), bitorder="little")
        selector = faiss().IDSelectorBitmap(bits)
        return _as_tensors(self.flat.search(_as_array(queries), k, params=faiss().SearchParameters(sel=selector)))


class _Memory:
    """The keys where FAISS keeps them, for numpy; who holds the array holds the index."""

    def __init__(self, flat: Any) -> None:
        self.flat = flat
        numbers = faiss().rev_swig_ptr(flat.get_xb(), flat.ntotal * flat.d) if flat.ntotal else np.empty(0, np.float32)
        self.__array_interface__ = numbers.__array_interface__


def faiss() -> Any:
    """FAISS, imported only now."""
    try:
        import faiss
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "A bundle needs FAISS, which is not installed. Run `pip install 'seqrec[cpu]'`."
        ) from error
    return faiss


def search_with_threads_of_torch() -> None:
    """Let FAISS take as many threads for a search as torch may; it counts for the thread that asks for it alone."""
    faiss().omp_set_num_threads(torch.get_num_threads())


def n_gpus() -> int:
    """How many GPUs FAISS sees; the CPU build sees none."""
    return getattr(faiss(), "get_num_gpus", int)()


def on_gpus(index: Any) -> tuple[Any, Any]:
    """The index where it is searched fastest, and what to hold meanwhile: GPU indexes take one thread at a time."""
    if not n_gpus():
        return index, nullcontext()
    try:
        return faiss().index_cpu_to_all_gpus(index), threading.Lock()
    except RuntimeError:  # FAISS has no GPU form of it
        return index, nullcontext()


def _as_array(queries: Tensor) -> Float[np.ndarray, "B K"]:
    return queries.detach().float().cpu().contiguous().numpy()


def _as_tensors(found: tuple[np.ndarray, np.ndarray]) -> tuple[Tensor, Tensor]:
    scores, rows = found
    return torch.from_numpy(rows), torch.from_numpy(scores)
