"""What both peer scripts share: the command line, the histories of a file, and the JSON that is printed."""

import argparse
import importlib.metadata
import json
import platform


def arguments(description):
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("interactions", help="Parquet or CSV file with the columns user_id, item_id, timestamp")
    parser.add_argument("--length", type=int, default=50, help="events per history that the model reads")
    parser.add_argument("--batch", type=int, default=128, help="histories per step")
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=2, help="epochs on the clock")
    parser.add_argument("--warm-up", type=int, default=1, help="epochs before the clock starts")
    parser.add_argument("--evaluations", type=int, default=3, help="evaluations on the clock, after one that warms up")
    parser.add_argument("--users", type=int, default=0, help="only the first N users; 0 takes all")
    parser.add_argument("--threads", type=int, default=0, help="threads of torch; 0 leaves its own choice")
    return parser.parse_args()


def interactions(path, n_users):
    """The log as a pandas table with user_id, item_id, timestamp, and the number of items in the whole file.

    Sorted by user and time, ties in file order; users with fewer than three events are left out. With ``n_users`` only
    the first users stay, but items are numbered over the whole file.
    """
    import pandas as pd

    columns = ["user_id", "item_id", "timestamp"]
    if str(path).endswith(".csv"):
        log = pd.read_csv(path, usecols=columns, dtype={"user_id": str, "item_id": str})
    else:
        log = pd.read_parquet(path, columns=columns)
    log["row"], ids = pd.factorize(log["item_id"])
    log = log.sort_values(["user_id", "timestamp"], kind="stable", ignore_index=True)
    log = log[log.groupby("user_id")["row"].transform("size") >= 3]
    if n_users:
        log = log[log["user_id"].isin(log["user_id"].unique()[:n_users])]
    return log, len(ids)


def histories(path, n_users):
    """Item rows of every user, oldest first, as lists, and the number of items in the whole file."""
    log, n_items = interactions(path, n_users)
    return log.groupby("user_id", sort=False)["row"].agg(list).tolist(), n_items


def report(*, options, packages, **figures):
    versions = {name: importlib.metadata.version(name) for name in packages}
    settings = {name: value for name, value in vars(options).items() if name != "interactions"}
    figures["metrics"] = {name: float(value) for name, value in figures.get("metrics", {}).items()}
    print(json.dumps({**figures, "versions": {**versions, "python": platform.python_version()}, "settings": settings}))
