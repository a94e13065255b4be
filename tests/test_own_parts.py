"""The page on parts of one's own is true: what it shows runs, and every seat takes a part that seqrec does not know."""

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from small_shop import said_of

from seqrec.cli import main
from seqrec.data.prepare import prepare_log
from seqrec.data.simulated import SimulatedShop

pytest.importorskip("faiss")

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "own-parts.md").read_text()
# The line before each block, its language, its text.
BLOCKS = re.findall(r"([^\n]*)\n\n```(\w*)\n(.*?)(?=```\n)", PAGE, re.DOTALL)
NAMED = [(re.search(r"`(\w+\.(?:py|yaml))`.*:$", line), kind, text) for line, kind, text in BLOCKS]
FILES = {name[1]: text for name, _, text in NAMED if name}
COMMANDS = [shlex.split(line) for _, kind, text in NAMED if not kind for line in text.splitlines() if line]
CELLS = [text for name, kind, text in NAMED if kind == "python" and not name]

SEATS = """
import numpy as np
import polars as pl
import torch

from seqrec.backbones.base import Backbone
from seqrec.data.protocol import Cut, Protocol
from seqrec.data.sources import Source
from seqrec.data.supervision import Supervision
from seqrec.data.views import View
from seqrec.embeddings.base import ItemEmbedding
from seqrec.nn.attention import CausalAttention
from seqrec.objectives.base import Auxiliary, Reweighter, Weighting
from seqrec.objectives.negatives import NegativeSampler
from seqrec.positions.base import InputPosition, LogitPosition
from seqrec.scorers import Scorer
from seqrec.training.schedule import Schedule

USED = set()


def used(part):
    USED.add(type(part).__name__)


class MyEmbedding(ItemEmbedding):
    by_item = ("table",)

    def __init__(self, catalog, dim: int) -> None:
        super().__init__(dim)
        self.table = torch.nn.Parameter(torch.randn(len(catalog), dim))

    def forward(self, rows=None):
        used(self)
        return self.table if rows is None else self.table[rows]


class MyInputPosition(InputPosition):
    def forward(self, events, history):
        used(self)
        return events + 0.01 * history.places[:, None]


class MyAttentionPosition(LogitPosition):
    def __init__(self, channels: int) -> None:
        super().__init__()

    def adjust(self, logits, pairs):
        used(self)
        return logits / 2


class MyScorer(Scorer):
    def queries(self, states):
        used(self)
        return 2 * states

    def keys(self, items):
        return items

    def scores(self, products):
        return products


class MyNegatives(NegativeSampler):
    def draw(self, encoded, n, generator=None):
        used(self)
        return torch.randint(len(encoded.counts), (n,), generator=generator)

    def log_probability(self, encoded, rows):
        return torch.zeros(rows.shape)


class MyAuxiliary(Auxiliary):
    name, weight = "mine", 0.1

    def forward(self, encoded):
        used(self)
        return encoded.states.square().mean() + encoded.views["mine"].square().mean()


class MyReweighter(Reweighter):
    def forward(self, encoded):
        used(self)
        return Weighting(torch.ones(len(encoded.queries)), torch.zeros(()))


class MySchedule(Schedule):
    def after_warmup(self, step, steps):
        used(self)
        return 0.5


class MyProtocol(Protocol):
    def cut(self, log):
        used(self)
        last = np.asarray(log.offsets)[1:] - 1
        validation, test = np.zeros((2, len(log.items)), dtype=bool)
        validation[last[::2]] = test[last[1::2]] = True
        return Cut(last, validation, test)

    def parameters(self):
        return {"halves": True}


class MySupervision(Supervision):
    predicts_every_event = False

    def rows(self, part, max_length):
        used(self)
        kept = part.lengths >= 2
        return type(part)(part.users[kept], part.starts[kept], part.ends[kept])

    def predict_at(self, history, generator=None):
        return history.newest


class MyView(View):
    def __init__(self, data, name: str = "mine") -> None:
        self.name = name

    def __call__(self, histories, users, ends, generator):
        used(self)
        return histories


class MySource(Source):
    def read(self):
        used(self)
        users = [f"u{u}" for u in range(20) for _ in range(6)]
        items = [f"i{(u + 2 * e) % 15}" for u in range(20) for e in range(6)]
        return pl.LazyFrame({"user_id": users, "item_id": items, "timestamp": [*range(6)] * 20}).with_columns(
            pl.col("timestamp").cast(pl.Int64) + 1_600_000_000
        )

    def items(self):
        return None
"""
CARD = """
name: mine
source: {class_path: seats.MySource}
licence: ours
citation: none
columns: {}
counts: {users: 20, items: 15, interactions: 120, where: here}
"""
EVERY_SEAT = """
data:
  prepared: mine
  protocol: seats.MyProtocol
  supervision: seats.MySupervision
  views: [{class_path: seats.MyView}]
trainer: {accelerator: cpu, max_epochs: 1, enable_progress_bar: false, enable_model_summary: false}
model:
  recommender:
    class_path: seqrec.recommenders.sequential.SequentialRecommender
    init_args:
      embedding: {class_path: seats.MyEmbedding, init_args: {dim: 8}}
      position: seats.MyInputPosition
      scorer: seats.MyScorer
      backbone:
        class_path: seqrec.backbones.sasrec.SASRec
        init_args: {dim: 8, n_layers: 1, n_heads: 1, position: seats.MyAttentionPosition}
  objective: {class_path: seqrec.objectives.sampled.SampledSoftmax, init_args: {negatives: seats.MyNegatives}}
  reweighter: seats.MyReweighter
  auxiliaries: [{class_path: seats.MyAuxiliary}]
  schedule: seats.MySchedule
"""


@pytest.fixture
def desk(tmp_path, monkeypatch) -> Iterator[Path]:
    """A folder with a small shop and the files of the page, in which the commands are given."""
    prepare_log(SimulatedShop(users=60, items=60, mean_events=12.0), tmp_path / "data/prepared/simulated-shop")
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in {"my_parts", "seats"} - before:
        sys.modules.pop(name, None)


def test_what_the_page_shows_runs(desk, capsys):
    assert [*FILES] == ["my_parts.py", "own.yaml", "test_my_parts.py"]
    assert len(COMMANDS) == 9
    assert len(CELLS) == 2
    for seqrec, *words in COMMANDS:
        assert seqrec == "seqrec"
        if any(word.endswith(".help") for word in words):
            with pytest.raises(SystemExit, match=r"^0$"):
                main(words)
        else:
            assert main(words) == 0
    said = capsys.readouterr().out
    assert "ndcg@10 of the first minus the second" in said
    for argument in ("--recommender.dropout", "--backbone.dim", "--objective.n_negatives", "seen_is_excluded"):
        assert argument in said
    assert "share of the mean's entries" in said

    names = {}
    for cell in CELLS:
        exec(cell, names)
    answered = capsys.readouterr().out
    ids = [names["data"].catalog.ids[row] for row in names["best"].items[0].tolist()]
    assert len(set(ids)) == 5
    assert str(ids) in answered
    assert not {"item-00003", "item-00007"} & set(ids)
    assert answered.count("Recommendation(") == 5
    assert names["task"].metrics["count"] == len(pl.read_parquet("runs/notebook/ranks.parquet"))
    result = json.loads((desk / "runs/own/result.json").read_text())
    whole = names["ranks"].select(names["gain"].mean()).item()
    assert whole == pytest.approx(result["metrics"]["ndcg@10"], abs=1e-9)

    (desk / "elsewhere").mkdir()
    os.chdir(desk / "elsewhere")
    sys.path.remove(str(desk))
    del sys.modules["my_parts"]
    said = said_of(capsys, "recommend", "--bundle=../bundles/own", "--history=item-00003")
    assert "There is no module my_parts" in said
    assert "pip" not in said


def test_the_parts_of_the_page_pass_the_contracts(desk):
    assert "PYTHONPATH=path/to/seqrec/tests python -m pytest test_my_parts.py" in PAGE
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'tests'}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_my_parts.py"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert int(re.findall(r"(\d+) passed", done.stdout)[0]) > 30


def test_every_seat_takes_a_part_that_lies_elsewhere(desk):
    for name, text in (("seats.py", SEATS), ("mine.yaml", CARD), ("run.yaml", EVERY_SEAT)):
        (desk / name).write_text(text)
    assert main(["prepare", "mine.yaml", "--out=mine"]) == 0
    assert main(["fit", "--config=run.yaml", "--run=runs/seats"]) == 0
    assert main(["test", "--run=runs/seats", "--verbose=false"]) == 0
    seats = importlib.import_module("seats")
    assert {name for name in vars(seats) if name.startswith("My")} == seats.USED


ROWS = [line.strip("|\n").split(" | ") for line in PAGE.splitlines() if line.startswith("|") and "`seqrec." in line]


def found(path):
    module, name = path.rsplit(".", 1)
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0].strip(" `"))
def test_a_seat_has_the_base_class_and_the_methods_that_the_page_names(row):
    _, bases, methods, example = row
    first, *others = re.findall(r"`([\w.]+)`", bases)
    kinds = [found(first), *(found(f"{first.rsplit('.', 1)[0]}.{other}") for other in others)]
    assert issubclass(found(example.strip("` ")), tuple(kinds))
    for name in re.findall(r"`(\w+)\(", methods):
        assert any(hasattr(kind, name) for kind in kinds) or name in ("Cut", "Weighting")


def test_help_on_an_inner_part_may_stand_before_what_it_is_part_of(capsys):
    asked = ["--model.recommender.backbone.position.help", "seqrec.positions.relative.ALiBi"]
    outer = ["--model.recommender.backbone=seqrec.backbones.sasrec.SASRec"]
    for words in ([*asked, *outer], [*outer, "=".join(asked)]):
        with pytest.raises(SystemExit, match=r"^0$"):
            main(["fit", *words])
        assert "--position.channels" in capsys.readouterr().out


def test_a_module_that_nobody_has_is_not_said_to_be_a_package(desk, capsys):
    said = said_of(capsys, "fit", "--config=own.yaml", "--model.objective=my_partz.Pairwise")
    assert "There is no module my_partz" in said
    assert "pip" not in said
