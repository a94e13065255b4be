"""Times RecTools' SASRec (rectools 0.19): whole training epochs and full-ranking evaluation, in its own environment.

Usage: python rectools_epoch.py INTERACTIONS.csv --length 50 [--batch 128] [--epochs 2] [--users N]

Prints one JSON object. Data preparation and the first (warming) epoch are outside of the clock. The catalog of a
RecTools model holds the items of its training part alone. A Parquet file is read where pyarrow is installed.
"""

import os
import resource
import time
import warnings

from common import arguments, interactions, report

options = arguments(__doc__)
warnings.filterwarnings("ignore")
if options.threads:
    os.environ["OMP_NUM_THREADS"] = str(options.threads)

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402
from pytorch_lightning import Callback, Trainer, seed_everything  # noqa: E402
from rectools import Columns  # noqa: E402
from rectools.dataset import Dataset  # noqa: E402
from rectools.metrics import NDCG, Recall, calc_metrics  # noqa: E402
from rectools.models import SASRecModel  # noqa: E402

if options.threads:
    torch.set_num_threads(options.threads)


epoch_seconds = []


class EpochClock(Callback):
    """RecTools copies its trainer with all callbacks, so the readings are kept outside of it."""

    def on_train_epoch_start(self, trainer, module):
        self.started = time.perf_counter()

    def on_train_epoch_end(self, trainer, module):
        epoch_seconds.append(time.perf_counter() - self.started)


def main():
    seed_everything(0)
    log, n_items = interactions(options.interactions, options.users)
    log = log.rename(columns={"user_id": Columns.User, "row": "item"}).drop(columns="item_id")
    log = log.rename(columns={"item": Columns.Item})
    log[Columns.Weight] = 1.0
    # The place in the history stands in for the time, so that ties keep the order of the file.
    log[Columns.Datetime] = pd.to_datetime(np.arange(len(log)), unit="s")
    from_the_end = log.groupby(Columns.User).cumcount(ascending=False)
    columns = [Columns.User, Columns.Item, Columns.Weight, Columns.Datetime]
    train = Dataset.construct(log.loc[from_the_end >= 2, columns])
    targets = log.loc[from_the_end == 1, columns]

    def trainer():
        return Trainer(
            max_epochs=options.warm_up + options.epochs,
            callbacks=[EpochClock()],
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )

    model = SASRecModel(
        n_blocks=2,
        n_heads=2,
        n_factors=options.dim,
        dropout_rate=0.2,
        session_max_len=options.length,
        train_min_user_interactions=2,
        loss="softmax",
        lr=1e-3,
        batch_size=options.batch,
        get_trainer_func=trainer,
    ).fit(train)

    # A user whose training part is a single event was not trained on; nor can RecTools recommend to cold users.
    known = train.user_id_map.external_ids
    asked = targets[targets[Columns.User].isin(known)]
    n_events = log.loc[from_the_end >= 2].groupby(Columns.User)[Columns.Item].size()
    users = asked[Columns.User][asked[Columns.User].map(n_events) >= 1].unique()
    eval_seconds, metrics = [], {}
    for _ in range(1 + options.evaluations):
        started = time.perf_counter()
        best = model.recommend(users=users, dataset=train, k=10, filter_viewed=True, on_unsupported_targets="ignore")
        metrics = calc_metrics({"recall@10": Recall(k=10), "ndcg@10": NDCG(k=10)}, best, asked)
        eval_seconds.append(time.perf_counter() - started)
    report(
        peer="rectools",
        packages=["rectools", "torch", "pytorch-lightning"],
        epoch_seconds=epoch_seconds[options.warm_up :],
        eval_seconds=eval_seconds[1:],
        users=len(users),
        items=n_items,
        options=options,
        metrics=metrics,
        threads=torch.get_num_threads(),
        peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


if __name__ == "__main__":
    main()
