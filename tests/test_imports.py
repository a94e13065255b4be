"""Imports go down, never up and never sideways; a line that does otherwise is shown."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "seqrec"
MODULES = sorted(PACKAGE.rglob("*.py"))

# One room in several files: the only place where data meets models.
FRONT = (
    *("cli", "lightning_cli", "run_words", "help_text", "suggestions", "quickstart", "runs"),
    *("leaderboard", "reproduction", "studies"),
    *("audit", "robustness", "robustness_report", "warm_start"),
)
RUNS = ("run_export", "run_cold", "run_subjects", "run_describe", "run_embed")
FLOORS = {
    8: (*FRONT, *RUNS),
    7.5: ("board",),
    7: ("training",),
    6.5: ("serving",),
    6: ("objectives", "export"),
    5: ("recommenders",),
    4: ("backbones", "scorers"),
    3: ("embeddings", "nn", "data"),
    2.5: ("audience",),
    2: ("positions", "semantics", "batch"),
    1: ("ops", "evaluation", "catalog", "sequences"),
}
FLOOR_OF = {room: floor for floor, rooms in FLOORS.items() for room in rooms}

# The nouns that everyone above them speaks of.
COMMON = ("sequences", "catalog", "batch", "audience")
# What a room may know besides itself and the common nouns: a room, or one module of it. A room that is not listed may
# know all that is below it.
TEXTS_AS_VECTORS = ("semantics.vectors", "semantics.vector_files", "semantics.neighbours")
BELOW_THE_MODELS = ("ops", "positions", *TEXTS_AS_VECTORS)
KNOWS = {
    # It reads what runs left behind, whatever trained them.
    "board": ("evaluation", "data.errors"),
    # The record of a run says which texts it read.
    "training": ("recommenders", "objectives", "evaluation", "ops", "semantics.vectors"),
    # A reweighter is a small model of users, who may be known by the texts of their items, or by what is asked of them.
    "objectives": ("recommenders", *TEXTS_AS_VECTORS, "semantics.questions", "ops", "nn"),
    # A bundle is a folder that is written whole or not at all, and says what is wrong in the words of the data.
    "export": ("recommenders", "ops", "embeddings.extended", "embeddings.stored", "data.errors", "data.folders"),
    # It reads what is new of a user through the recommender that the bundle carries.
    "serving": ("export", "recommenders.sequential", "data.errors"),
    "recommenders": (
        *("embeddings.base", "backbones.base", "positions.base", "scorers", "ops.ranking"),
        *("nn.dropout", "nn.feed_forward", "nn.target_attention"),
    ),
    "backbones": ("nn", "positions"),
    "scorers": ("nn", "positions"),
    "embeddings": BELOW_THE_MODELS,
    "nn": BELOW_THE_MODELS,
    "data": BELOW_THE_MODELS,
}


def imported(source: str, package: list[str]) -> Iterator[tuple[int, str]]:
    """Line and full name of every import, also those inside functions; ``package`` is where relative ones start."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def refusal(room: str, name: str) -> str | None:
    """Why this room may not import this name of ours, or None if it may; ``name`` lacks the leading ``seqrec.``."""
    other = name.split(".")[0]
    for unknown in {room, other} - set(FLOOR_OF):
        return f"'{unknown}' has no floor; give it one in tests/test_imports.py"
    if room == other or {room, other} <= {*FRONT, *RUNS}:
        return None
    if FLOOR_OF[other] >= FLOOR_OF[room]:
        return f"{room} stands on floor {FLOOR_OF[room]} and {other} on floor {FLOOR_OF[other]}; imports go down"
    if room not in KNOWS or other in COMMON:
        return None
    if any(f"{name}.".startswith(f"{known}.") for known in KNOWS[room]):
        return None
    return f"{room} may know {', '.join((*KNOWS[room], *COMMON))}, not {name}"


def offences(source: str, module: str) -> list[str]:
    """Lines of a module, given by its dotted name, that import what they may not."""
    room, package = module.split(".")[1], module.split(".")[:-1]
    lines, found = source.splitlines(), []
    for line, name in imported(source, package):
        if name.startswith("seqrec.") and (reason := refusal(room, name.removeprefix("seqrec."))):
            found.append(f"{module}, line {line}: `{lines[line - 1].strip()}`: {reason}")
    return found


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)


@pytest.mark.parametrize("path", [p for p in MODULES if p.parent != PACKAGE or p.stem != "__init__"], ids=dotted)
def test_imports_go_down(path):
    found = offences(path.read_text(), dotted(path))
    assert not found, "\n".join(found)


def test_every_room_has_a_floor():
    rooms = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in MODULES} - {"__init__"}
    assert rooms <= set(FLOOR_OF), f"{sorted(rooms - set(FLOOR_OF))} need a floor in tests/test_imports.py"


@pytest.mark.parametrize("path", [p for p in MODULES if p.parent != PACKAGE and p.stem == "__init__"], ids=dotted)
def test_using_one_part_imports_no_other(path):
    assert path.read_text() == "", f"{path} must stay empty: a part is named by its own module"


@pytest.mark.parametrize("path", [p for p in MODULES if p.parent == PACKAGE or p.stem != "__init__"], ids=dotted)
def test_a_module_opens_with_a_sentence(path):
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring, f"{path} does not say what it is for"
    assert docstring.splitlines()[0].endswith((".", ":", "?")), f"the first line of {path} is not a sentence"


@pytest.mark.parametrize(
    ("module", "line", "reason"),
    [
        ("seqrec.data.views", "from seqrec.recommenders.base import Encoded", "imports go down"),
        ("seqrec.data.views", "from seqrec.embeddings import base", "imports go down"),
        ("seqrec.data.views", "from seqrec.semantics.encoders import Encoder", "data may know"),
        ("seqrec.backbones.sasrec", "import seqrec.embeddings.base", "backbones may know"),
        ("seqrec.recommenders.sequential", "from seqrec.backbones.sasrec import SASRec", "recommenders may know"),
        ("seqrec.recommenders.sequential", "from ..backbones.sasrec import SASRec", "recommenders may know"),
        (
            "seqrec.recommenders.sequential",
            "from seqrec.ops.attention import attention",
            "recommenders may know",
        ),
        ("seqrec.training.task", "def f():\n    from seqrec.data.log import Log", "training may know"),
        ("seqrec.ops.ranking", "from seqrec.sequences import Sequences", "imports go down"),
        ("seqrec.training.task", "from seqrec import magic", "has no floor"),
    ],
)
def test_an_import_that_goes_astray_is_shown_with_its_line(module, line, reason):
    (found,) = offences(line, module)
    assert reason in found
    assert line.splitlines()[-1].strip() in found


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("seqrec.recommenders.counting", "from seqrec.ops.ranking import top_k"),
        ("seqrec.recommenders.counting", "from seqrec.ops import ranking"),
        ("seqrec.recommenders.counting", "from .base import Recommender"),
        ("seqrec.data.prepare", "from seqrec.data import columns, raw"),
        ("seqrec.cli", "import seqrec.data.prepare, seqrec.training.task"),
        ("seqrec.nn.attention", "import torch"),
        ("seqrec.data.batching", "from seqrec.batch import Batch"),
    ],
)
def test_an_import_that_goes_down_is_let_through(module, line):
    assert offences(line, module) == []
