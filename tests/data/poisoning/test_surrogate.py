"""The surrogate's closed form against the loss written out, and the attacks' effect on it."""

import numpy as np
import pytest
import torch

from seqrec.data.poisoning.base import Mission
from seqrec.data.poisoning.dp import DP
from seqrec.data.poisoning.heuristic import Random
from seqrec.data.poisoning.loki import LokiLike, World
from seqrec.data.poisoning.poison import _mission
from seqrec.data.poisoning.rev import Rev, _remade
from seqrec.data.poisoning.surrogate import Factors, Surrogate, hit_rate
from seqrec.data.poisoning.targets import Bucket
from seqrec.data.prepare import prepare_log
from seqrec.data.simulated import SimulatedShop


def small() -> Surrogate:
    pairs = torch.tensor([[0, 1], [0, 3], [1, 0], [2, 3], [2, 4]])
    return Surrogate(pairs[:, 0], pairs[:, 1], n_users=3, n_items=5, decay=0.01)


def test_the_gradients_are_those_of_the_loss_written_out_over_all_pairs():
    surrogate = small()
    state = surrogate.start(n_fakes=2, dim=3, seed=0)
    fakes = torch.tensor([[1.0, 0, 0, 1, 0], [0, 1.0, 0, 0, 0]])
    users, fake_users, items = (part.clone().requires_grad_() for part in state.factors)
    clicks = torch.zeros(3, 5)
    clicks[surrogate.users, surrogate.items] = 1.0
    loss = sum(
        (torch.where(data > 0, 20.0, 1.0) * (data - rows @ items.T).square()).sum() / 2
        for data, rows in ((clicks, users), (fakes, fake_users))
    ) + 0.005 * sum(part.square().sum() for part in (users, fake_users, items))
    expected = torch.autograd.grad(loss, (users, fake_users, items))
    for found, wanted in zip(surrogate.gradients(state.factors, fakes), expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_the_way_back_through_training_is_the_slope_that_small_changes_show():
    surrogate = small()
    double = [part.double() for part in surrogate.start(1, 3, 0).factors]
    start = surrogate.start(1, 3, 0)
    state = start.__class__(
        *(type(start.factors)(*parts) for parts in (double, [0 * p for p in double], [0 * p for p in double]))
    )
    weights = torch.linspace(-1, 1, 15, dtype=torch.double).view(3, 5)

    def outcome(clicks):
        now = state
        for _ in range(4):
            now = _remade(surrogate, now, clicks)
        return (weights * (now.factors.users @ now.factors.items.T)).sum()

    clicks = torch.full((1, 5), 0.5, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(outcome, clicks, eps=1e-6, atol=1e-5)


def test_the_hit_rate_by_hand():
    scores = torch.tensor([[0.9, 0.5, 0.4, 0.1], [0.1, 0.2, 0.3, 0.4]])
    had = (torch.tensor([0, 1]), torch.tensor([0, 3]))
    # Target 1 is first of what user 0 lacks and second of user 1; target 3 is last of user 0, and user 1 has it.
    assert hit_rate(scores.clone(), torch.tensor([1, 3]), had, k=1) == pytest.approx((0.5 + 0.0) / 2)
    assert hit_rate(scores.clone(), torch.tensor([1, 3]), had, k=3) == pytest.approx((1.0 + 1.0) / 2)


def test_the_push_of_dp_is_the_slope_of_its_loss_written_out_for_each_user_and_target():
    surrogate, margin, strength, targets = small(), 1.2, 0.2, [1, 3]
    factors = Factors(*(4 * part for part in surrogate.start(n_fakes=2, dim=3, seed=4).factors))
    moved = Factors(*(part.clone().requires_grad_() for part in factors))
    has, gaps = [{1, 3}, {0}, {3, 4}], []

    def probable(score):
        return 1 / (1 + (-10 * (score - 0.5)).exp())

    for user, items in enumerate(has):
        unseen = sorted((moved.users[user] @ moved.items[item] for item in range(5) if item not in items), reverse=True)
        for target in targets:
            if target not in items:
                own = probable(moved.users[user] @ moved.items[target])
                gaps.append((probable(unseen[1]).log() - own.log()).clamp(min=-margin))
    quiet = sum(probable(moved.fakes[1] @ moved.items[item]) ** 2 for item in range(5))
    assert {gap.item() > -margin for gap in gaps} == {False, True}
    loss = 100 * strength * 3 * torch.stack(gaps).mean() + strength * quiet
    expected = torch.autograd.grad(loss, moved)
    attack = DP(k=2, margin=margin, strength=strength)
    had = surrogate.users, surrogate.items
    found = attack._push(surrogate, factors, torch.tensor(targets), torch.arange(3), had)
    torch.testing.assert_close(tuple(found), expected, rtol=1e-3, atol=1e-4)


def test_what_a_fake_took_is_worth_less_to_the_next_until_all_has_been_taken(monkeypatch):
    mission = Mission(np.arange(40) % 8, np.arange(0, 41, 4), np.full(8, 5), np.array([7]), np.full(4, 4))
    attack = DP(slots=1, first_steps=1, steps=1, fading=0.5)
    liking = np.array([1.0, 0.9, 0.8, 0.7, 0.6, 0.55, 0.52, 2.0])  # of the target, which is no filler, most
    monkeypatch.setattr(attack, "_poisoned", lambda *_: liking)
    profiles = attack.forge(mission, np.random.default_rng(0))
    fillers = [sorted(set(profile.tolist()) - {7}) for profile in profiles]
    assert fillers == [[0, 1, 2], [3, 4, 5], [0, 1, 6], [0, 1, 2]]


def test_the_reward_of_an_agent_by_hand():
    """The fake's vector is (3 / (1 + 2 + 1), 0), so it wants 3 (1 - 0.75) = 0.75 more of item 0 and 3 more of item 2,
    and judges like that 0.75 times; a third of it is what all three items rise on average."""
    items = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    pull, clusters, mean = torch.tensor([1.0, 0.0]), [np.array([1, 2])], 0.75 * (0.75 + 3) / 3
    for profile, targets, pushed in (
        ([2, 0], [0], 0.75 * 0.75),
        ([2, 0], [0, 1], 0.75 * 0.75 / 2),
        ([0, 2], [0], 0.0),  # nothing is learned of what stands first
        ([0, 2], [0, 2], 0.0),  # nor that a target comes after a target
    ):
        world = World(items, pull, clusters, np.array(targets), positive_weight=3.0, unit=2.0)
        assert world.reward(profile) == pytest.approx((pushed - mean) / 2)


def test_an_attacker_who_may_know_little_knows_whole_users():
    mission = Mission(np.arange(40) % 10, np.arange(0, 41, 4), np.full(10, 4), np.array([0]), np.array([10]))
    surrogate = Surrogate.of(mission, max_events=13, random=np.random.default_rng(0))
    assert surrogate.n_users == 3
    assert torch.bincount(surrogate.users).tolist() == [4, 4, 4]


@pytest.fixture(scope="module")
def mission(tmp_path_factory) -> Mission:
    log = prepare_log(SimulatedShop(users=300, items=150, mean_events=15.0), tmp_path_factory.mktemp("attack") / "shop")
    return _mission(log, 0.05, Bucket.tail, 5, np.random.default_rng(0))


def exposure(mission: Mission, profiles: list[np.ndarray]) -> float:
    """Share of the catalog that genuine users like less than a target, after training with these fakes, on average."""
    surrogate = Surrogate.of(mission, 10**9, np.random.default_rng(7))
    clicks = torch.zeros(len(profiles), mission.n_items)
    for row, profile in enumerate(profiles):
        clicks[row, torch.from_numpy(profile)] = 1.0
    shares = []
    for seed in (3, 4):
        factors = surrogate.trained(surrogate.start(len(profiles), 16, seed), clicks, 80).factors
        scores = factors.users @ factors.items.T
        own = scores[:, torch.from_numpy(mission.targets)]
        shares.append(float((scores[:, None] < own[:, :, None]).double().mean()))
    return float(np.mean(shares))


@pytest.mark.parametrize(
    "attack",
    [
        DP(dim=16, first_steps=60),
        Rev(dim=16, rounds=10),
        LokiLike(dim=16, clusters=10),
    ],
    ids=lambda attack: type(attack).__name__,
)
def test_an_attack_that_learns_pushes_its_targets_further_than_no_attack(mission, attack):
    attacked = exposure(mission, attack.forge(mission, np.random.default_rng(0)))
    assert attacked > exposure(mission, []) + 0.01


def test_the_rounds_of_rev_push_further_than_targets_among_random_fillers_do(mission):
    by_chance = exposure(mission, Random().forge(mission, np.random.default_rng(0)))
    assert exposure(mission, Rev(dim=16, rounds=10).forge(mission, np.random.default_rng(0))) > by_chance + 0.02
