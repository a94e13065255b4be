"""An op is one plain reference that anyone can read, and any number of faster twins that must agree with it."""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)
_forced: ContextVar[str | None] = ContextVar("forced", default=None)

Refuses = Callable[..., str | None]


@dataclass(frozen=True)
class Implementation:
    name: str
    run: Callable[..., Any]
    refuses: Refuses


class Op:
    """A function with a reference and faster implementations; the last one added that does not refuse runs.
    Args:
        reference: the readable form, which takes any input.
    """

    def __init__(self, reference: Callable[..., Any]) -> None:
        functools.update_wrapper(self, reference)
        self.reference = reference
        self.implementations: list[Implementation] = []
        self._exported: Callable[..., Any] | None = None
        self._told: set[str] = set()

    def implementation(self, name: str, refuses: Refuses) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Add a faster twin. ``refuses`` gets the same arguments and says why it cannot run, or None if it can."""

        def add(run: Callable[..., Any]) -> Callable[..., Any]:
            self.implementations.insert(0, Implementation(name, run, refuses))
            return run

        return add

    def exported(self, run: Callable[..., Any]) -> Callable[..., Any]:
        """Set the form that is written into exported programs: tensors alone, whose sizes may all be others later.

        It takes the same arguments, but always one history, which has an event and no past unless it says otherwise.
        """
        self._exported = run
        return run

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._exported is not None and torch.compiler.is_exporting():
            return self._exported(*args, **kwargs)
        forced = _forced.get()
        if forced == "reference":
            return self.reference(*args, **kwargs)
        reasons = []
        for candidate in self.implementations:
            if forced is not None and candidate.name != forced:
                continue
            reason = candidate.refuses(*args, **kwargs)
            if reason is None:
                self._tell(candidate.name, reasons)
                return candidate.run(*args, **kwargs)
            reasons.append(f"{candidate.name}: {reason}")
        if forced is not None and any(candidate.name == forced for candidate in self.implementations):
            raise RuntimeError(f"{self.reference.__name__} cannot run as '{forced}': {'; '.join(reasons)}.")
        self._tell("reference", reasons)
        return self.reference(*args, **kwargs)

    def _tell(self, chosen: str, reasons: list[str]) -> None:
        line = f"{self.reference.__name__} runs as '{chosen}'" + (f" ({'; '.join(reasons)})" if reasons else "")
        if line not in self._told:
            self._told.add(line)
            logger.log(logging.INFO if reasons else logging.DEBUG, line)


def lacks(x: Tensor, device: str, package: str, extra: str) -> str | None:
    """Why a float32 kernel from an optional package cannot take this tensor, or None if it can.

    Args:
        x: one of the inputs.
        device: the type of device that the kernel runs on.
        package: what it needs.
        extra: the extra of seqrec that brings the package.
    """
    if x.dtype == torch.float64:
        return "numbers are float64"
    if x.device.type != device:
        return f"tensors are on {x.device}"
    if importlib.util.find_spec(package) is None:
        return f"{package} is missing (pip install 'seqrec[{extra}]')"
    return None


def lacks_triton(x: Tensor) -> str | None:
    """``lacks`` of a kernel in Triton, whose interpreter takes tensors of any device where TRITON_INTERPRET is 1."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    return lacks(x, x.device.type if interpreted else "cuda", "triton", "gpu")


@contextmanager
def using(name: str) -> Iterator[None]:
    """Force one implementation by name ("reference" for the readable form) wherever an op has one of that name.

    Raises:
        RuntimeError: (on use) the op has that implementation, but it refuses the input; the message says why.
    """
    token = _forced.set(name)
    try:
        yield
    finally:
        _forced.reset(token)


@functools.cache
def leave_ops_as_they_are() -> None:
    """Make ``torch.compile`` compile only what lies between ops, whose sizes are others in every batch.

    Not before it is asked for: it makes torch load its compiler, which takes seconds.
    """
    Op.__call__ = torch.compiler.disable(Op.__call__, reason="an op is a kernel of its own")  # pyright: ignore
