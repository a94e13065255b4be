"""The real service in a process of its own, over small bundles."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from small_bundles import STREAMING, a_bundle

pytest.importorskip("faiss")
pytest.importorskip("fastapi")


@dataclass
class Running:
    """A service that listens."""

    process: subprocess.Popen
    url: str
    log: Path

    def get(self, path: str, **more) -> requests.Response:
        return requests.get(self.url + path, timeout=60, **more)

    def post(self, path: str, body: object, **more) -> requests.Response:
        return requests.post(self.url + path, json=body, timeout=60, **more)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path) -> Iterator[Start]:
    """Starts `seqrec serve` with these options on a free port, and ends it after the test."""
    with starter(tmp_path) as begin:
        yield begin


@pytest.fixture(scope="module")
def start_once(tmp_path_factory) -> Iterator[Start]:
    """The same for all tests of a file."""
    with starter(tmp_path_factory.mktemp("service")) as begin:
        yield begin


@contextlib.contextmanager
def starter(folder: Path) -> Iterator[Start]:
    running: list[Running] = []

    def begin(*options: str, port: int = 0) -> Running:
        said = folder / f"service-{len(running)}.log"
        command = [sys.executable, "-m", "seqrec.cli", "serve", f"--port={port}", *options]
        if not any(option.startswith("--store") for option in options):
            command.append(f"--store={folder / 'events.sqlite'}")
        environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        with said.open("w") as file:
            process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
        service = Running(process, "", said)
        running.append(service)
        deadline = time.monotonic() + 120
        while not (found := re.search(r"running on (http://\S+)", said.read_text())):
            assert process.poll() is None, said.read_text()[-3000:]
            assert time.monotonic() < deadline, said.read_text()[-3000:]
            time.sleep(0.05)
        service.url = found.group(1)
        return service

    try:
        yield begin
    finally:
        for service in running:
            service.process.kill()
            service.process.wait()


@pytest.fixture(scope="session")
def windowed(tmp_path_factory) -> Path:
    """A bundle whose model reads whole windows."""
    return a_bundle(tmp_path_factory.mktemp("windowed") / "windowed")


@pytest.fixture(scope="session")
def streaming(tmp_path_factory) -> Path:
    """A bundle whose model goes on from what it remembers."""
    return a_bundle(tmp_path_factory.mktemp("streaming") / "streaming", STREAMING)


@pytest.fixture
def own_bundle(tmp_path, windowed) -> Path:
    """A copy that a test may replace."""
    return Path(shutil.copytree(windowed, tmp_path / "own"))
