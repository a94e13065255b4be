"""LoRec: users whom a small calibrator finds suspicious, again and again, lose influence on training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch import distributed as dist
from torch.nn import functional as F

from seqrec.audience import Audience, as_batch
from seqrec.batch import Batch
from seqrec.objectives import knowledge, standing
from seqrec.objectives.calibrator import Calibrator, seen_by
from seqrec.objectives.users import UserReweighter
from seqrec.recommenders.base import Encoded
from seqrec.semantics.questions import FraudQuestion
from seqrec.sequences import Sequences

Sight = Literal["states", "fit"]


class LoRec(UserReweighter):
    """Weights per user that fall while a calibrator, trained beside the recommender, keeps flagging the user.

    After every epoch the calibrator passes over all users of training, unlabelled, and over the known fraudsters, reads
    what the recommender makes of them, and learns to tell them apart, to take a side, and to agree with the texts of
    what the user has. Every few epochs whoever scores above the mean is flagged and loses one point of standing, which
    the others share; the weight is a function of the standing, and counts from an epoch on. No gradient of the
    calibrator reaches the recommender, and no weight reaches the calibrator.

    Source: Zhang et al., "LoRec: Combating Poisons with Large Language Model for Robust Sequential Recommendation",
    SIGIR 2024 (arXiv 2401.17723), after its released code. Differs from it: what is known of a user is the mean
    text vector of the user's items, which costs nothing per user, unless ``asks`` asks about users as the paper
    does; the task divides by the sum of the weights, not by the number of predictions; weights count once
    ``active_from`` epochs are done, one epoch later than there, and an update that was put off shifts the later
    ones; the calibrator is narrower (32 and 64 instead of twice the recommender's width and 128), which costs less,
    and see ``Calibrator``. A training slice of a user is read whole, its newest event included. ``sees="fit"`` is
    ours: a recommender with a free vector per item learns the fakes it trains on by heart, and not the known
    fraudsters, so states tell these from all users, fakes included, while texts say the same of both. In the paper
    item vectors are functions of texts, which leaves less to learn by heart.

    Args:
        vectors: Parquet file of text vectors of the items, see ``read_vectors``; None leaves their branch out.
        sees: what the calibrator looks at: ``"states"``, as in the paper, the key of each event's item beside the state
            after the event; or ``"fit"``, how the text of each event agrees with those of the others in its history.
            The latter needs ``vectors``.
        active_from: epochs after which the weights count, at least 0.
        period: epochs between two updates of the standing until then, at least 1.
        late_period: epochs between two updates after that, at least 1.
        passes: how often the calibrator learns from everyone after each epoch, at least 1.
        batch_users: users of one of its steps, at least 2.
        entropy_weight: how much it is to take a side on users (λ1), at least 0.
        knowledge_weight: how much it is to agree with the texts (λ2), at least 0.
        learning_rate: of its AdamW, above 0.
        weight_decay: of its AdamW, at least 0.
        dim: width of its vectors, a multiple of twice the heads.
        n_layers: its blocks, at least 1.
        n_heads: its attention heads, at least 1.
        hidden_dim: width inside its networks, at least 1.
        dropout: share that it drops in training, in [0, 1).
        max_length: the newest events of a history that it, and the recommender for it, read; at least 1.
        seed: where its first weights, its batches and its dropout come from, at least 0.
        asks: makes vectors of users and of known fraudsters, which the calibrator is to agree with instead of the
            means of their items; None asks nobody.
    """

    def __init__(
        self,
        vectors: str | None = None,
        sees: Sight = "states",
        active_from: int = 30,
        period: int = 5,
        late_period: int = 10,
        passes: int = 2,
        batch_users: int = 512,
        entropy_weight: float = 0.5,
        knowledge_weight: float = 1.0,
        learning_rate: float = 1e-2,
        weight_decay: float = 5e-4,
        dim: int = 32,
        n_layers: int = 2,
        n_heads: int = 2,
        hidden_dim: int = 64,
        dropout: float = 0.1,
        max_length: int = 50,
        seed: int = 0,
        asks: FraudQuestion | None = None,
    ) -> None:
        super().__init__()
        least = {
            "active_from": (active_from, 0),
            "period": (period, 1),
            "late_period": (late_period, 1),
            "passes": (passes, 1),
            "batch_users": (batch_users, 2),
            "max_length": (max_length, 1),
            "n_layers": (n_layers, 1),
            "n_heads": (n_heads, 1),
            "hidden_dim": (hidden_dim, 1),
            "seed": (seed, 0),
            "entropy_weight": (entropy_weight, 0),
            "knowledge_weight": (knowledge_weight, 0),
            "weight_decay": (weight_decay, 0),
        }
        for name, (value, lowest) in least.items():
            if value < lowest:
                raise ValueError(f"{name} of LoRec is {value}; it must be at least {lowest}.")
        if learning_rate <= 0 or not 0 <= dropout < 1 or dim < 1 or dim % (2 * n_heads):
            raise ValueError(
                f"learning_rate of LoRec is {learning_rate}, dropout {dropout}, dim {dim} and n_heads {n_heads}; give "
                "a rate above 0, a dropout in [0, 1) and a dim that is a multiple of twice the heads."
            )
        if sees not in get_args(Sight) or (sees == "fit" and vectors is None):
            raise ValueError(
                f"sees of LoRec is '{sees}' and vectors is {vectors}; set sees to 'states', or to 'fit' and "
                "vectors to a file of text vectors."
            )
        self.sees: Sight = sees
        self.vectors, self.asks, self.max_length, self.seed = vectors, asks, max_length, seed
        self.active_from, self.period, self.late_period = active_from, period, late_period
        self.passes, self.batch_users = passes, batch_users
        self.entropy_weight, self.knowledge_weight = entropy_weight, knowledge_weight
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.shape = (dim, n_layers, n_heads, hidden_dim, dropout)
        self.due = period
        self.standing: Float[Tensor, "R"] | None = None
        self.audience: Audience | None = None
        self._everyone = Sequences.pack([])
        self.trail.active_from = active_from
        self._texts: tuple[Tensor, Tensor] | None = None
        self._fit: Float[Tensor, "T 1"] | None = None
        # In a list, so that the run's own optimiser does not find them.
        self._learner: list[tuple[Calibrator, torch.optim.Optimizer]] = []
        self._stored: dict[str, Any] | None = None

    def begin(self, audience: Callable[[], Audience]) -> None:
        self.audience = audience().newest(self.max_length)
        if not len(self.audience.fraudsters):
            raise ValueError(
                "LoRec learns from known fraudsters, and the data made none; set data.fraudsters to "
                "seqrec.data.poisoning.known.KnownFraudsters."
            )
        users, known = self.audience.histories, self.audience.fraudsters
        self._everyone = Sequences.concat([users, known])
        if self.vectors is not None:
            texts = knowledge.text_vectors(self.vectors, self.audience.catalog)
            self._texts = knowledge.of_users(texts, users), knowledge.of_users(texts, known)
            if self.sees == "fit":
                self._fit = knowledge.fit(texts, self._everyone)
        if self.asks is not None:
            about = self.asks.about(self._everyone, self.audience.catalog)
            self._texts = about[: len(users)], about[len(users) :]
        self.trail.known = known
        if self.standing is None:
            self.standing = torch.full((len(self.audience.histories),), standing.FIRST, dtype=torch.double)
        elif self.standing.numel() != len(self.audience.histories):
            raise ValueError("The checkpoint weighs other users than training reads now; train again.")

    def end_epoch(self, epochs: int, read: Callable[[Batch], Encoded]) -> None:
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        seen = self.look(read)
        with torch.autocast(seen.device.type, enabled=False):  # so small a network gains nothing from half precision
            with torch.random.fork_rng(devices=devices), torch.enable_grad():
                torch.manual_seed((self.seed + 1) * 1_000_003 + epochs)
                for _ in range(self.passes):
                    for users, known in self._mixed():
                        self.learn(users, known, seen)
            if epochs >= self.due:
                self.update(epochs, *_of_the_first_device(self.scores(seen)))
        if epochs >= self.active_from:
            self.weights = self._of_all(standing.weights_of(self._everyones_standing), 1.0)

    @torch.no_grad()
    def look(self, read: Callable[[Batch], Encoded]) -> Float[Tensor, "T W"]:
        """What the calibrator sees of everyone, users first: states are read once for an epoch, in half precision."""
        if self._fit is not None:
            return self._fit
        batches = torch.arange(len(self._everyone)).split(self.batch_users)
        return torch.cat([seen_by(read(as_batch(self._everyone.chosen(rows)))).bfloat16() for rows in batches])

    def learn(self, users: Int[Tensor, "users"], known: Int[Tensor, "known"], seen: Float[Tensor, "T W"]) -> None:
        """One step of the calibrator on some users and some known fraudsters."""
        calibrator, optimizer = self._calibrator(seen)
        calibrator.train()
        optimizer.zero_grad()
        self.loss(users, known, seen).backward()
        optimizer.step()

    def loss(
        self, users: Int[Tensor, "users"], known: Int[Tensor, "known"], seen: Float[Tensor, "T W"]
    ) -> Float[Tensor, ""]:
        """What the calibrator lowers: ``CE + λ1 H(user) - λ2 cos``, each a mean over these users and fraudsters; the
        entropy H of a score is that of users alone."""
        calibrator = self._calibrator(seen)[0]
        fake = torch.cat([torch.zeros(users.numel()), torch.ones(known.numel())]).to(seen.device)
        vectors = calibrator(*self._seen_of(torch.cat([users, known + len(self._met.histories)]), seen))
        logits = calibrator.logits(vectors)
        entropy = F.softplus(logits) - logits * logits.sigmoid()
        side = self.entropy_weight * (1 - fake) * entropy
        loss = (F.binary_cross_entropy_with_logits(logits, fake, reduction="none") + side).mean()
        if self._texts is not None:
            of_users, of_known = self._texts
            texts = torch.cat([of_users[users], of_known[known]]).to(seen.device)
            loss = loss - self.knowledge_weight * calibrator.agreement(vectors, texts)
        return loss

    @torch.no_grad()
    def scores(self, seen: Float[Tensor, "T W"]) -> tuple[Float[Tensor, "R"], Int[Tensor, "R"], Float[Tensor, "R"]]:
        """How fake every user seems, in (0, 1), which known fraudster each is most like, and how much."""
        calibrator = self._calibrator(seen)[0].eval()
        n_users = len(self._met.histories)
        known = torch.arange(n_users, len(self._everyone))
        directions = F.normalize(calibrator(*self._seen_of(known, seen)).float(), dim=1)
        found = []
        for rows in torch.arange(n_users).split(self.batch_users):
            vectors = calibrator(*self._seen_of(rows, seen))
            likeness = (F.normalize(vectors.float(), dim=1) @ directions.T).max(1)
            found.append((calibrator.logits(vectors).sigmoid(), likeness.indices, likeness.values))
        scores, nearest, similarity = (torch.cat(parts).cpu() for parts in zip(*found, strict=True))
        return scores, nearest, similarity

    def update(
        self, epochs: int, scores: Float[Tensor, "R"], nearest: Int[Tensor, "R"], similarity: Float[Tensor, "R"]
    ) -> None:
        """Move the standing by these scores, or try again after the next epoch if too many are flagged."""
        flagged = standing.judged(scores)
        now = standing.moved(self._everyones_standing, flagged)
        self.due = epochs + 1
        if now is None:
            return
        self.standing, self.due = now, epochs + (self.period if epochs < self.active_from else self.late_period)
        weights, suspicion = self._of_all(standing.weights_of(now), 1.0), self._of_all(-now.float(), -standing.FIRST)
        self.trail.decided(epochs, weights, self._of_all(flagged, False), suspicion)
        self.trail.nearest, self.trail.similarity = self._of_all(nearest, -1), self._of_all(similarity, 0.0)

    def own_state(self) -> dict[str, Any]:
        if self._learner:
            calibrator, optimizer = self._learner[0]
            learnt = {"width": calibrator.width, "weights": calibrator.state_dict(), "moments": optimizer.state_dict()}
        else:
            learnt = self._stored
        return {"due": self.due, "standing": self.standing, "learner": learnt}

    def take_own_state(self, state: dict[str, Any]) -> None:
        self.due, self.standing, self._stored = state["due"], state["standing"], state["learner"]
        self._learner.clear()

    @property
    def _met(self) -> Audience:
        assert self.audience is not None, "the task lets a reweighter begin before an epoch ends"
        return self.audience

    @property
    def _everyones_standing(self) -> Float[Tensor, "R"]:
        assert self.standing is not None, "the task lets a reweighter begin before an epoch ends"
        return self.standing

    def _of_all(self, values: Tensor, other: float | int | bool) -> Tensor:
        """What users of training have, by row of the log; who is not among them has ``other``."""
        everyone = torch.full((self._met.n_users,), other, dtype=values.dtype)
        return everyone.index_copy(0, self._met.users, values)

    def _mixed(self) -> Iterator[tuple[Int[Tensor, "users"], Int[Tensor, "known"]]]:
        """Users and known fraudsters in as many batches each, so that every batch mixes both."""
        n_users, n_known = len(self._met.histories), len(self._met.fraudsters)
        n_batches = max(1, round(n_users / self.batch_users))
        users, known = torch.randperm(n_users), torch.randperm(n_known)
        yield from zip(users.tensor_split(n_batches), known.tensor_split(n_batches), strict=True)

    def _seen_of(
        self, rows: Int[Tensor, "B"], seen: Float[Tensor, "T W"]
    ) -> tuple[Float[Tensor, "events W"], Sequences]:
        """What is seen of these histories, and how they are cut."""
        places = Sequences(torch.arange(len(seen)), self._everyone.offsets).chosen(rows).to(seen.device)
        return seen[places.items].float(), places

    def _calibrator(self, seen: Float[Tensor, "T W"]) -> tuple[Calibrator, torch.optim.Optimizer]:
        """The calibrator and its optimiser; made when the width of what it sees is known for the first time."""
        if not self._learner:
            texts = None if self._texts is None else self._texts[0].shape[1]
            devices = [seen.device] if seen.is_cuda else []
            with torch.random.fork_rng(devices=devices):  # a resumed run makes one, too, and draws on as if it had not
                torch.manual_seed(self.seed)
                calibrator = Calibrator(seen.shape[1], texts, *self.shape).to(seen.device)
            optimizer = torch.optim.AdamW(
                calibrator.parameters(), self.learning_rate, weight_decay=self.weight_decay, fused=True
            )
            if self._stored is not None:
                calibrator.load_state_dict(self._stored["weights"])
                optimizer.load_state_dict(self._stored["moments"])
            self._learner.append((calibrator, optimizer))
        return self._learner[0]


def _of_the_first_device(scores: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Every device trains a calibrator of its own; rounding may tell two of them different things of a user."""
    if not (dist.is_available() and dist.is_initialized()):
        return scores
    told = list(scores)
    dist.broadcast_object_list(told, src=0)
    return tuple(told)
