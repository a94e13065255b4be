"""Every name is defined. Ruff reads the letters of a shape as names, too, so these are told apart by their quotes."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def undefined(folder: Path) -> list[str]:
    """Where names stand that nothing defines."""
    command = ["ruff", "check", "--isolated", "--select=F821", "--output-format=json", "--exit-zero", str(folder)]
    found = json.loads(subprocess.run([sys.executable, "-m", *command], capture_output=True, check=True).stdout)
    told = []
    for each in found:
        row, column = each["location"]["row"], each["location"]["column"]
        line = Path(each["filename"]).read_text(encoding="utf-8").splitlines()[row - 1]
        if line[: column - 1].count('"') % 2 == 0:
            told.append(f"{each['filename']}:{row}: {line.strip()}")
    return told


def test_every_name_is_defined():
    assert undefined(ROOT / "seqrec") == []


def test_a_name_that_nothing_defines_is_found_and_a_shape_is_none(tmp_path):
    imports = "from jaxtyping import Float, Int\nfrom torch import Tensor\n"
    (tmp_path / "one.py").write_text(
        imports + 'def f(x: Float[Tensor, "M"], y: "T") -> Int[Tensor, "*n"]:\n    return kind\n'
    )
    assert [line.partition(":4: ")[2] for line in undefined(tmp_path)] == ["return kind"]
