"""What a recommender remembers of many users, in one file of a bundle: pasts that need not be read again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from seqrec.data.errors import InputError
from seqrec.recommenders.base import Recommender
from seqrec.recommenders.sequential import Remembered, SequentialRecommender
from seqrec.sequences import Past, Sequences

_MEMORY = "memory/"
# Arguments that say in which file vectors lie; the vectors themselves are among the weights.
_FILES = ("path", "vectors")


@dataclass(frozen=True)
class Users:
    """What is remembered of users; of everyone as much.

    Attributes:
        ids: raw ids, unique.
        fingerprint: of the weights, the recipe and the catalog that the memories belong to.
        seen: what each user has, as catalog rows, oldest first, and when it happened where the data have times.
        memory: what the backbone remembers, as tensors whose first dimension counts users.
        newest: the state after the newest remembered event of each.
        counts: how many events are remembered.
        times: when the newest of them happened; None where the data have no times.
    """

    ids: list[str]
    fingerprint: str
    seen: Sequences
    memory: dict[str, Tensor]
    newest: Float[Tensor, "U D"]
    counts: Int[Tensor, "U"]
    times: Int[Tensor, "U"] | None

    def remembered(self, rows: Sequence[int], recommender: SequentialRecommender) -> Remembered:
        """What the recommender remembers of these users, given by their places in ``ids``."""
        at = torch.tensor(rows, dtype=torch.long)
        memory = recommender.restored({name: tensor[at] for name, tensor in self.memory.items()})
        return Remembered(
            memory, Past(self.counts[at], None if self.times is None else self.times[at]), self.newest[at]
        )

    def seen_by(self, row: int) -> list[int]:
        """Catalog rows that this user has."""
        return self.seen.items[self._events(row)].tolist()

    def times_of(self, row: int) -> list[int] | None:
        """When that happened; None where nobody knows, as in bundles of earlier versions."""
        return None if self.seen.times is None else self.seen.times[self._events(row)].tolist()

    def _events(self, row: int) -> slice:
        return slice(int(self.seen.offsets[row]), int(self.seen.offsets[row + 1]))

    def save(self, path: Path) -> None:
        """Write all as safetensors; raw ids are UTF-8, laid end to end."""
        encoded = [raw.encode() for raw in self.ids]
        tensors = {
            "ids": torch.from_numpy(np.frombuffer(b"".join(encoded), np.uint8).copy()),
            "id_lengths": torch.tensor([len(raw) for raw in encoded], dtype=torch.long),
            "seen_items": self.seen.items,
            "seen_offsets": self.seen.offsets,
            **({} if self.seen.times is None else {"seen_times": self.seen.times}),
            "newest": self.newest,
            "counts": self.counts,
            **({} if self.times is None else {"times": self.times}),
            **{_MEMORY + name: tensor for name, tensor in self.memory.items()},
        }
        save_file({name: alone(tensor) for name, tensor in tensors.items()}, path, {"fingerprint": self.fingerprint})

    @classmethod
    def load(cls, path: Path, expected: str) -> Users:
        """Read what ``save`` wrote, and see that it belongs to the model with this fingerprint.

        Raises:
            InputError: it belongs to another.
        """
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
            found = file.metadata()["fingerprint"]
        if found != expected:
            raise InputError(
                f"{path} holds what a model with other weights, another recipe or another catalog remembers of its "
                "users; run `seqrec export --users true` again."
            )
        text, ends = tensors["ids"].numpy().tobytes(), tensors["id_lengths"].cumsum(0).tolist()
        ids = [text[start:end].decode() for start, end in zip([0, *ends], ends, strict=False)]
        memory = {name.removeprefix(_MEMORY): each for name, each in tensors.items() if name.startswith(_MEMORY)}
        seen = Sequences(tensors["seen_items"], tensors["seen_offsets"], tensors.get("seen_times"))
        return cls(ids, found, seen, memory, tensors["newest"], tensors["counts"], tensors.get("times"))


def alone(tensor: Tensor) -> Tensor:
    """The numbers of a tensor on the CPU, sharing memory with no other, as a file wants them."""
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def fingerprint(recommender: Recommender, recipe: Mapping[str, Any]) -> str:
    """SHA-256 of the catalog's fingerprint, of every weight and of the recipe: what a memory is worth anything to.

    Weights alone do not say what is computed: heads, lengths and bases of rotations leave no trace in them. Where files
    lie is left out of the recipe. Earlier versions left out all of it. A bundle that they wrote goes on with the
    fingerprint in its manifest, and with the memories that bear it; the service makes its own memories again, once.

    Args:
        recommender: with the weights and the catalog.
        recipe: ``class_path`` and ``init_args`` that build it.
    """
    digest = hashlib.sha256(recommender.catalog.fingerprint.encode())
    digest.update(json.dumps(_without_files(recipe), sort_keys=True, default=str).encode())
    for name, weight in sorted(recommender.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _without_files(part: Any) -> Any:
    """A part of a recipe without the arguments that say where files lie."""
    if isinstance(part, Mapping):
        kept = {name: value for name, value in part.items() if name not in _FILES or not isinstance(value, str | Path)}
        return {name: _without_files(value) for name, value in kept.items()}
    return [_without_files(each) for each in part] if isinstance(part, list | tuple) else part


@torch.no_grad()
def remember_users(
    recommender: SequentialRecommender,
    users: Iterable[tuple[list[str], Sequences, Sequences]],
    recipe: Mapping[str, Any],
) -> Users:
    """What the recommender remembers of these users.

    Args:
        recommender: in evaluation mode.
        users: in batches, their raw ids, the window of each that is read, and all that each has, oldest first.
        recipe: ``class_path`` and ``init_args`` that build the recommender, as ``write_bundle`` takes them.

    Raises:
        TypeError: the backbone remembers nothing that can be kept, or more of longer histories.
    """
    ids: list[str] = []
    parts: list[dict[str, Tensor]] = []
    seen, newest, pasts = [], [], []
    for names, window, has in users:
        remembered = recommender.remember(window)
        ids += names
        parts.append(recommender.stored(remembered.memory))
        seen.append(Sequences(has.items, has.offsets, has.times))
        newest.append(remembered.newest)
        pasts.append(remembered.past)
    if not parts:
        raise InputError("There is no user to remember; the data need at least one with a history.")
    times = [past.times for past in pasts if past.times is not None]
    return Users(
        ids,
        fingerprint(recommender, recipe),
        Sequences.concat(seen),
        {name: torch.cat([part[name] for part in parts]) for name in parts[0]},
        torch.cat(newest),
        torch.cat([past.counts for past in pasts]),
        torch.cat(times) if times else None,
    )
