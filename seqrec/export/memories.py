"""What a recommender remembers of one history as bytes, to be kept anywhere."""

from __future__ import annotations

import io

import torch

from seqrec.data.errors import InputError
from seqrec.recommenders.sequential import Remembered, SequentialRecommender
from seqrec.sequences import Past


def to_bytes(recommender: SequentialRecommender, remembered: Remembered, fingerprint: str) -> bytes:
    """What is remembered of one history, for the weights and the catalog with this fingerprint.

    Raises:
        TypeError: the backbone remembers nothing that can be kept.
    """
    kept = {f"memory.{name}": tensor for name, tensor in recommender.stored(remembered.memory).items()}
    kept |= {"newest": remembered.newest, "counts": remembered.past.counts, "fingerprint": fingerprint}
    if remembered.past.times is not None:
        kept["times"] = remembered.past.times
    file = io.BytesIO()
    torch.save(kept, file)
    return file.getvalue()


def from_bytes(recommender: SequentialRecommender, content: bytes, fingerprint: str) -> Remembered:
    """What ``to_bytes`` made bytes of.

    Raises:
        InputError: a model with other weights or another catalog remembered it.
    """
    kept = torch.load(io.BytesIO(content), weights_only=True)
    if kept.pop("fingerprint") != fingerprint:
        raise InputError("The memory is of a model with other weights or another catalog; read the whole history.")
    memory = {name.removeprefix("memory."): tensor for name, tensor in kept.items() if name.startswith("memory.")}
    return Remembered(recommender.restored(memory), Past(kept["counts"], kept.get("times")), kept["newest"])
