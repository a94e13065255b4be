"""Counting refuses what it would count wrongly."""

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch

from seqrec.catalog import Catalog
from seqrec.data.batching import Arrays, TrainingBatches
from seqrec.data.protocol import Part
from seqrec.data.supervision import EveryEvent, EveryPrefix, MaskedEvents, NewestEvent
from seqrec.recommenders.markov import Markov
from seqrec.recommenders.popularity import Popularity, RecentPopularity
from seqrec.training.counting_task import CountingTask


def begun(recommender, supervision=None, has_clock=True, max_epochs=1, max_length=None):
    task = CountingTask(Catalog(pl.DataFrame({"item_id": ["a", "b"], "count": [2, 1]})), recommender)
    supervision, train = supervision or EveryEvent(), Part(np.arange(3), np.array([0, 4, 5]), np.array([4, 5, 7]))
    training = TrainingBatches(Arrays(torch.arange(7), torch.arange(7)), train, supervision, max_length)
    data = SimpleNamespace(
        supervision=supervision, has_clock=has_clock, training=training, split=SimpleNamespace(train=train)
    )
    task._trainer = SimpleNamespace(max_epochs=max_epochs, datamodule=data)
    task.on_fit_start()


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        ({"max_epochs": 2}, "set trainer.max_epochs to 1"),
        ({"supervision": MaskedEvents()}, "set data.supervision to seqrec.data.supervision.EveryEvent"),
        ({"recommender": RecentPopularity, "has_clock": False}, "choose Popularity"),
        ({"max_length": 2}, "for 3 of 4; set data.max_length to null"),
        ({"recommender": RecentPopularity, "max_length": 2}, "for 3 of 4"),
        ({"supervision": NewestEvent()}, "for 2 of 4; .* seqrec.data.supervision.EveryEvent"),
    ],
)
def test_what_would_be_counted_wrongly_is_refused(arguments, remedy):
    with pytest.raises(ValueError, match=remedy):
        begun(**{"recommender": Markov, **arguments})


def test_what_would_not_is_not():
    begun(Markov)
    begun(Markov, EveryPrefix(), max_length=1)
    begun(Markov, max_length=3)
    begun(Popularity, NewestEvent(), has_clock=False, max_length=1)
