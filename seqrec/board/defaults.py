"""Configs without what they would say anyway, so that an option that came later parts no older run from a newer one."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from enum import Enum
from functools import cache
from typing import Any


def without_defaults(config: Any) -> Any:
    """The same config without arguments, at any depth, that are what the class takes where nobody names them."""
    if isinstance(config, list):
        return [without_defaults(value) for value in config]
    if not isinstance(config, dict):
        return config
    kept = {name: without_defaults(value) for name, value in config.items()}
    told = kept.get("init_args")
    if isinstance(kept.get("class_path"), str) and isinstance(told, dict):
        usual = _defaults(kept["class_path"])
        kept["init_args"] = {name: value for name, value in told.items() if not _same(value, name, usual)}
    return kept


def _same(value: Any, name: str, usual: Mapping[str, Any]) -> bool:
    if name not in usual:
        return False
    default = usual[name].name if isinstance(usual[name], Enum) else usual[name]
    default = list(default) if isinstance(default, tuple) else default
    return type(value) is type(default) and value == default


@cache
def _defaults(path: str) -> Mapping[str, Any]:
    """What the arguments of a class are where nobody names them; nothing is known of a class that is not there."""
    module, _, name = path.rpartition(".")
    try:
        arguments = inspect.signature(getattr(importlib.import_module(module), name)).parameters.values()
    except Exception:  # a module of someone's own may raise anything
        return {}
    return {each.name: each.default for each in arguments if each.default is not inspect.Parameter.empty}
