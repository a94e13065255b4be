"""Functions compiled by numba, once for all programs where their form can be kept on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """The function, compiled without the interpreter's lock and with NumPy's rules for division.

    Where no folder can be written to, as in a container of read-only files, every program compiles it anew.
    """
    compiling = {"nogil": True, "error_model": "numpy", **options}
    try:
        return numba.njit(cache=True, **compiling)(function)
    except RuntimeError:  # numba's words for "there is no place for a cache"
        return numba.njit(**compiling)(function)
