"""Memories of backbones, which are tensors, dataclasses and lists of such, as tensors by name, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import singledispatch
from typing import Any

from torch import Tensor


@singledispatch
def named(memory: Any) -> dict[str, Tensor]:
    """The tensors of a memory, named by where they stand in it, such as ``0.mamba.state``."""
    return _joined({field.name: getattr(memory, field.name) for field in fields(memory)})


@named.register
def _(memory: Tensor) -> dict[str, Tensor]:
    return {"": memory}


@named.register
def _(memory: list) -> dict[str, Tensor]:
    return _joined({str(place): part for place, part in enumerate(memory)})


@singledispatch
def rebuilt(like: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The memory that ``named`` made these tensors of.

    Args:
        like: another memory of the same model, whatever it remembers.
        tensors: by name.
    """
    return type(like)(
        **{each.name: rebuilt(getattr(like, each.name), _under(tensors, each.name)) for each in fields(like)}
    )


@rebuilt.register
def _(like: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
    return tensors[""]


@rebuilt.register
def _(like: list, tensors: Mapping[str, Tensor]) -> list:
    return [rebuilt(part, _under(tensors, str(place))) for place, part in enumerate(like)]


def _joined(parts: Mapping[str, Any]) -> dict[str, Tensor]:
    return {
        f"{name}.{rest}" if rest else name: tensor
        for name, part in parts.items()
        for rest, tensor in named(part).items()
    }


def _under(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """What stands inside the part of this name."""
    inside = {key.removeprefix(f"{name}."): tensor for key, tensor in tensors.items() if key.startswith(f"{name}.")}
    return {**inside, "": tensors[name]} if name in tensors else inside
