"""Users whom their texts alone give away are dropped from training."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from seqrec.audience import Audience
from seqrec.objectives import knowledge
from seqrec.objectives.users import UserReweighter


class TextDetector(UserReweighter):
    """A small network that tells users from known fraudsters by the mean text vector of their items; once, beforehand.

    Who seems more likely fake than not has weight 0. The recommender's own view plays no part, so beside LoRec this
    shows what that is worth.

    Source: the baseline LLM4Dec in the released code of Zhang et al., LoRec, SIGIR 2024. Differs from it: mean text
    vectors stand in for what an LLM says of a user, as in ``LoRec``; the network learns before training begins, always
    for as many passes, by the plain binary loss, without the dropout, the weight of fakes and the entropy term there.

    Args:
        vectors: Parquet file of text vectors of the items, see ``read_vectors``.
        passes: how often it learns from everyone, at least 1.
        batch_users: users of one of its steps, at least 2.
        hidden_dim: width of its first layer, at least 1.
        threshold: who seems fake with this probability or a higher one is dropped; above 0, at most 1.
        learning_rate: of its AdamW, above 0.
        weight_decay: of its AdamW, at least 0.
        seed: where its first weights and its batches come from, at least 0.
    """

    def __init__(
        self,
        vectors: str,
        passes: int = 20,
        batch_users: int = 512,
        hidden_dim: int = 512,
        threshold: float = 0.5,
        learning_rate: float = 1e-2,
        weight_decay: float = 5e-4,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if passes < 1 or batch_users < 2 or seed < 0:
            raise ValueError(
                f"passes is {passes}, batch_users {batch_users} and seed {seed}; give at least 1, 2 and 0."
            )
        if hidden_dim < 1 or learning_rate <= 0 or weight_decay < 0 or not 0 < threshold <= 1:
            raise ValueError(
                f"hidden_dim is {hidden_dim}, learning_rate {learning_rate}, weight_decay {weight_decay} and threshold "
                f"{threshold}; give at least 1, above 0, at least 0 and a share above 0, at most 1."
            )
        self.vectors, self.passes, self.batch_users, self.hidden_dim = vectors, passes, batch_users, hidden_dim
        self.threshold, self.learning_rate, self.weight_decay, self.seed = threshold, learning_rate, weight_decay, seed

    def begin(self, audience: Callable[[], Audience]) -> None:
        if self.weights is not None:  # a resumed run has decided already
            return
        everyone = audience()
        if not len(everyone.fraudsters):
            raise ValueError(
                "TextDetector learns from known fraudsters, and the data made none; set data.fraudsters to "
                "seqrec.data.poisoning.known.KnownFraudsters."
            )
        texts = knowledge.text_vectors(self.vectors, everyone.catalog)
        users, known = (knowledge.of_users(texts, part) for part in (everyone.histories, everyone.fraudsters))
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(self.seed)
            probabilities = self._learnt(users, known)
        flagged = probabilities >= self.threshold
        likeness = (F.normalize(users, dim=1) @ F.normalize(known, dim=1).T).max(1)
        all_users = torch.zeros(everyone.n_users)
        self.weights = 1 - all_users.index_copy(0, everyone.users, flagged.float())
        self.trail.known = everyone.fraudsters
        self.trail.nearest = torch.full((everyone.n_users,), -1).index_copy(0, everyone.users, likeness.indices)
        self.trail.similarity = all_users.index_copy(0, everyone.users, likeness.values)
        suspicion = all_users.index_copy(0, everyone.users, probabilities)
        self.trail.decided(0, self.weights, self.weights == 0, suspicion)

    def _learnt(self, users: Float[Tensor, "R S"], known: Float[Tensor, "known S"]) -> Float[Tensor, "R"]:
        """How likely each user is fake, after training."""
        network = nn.Sequential(
            nn.Linear(users.shape[1], self.hidden_dim),
            nn.GELU(),
            nn.Linear(self.hidden_dim, 128),
            nn.BatchNorm1d(128),
            nn.GELU(),
            nn.Linear(128, 1),
            nn.BatchNorm1d(1),
        )
        optimizer = torch.optim.AdamW(network.parameters(), self.learning_rate, weight_decay=self.weight_decay)
        n_batches = max(1, round(len(users) / self.batch_users))
        for _ in range(self.passes):
            batches = (torch.randperm(len(part)).tensor_split(n_batches) for part in (users, known))
            for some, frauds in zip(*batches, strict=True):
                fake = torch.cat([torch.zeros(some.numel()), torch.ones(frauds.numel())])
                logits = network(torch.cat([users[some], known[frauds]])).squeeze(1)
                loss = F.binary_cross_entropy_with_logits(logits, fake)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        network.eval()
        with torch.no_grad():
            return network(users).squeeze(1).sigmoid()
