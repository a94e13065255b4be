"""What a recommender remembers of many users, in one file of a bundle: pasts that need not be read again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seqrec.data.errors import InputError
from seqrec.recommenders.base import Recommender
from seqrec.recommenders.sequential import Remembered, SequentialRecommender
from seqrec.sequences import Past, Sequences


@dataclass(frozen=True)
class Users:
    """What is remembered of users; of everyone as much.

    Attributes:
        ids: raw ids, unique.
        fingerprint: of the weights and the catalog that the memories belong to.
        seen: what each user has, as catalog rows.
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
        return self.seen.items[self.seen.offsets[row] : self.seen.offsets[row + 1]].tolist()

    def save(self, path: Path) -> None:
        torch.save({**vars(self), "seen": (self.seen.items, self.seen.offsets)}, path)

    @classmethod
    def load(cls, path: Path, recommender: Recommender) -> Users:
        """Read what ``save`` wrote, and see that it belongs to these weights and this catalog.

        Raises:
            InputError: it belongs to others.
        """
        fields = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        if fields["fingerprint"] != fingerprint(recommender):
            raise InputError(
                f"{path} holds what a model with other weights or another catalog remembers of its users; run "
                "`seqrec export --users true` again."
            )
        return cls(**{**fields, "seen": Sequences(*fields["seen"])})


def fingerprint(recommender: Recommender) -> str:
    """SHA-256 of the catalog's fingerprint and of every weight: a memory is worth nothing to other weights."""
    digest = hashlib.sha256(recommender.catalog.fingerprint.encode())
    for name, weight in sorted(recommender.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def remember_users(
    recommender: SequentialRecommender, users: Iterable[tuple[list[str], Sequences, Sequences]]
) -> Users:
    """What the recommender remembers of these users.

    Args:
        recommender: in evaluation mode.
        users: in batches, their raw ids, the window of each that is read, and all that each has.

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
        seen.append(Sequences(has.items, has.offsets))
        newest.append(remembered.newest)
        pasts.append(remembered.past)
    if not parts:
        raise InputError("There is no user to remember; the data need at least one with a history.")
    times = [past.times for past in pasts if past.times is not None]
    return Users(
        ids,
        fingerprint(recommender),
        Sequences.concat(seen),
        {name: torch.cat([part[name] for part in parts]) for name in parts[0]},
        torch.cat(newest),
        torch.cat([past.counts for past in pasts]),
        torch.cat(times) if times else None,
    )
