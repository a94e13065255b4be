"""Counting refuses what it would count wrongly."""

from types import SimpleNamespace

import polars as pl
import pytest

from seqrec.catalog import Catalog
from seqrec.data.supervision import EveryEvent, EveryPrefix, MaskedEvents
from seqrec.recommenders.markov import Markov
from seqrec.recommenders.popularity import Popularity, RecentPopularity
from seqrec.training.counting_task import CountingTask


def begun(recommender, supervision=None, has_clock=True, max_epochs=1):
    task = CountingTask(Catalog(pl.DataFrame({"item_id": ["a", "b"], "count": [2, 1]})), recommender)
    data = SimpleNamespace(supervision=supervision or EveryEvent(), has_clock=has_clock)
    task._trainer = SimpleNamespace(max_epochs=max_epochs, datamodule=data)
    task.on_fit_start()


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        ({"max_epochs": 2}, "set trainer.max_epochs to 1"),
        ({"supervision": MaskedEvents()}, "set data.supervision to seqrec.data.supervision.EveryEvent"),
        ({"recommender": RecentPopularity, "has_clock": False}, "choose Popularity"),
    ],
)
def test_what_would_be_counted_wrongly_is_refused(arguments, remedy):
    with pytest.raises(ValueError, match=remedy):
        begun(**{"recommender": Markov, **arguments})


def test_what_would_not_is_not():
    begun(Markov)
    begun(Markov, EveryPrefix())
    begun(Popularity, has_clock=False)
