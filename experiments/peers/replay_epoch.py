"""Times RePlay's SASRec (replay-rec 0.22): whole training epochs and full-ranking evaluation, in its own environment.

Usage: python replay_epoch.py INTERACTIONS.parquet --length 50 [--batch 128] [--epochs 2] [--users N]

Prints one JSON object. Data preparation and the first (warming) epoch are outside of the clock.
"""

import os
import resource
import tempfile
import time
import warnings
from pathlib import Path

from common import arguments, histories, report

options = arguments(__doc__)
warnings.filterwarnings("ignore")
if options.threads:
    os.environ["OMP_NUM_THREADS"] = str(options.threads)

import lightning  # noqa: E402
import polars as pl  # noqa: E402
import torch  # noqa: E402
from replay.data import FeatureHint, FeatureSource, FeatureType  # noqa: E402
from replay.data.nn import ParquetModule, TensorFeatureInfo, TensorFeatureSource, TensorSchema  # noqa: E402
from replay.nn.lightning import LightningModule  # noqa: E402
from replay.nn.lightning.callback import ComputeMetricsCallback  # noqa: E402
from replay.nn.lightning.optimizer import OptimizerFactory  # noqa: E402
from replay.nn.lightning.postprocessor import SeenItemsFilter  # noqa: E402
from replay.nn.sequential.sasrec import SasRec  # noqa: E402
from replay.nn.transform.template import make_default_sasrec_transforms  # noqa: E402

if options.threads:
    torch.set_num_threads(options.threads)


class EpochClock(lightning.Callback):
    def __init__(self):
        self.seconds = []

    def on_train_epoch_start(self, trainer, module):
        self.started = time.perf_counter()

    def on_train_epoch_end(self, trainer, module):
        self.seconds.append(time.perf_counter() - self.started)


def main():
    lightning.seed_everything(0)
    users, n_items = histories(options.interactions, options.users)
    longest = max(len(items) for items in users)
    schema = TensorSchema(
        TensorFeatureInfo(
            "item_id",
            is_seq=True,
            feature_type=FeatureType.CATEGORICAL,
            embedding_dim=options.dim,
            padding_value=n_items,
            cardinality=n_items,
            feature_hint=FeatureHint.ITEM_ID,
            feature_sources=[TensorFeatureSource(FeatureSource.INTERACTIONS, "item_id")],
        )
    )
    with tempfile.TemporaryDirectory() as folder:
        train, validate = Path(folder, "train.parquet"), Path(folder, "validate.parquet")
        pl.DataFrame({"item_id": [items[:-2] for items in users]}).write_parquet(train)
        pl.DataFrame(
            {
                "item_id": [items[:-2] for items in users],
                "ground_truth": [items[-2:-1] for items in users],
                "seen_ids": [items[:-2] for items in users],
            }
        ).write_parquet(validate)
        data = ParquetModule(
            batch_size=options.batch,
            metadata={
                "train": {"item_id": {"shape": options.length + 1, "padding": n_items}},
                "validate": {
                    "item_id": {"shape": options.length, "padding": n_items},
                    "ground_truth": {"shape": 1, "padding": -1},
                    "seen_ids": {"shape": longest, "padding": -2},
                },
            },
            transforms=make_default_sasrec_transforms(schema),
            train_path=str(train),
            validate_path=str(validate),
        )
        model = SasRec.from_params(
            schema,
            embedding_dim=options.dim,
            num_heads=2,
            num_blocks=2,
            max_sequence_length=options.length,
            dropout=0.2,
        )
        module = LightningModule(model, optimizer_factory=OptimizerFactory(learning_rate=1e-3))
        clock = EpochClock()
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
        lightning.Trainer(
            max_epochs=options.warm_up + options.epochs,
            callbacks=[clock],
            limit_val_batches=0,
            num_sanity_val_steps=0,
            enable_model_summary=False,
            **quiet,
        ).fit(module, datamodule=data)
        metrics = ComputeMetricsCallback(
            metrics=["recall", "ndcg"],
            ks=[10],
            postprocessors=[SeenItemsFilter(n_items, "seen_ids")],
            item_count=n_items,
            verbose=False,
        )
        judge = lightning.Trainer(callbacks=[metrics], **quiet)
        eval_seconds = []
        for _ in range(1 + options.evaluations):
            started = time.perf_counter()
            result = judge.validate(module, datamodule=data, verbose=False)
            eval_seconds.append(time.perf_counter() - started)
    report(
        peer="replay-rec",
        packages=["replay-rec", "torch", "lightning"],
        epoch_seconds=clock.seconds[options.warm_up :],
        eval_seconds=eval_seconds[1:],
        users=len(users),
        items=n_items,
        options=options,
        metrics=result[0] if result else {},
        threads=torch.get_num_threads(),
        peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


if __name__ == "__main__":
    main()
