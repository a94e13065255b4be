"""What a recommender remembers of one user as bytes, for a database of users, and back; only for its own model."""

from __future__ import annotations

import json
import struct

from safetensors import SafetensorError
from safetensors.torch import load, save

from seqrec.data.errors import InputError
from seqrec.export.users import alone
from seqrec.recommenders.sequential import Remembered, SequentialRecommender
from seqrec.sequences import Past

_MEMORY = "memory/"


def to_bytes(recommender: SequentialRecommender, remembered: Remembered, fingerprint: str) -> bytes:
    """What is remembered of one user (or of several of whom as much is remembered) in the safetensors format.

    Args:
        recommender: the one that remembers.
        remembered: what ``remember`` or ``proceed`` returned.
        fingerprint: of its weights, recipe and catalog, as ``Retriever.fingerprint`` or ``users.fingerprint`` say.

    Raises:
        TypeError: the backbone remembers nothing, or more of one user than of another.
    """
    past = remembered.past
    tensors = {
        "newest": remembered.newest,
        "counts": past.counts,
        **({} if past.times is None else {"times": past.times}),
        **{_MEMORY + name: tensor for name, tensor in recommender.stored(remembered.memory).items()},
    }
    return save({name: alone(tensor) for name, tensor in tensors.items()}, {"fingerprint": fingerprint})


def from_bytes(recommender: SequentialRecommender, content: bytes, fingerprint: str) -> Remembered:
    """What ``to_bytes`` made bytes of.

    Raises:
        InputError: the bytes are broken, or a model with other weights, another recipe or another catalog remembered
            it.
    """
    try:
        tensors, found = load(content), _fingerprint_in(content)
        newest, counts = tensors.pop("newest"), tensors.pop("counts")
    except (SafetensorError, KeyError, ValueError, struct.error) as error:
        raise InputError(f"The memory is broken ({error}); read the user's whole history again.") from error
    if found != fingerprint:
        raise InputError(
            "The memory is of a model with other weights, another recipe or another catalog; read the user's whole "
            "history again."
        )
    times = tensors.pop("times", None)
    memory = recommender.restored({name.removeprefix(_MEMORY): tensor for name, tensor in tensors.items()})
    return Remembered(memory, Past(counts, times), newest)


def _fingerprint_in(content: bytes) -> str:
    """From the header of the format: its length in eight bytes, then JSON."""
    (length,) = struct.unpack_from("<Q", content)
    return json.loads(content[8 : 8 + length])["__metadata__"]["fingerprint"]
