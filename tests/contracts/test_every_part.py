"""Every part stands in the contract of its kind; one that no contract tries is shown by its name."""

import importlib
import inspect
import pkgutil
import sys

import pytest

from seqrec import backbones, data, embeddings, objectives, positions, recommenders, training
from seqrec.backbones.base import Backbone
from seqrec.data import poisoning
from seqrec.data.poisoning.base import Attack
from seqrec.data.protocol import Protocol
from seqrec.data.sources import Source
from seqrec.data.supervision import Supervision
from seqrec.data.views import View
from seqrec.embeddings.base import ItemEmbedding
from seqrec.objectives.base import Auxiliary, Objective, Reweighter
from seqrec.objectives.negatives import NegativeSampler
from seqrec.positions.base import AttentionPosition, InputPosition
from seqrec.recommenders.base import Recommender
from seqrec.scorers import Scorer
from seqrec.training.schedule import Schedule

from . import (
    test_attacks,
    test_attention_positions,
    test_auxiliaries,
    test_backbones,
    test_embeddings,
    test_input_positions,
    test_negatives,
    test_objectives,
    test_protocols,
    test_recommenders,
    test_reweighters,
    test_schedules,
    test_scorers,
    test_sources,
    test_supervisions,
    test_views,
)

CONTRACTS = {
    Attack: test_attacks,
    AttentionPosition: test_attention_positions,
    Auxiliary: test_auxiliaries,
    Backbone: test_backbones,
    InputPosition: test_input_positions,
    ItemEmbedding: test_embeddings,
    NegativeSampler: test_negatives,
    Objective: test_objectives,
    Protocol: test_protocols,
    Recommender: test_recommenders,
    Reweighter: test_reweighters,
    Schedule: test_schedules,
    Scorer: test_scorers,
    Source: test_sources,
    Supervision: test_supervisions,
    View: test_views,
}
ROOMS = [backbones, data, poisoning, embeddings, objectives, positions, recommenders, training]


def parts(kind):
    """Names and classes of all that can be used as this kind; a private one is somebody's inside, and what torch makes
    of a class to export it is in no module."""
    for room in ROOMS:
        for module in pkgutil.iter_modules(room.__path__, f"{room.__name__}."):
            importlib.import_module(module.name)
    found, waiting = {}, [kind]
    while waiting:
        part = waiting.pop()
        waiting += part.__subclasses__()
        is_ours = part.__module__.startswith("seqrec.") and not inspect.isabstract(part) and part.__name__[0] != "_"
        if is_ours and getattr(sys.modules[part.__module__], part.__name__, None) is part:
            found[part.__name__] = part
    return found


@pytest.mark.parametrize("kind", CONTRACTS, ids=lambda kind: kind.__name__)
def test_no_part_escapes_the_contract_of_its_kind(kind):
    named = [part for part in vars(CONTRACTS[kind]).values() if isinstance(part, type)]
    found = parts(kind)
    assert found
    assert [name for name, part in found.items() if part not in named] == []
