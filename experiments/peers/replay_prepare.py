"""Prepares a log as RePlay's own SASRec example does: leave-one-out split, then tokenised sequences; polars throughout.

Usage: PEER/bin/python replay_prepare.py LOG.parquet; the last line of output is the time in seconds, without imports.
"""

import sys
import time

import polars as pl
from replay.data import Dataset, FeatureHint, FeatureInfo, FeatureSchema, FeatureSource, FeatureType
from replay.data.nn import SequenceTokenizer, TensorFeatureInfo, TensorFeatureSource, TensorSchema
from replay.splitters import LastNSplitter


def dataset(interactions: pl.DataFrame) -> Dataset:
    features = FeatureSchema(
        [
            FeatureInfo("user_id", FeatureType.CATEGORICAL, FeatureHint.QUERY_ID),
            FeatureInfo("item_id", FeatureType.CATEGORICAL, FeatureHint.ITEM_ID),
            FeatureInfo("timestamp", FeatureType.NUMERICAL, FeatureHint.TIMESTAMP),
        ]
    )
    return Dataset(feature_schema=features, interactions=interactions, check_consistency=False)


def main() -> None:
    begin = time.perf_counter()
    interactions = pl.read_parquet(sys.argv[1], columns=["user_id", "item_id", "timestamp"])
    splitter = LastNSplitter(
        N=1,
        divide_column="user_id",
        query_column="user_id",
        item_column="item_id",
        timestamp_column="timestamp",
        strategy="interactions",
        drop_cold_users=True,
        drop_cold_items=True,
    )
    test_events, test_targets = splitter.split(interactions)
    validation_events, validation_targets = splitter.split(test_events)
    item = TensorFeatureInfo(
        name="item_id_seq",
        is_seq=True,
        feature_type=FeatureType.CATEGORICAL,
        feature_sources=[TensorFeatureSource(FeatureSource.INTERACTIONS, "item_id")],
        feature_hint=FeatureHint.ITEM_ID,
    )
    tokenizer = SequenceTokenizer(TensorSchema(item), allow_collect_to_master=True, handle_unknown_rule="drop")
    # In leave-one-out the training part is what the validation histories hold.
    tokenizer.fit(dataset(validation_events))
    sequences = [
        tokenizer.transform(dataset(part))
        for part in (validation_events, validation_targets, test_events, test_targets)
    ]
    print([len(part) for part in sequences])
    print(time.perf_counter() - begin)


if __name__ == "__main__":
    main()
