"""Where an experiment runs, when what was asked of it there is done, and the file that its figures belong in."""

from __future__ import annotations

import argparse
import os
import platform
import time
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"


def add_device(parser: argparse.ArgumentParser) -> None:
    """Not the fastest device that there is: figures that are recorded side by side were taken on one kind."""
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where models run")


def results_of(name: str, device: str) -> Path:
    """A GPU has a file of its own, so that its figures take the place of no processor's."""
    return RESULTS / (f"{name}.json" if device == "cpu" else f"{name}-{device}.json")


def now(device: str) -> float:
    """Seconds on a clock, once everything that was asked of the device is done."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def machine(device: str) -> dict[str, str | int | None]:
    """What the figures were taken on."""
    about = {"processor": platform.processor(), "cores": os.cpu_count(), "torch": torch.__version__}
    return about if device == "cpu" else about | {"gpu": torch.cuda.get_device_name()}
