"""What every attack must obey. A new one adds one line to ``CASES``."""

import numpy as np
import pytest

from seqrec.data.poisoning.base import Mission, forged, sample_lengths
from seqrec.data.poisoning.dp import DP
from seqrec.data.poisoning.heuristic import Bandwagon, ProfileCopy, Random
from seqrec.data.poisoning.loki import LokiLike
from seqrec.data.poisoning.rev import Rev

SMALL = {"dim": 4, "steps": 3}
CASES = [
    pytest.param(Random, {}, id="Random"),
    pytest.param(Bandwagon, {}, id="Bandwagon"),
    pytest.param(ProfileCopy, {}, id="ProfileCopy"),
    pytest.param(DP, {**SMALL, "first_steps": 5, "rounds": 2}, id="DP"),
    pytest.param(Rev, {**SMALL, "rounds": 2, "unrolled": 2}, id="Rev"),
    pytest.param(LokiLike, {**SMALL, "clusters": 4, "episodes": 5}, id="LokiLike"),
]
each_attack = pytest.mark.parametrize(("build", "arguments"), CASES)


def mission_of(n_items=60, n_users=40, n_fakes=8, targets=(3, 11, 20, 41, 59), longest=30) -> Mission:
    random = np.random.default_rng(1)
    lengths = random.integers(1, longest, n_users)
    items = random.zipf(1.5, lengths.sum()) % n_items
    offsets = np.append(0, np.cumsum(lengths))
    most = n_items - len(targets) + 1
    return Mission(
        items,
        offsets,
        np.bincount(items, minlength=n_items),
        np.array(targets),
        sample_lengths(lengths, n_fakes, most, random),
    )


def as_lists(attack, mission, seed):
    return [profile.tolist() for profile in forged(attack, mission, np.random.default_rng(seed))]


@each_attack
def test_fakes_are_as_many_and_as_long_as_wanted_repeat_nothing_and_push_where_training_looks(build, arguments):
    mission = mission_of()
    profiles = build(**arguments).forge(mission, np.random.default_rng(0))
    assert [len(profile) for profile in profiles] == mission.lengths.tolist()
    assert 10 <= mission.lengths.min() <= mission.lengths.max() <= 50
    for profile in profiles:
        assert len(set(profile.tolist())) == len(profile)
        assert 0 <= profile.min() <= profile.max() < 60
        assert np.isin(profile[:-2], mission.targets).any()
        assert not np.isin(profile[-2:], mission.targets).any()


@each_attack
def test_a_seed_gives_the_same_fakes_again_and_another_seed_gives_others(build, arguments):
    mission, attack = mission_of(), build(**arguments)
    assert as_lists(attack, mission, 5) == as_lists(attack, mission, 5) == as_lists(build(**arguments), mission, 5)
    assert as_lists(attack, mission, 5) != as_lists(attack, mission, 6)


@each_attack
def test_no_two_fakes_are_alike(build, arguments):
    profiles = as_lists(build(**arguments), mission_of(), 0)
    assert len({tuple(profile) for profile in profiles}) == len(profiles)


@each_attack
@pytest.mark.parametrize(
    "wrong", ["one item is all there is to push", "a catalog that leaves no choice", "two items to push with"]
)
def test_the_contract_holds_at_its_edges(build, arguments, wrong):
    edge = {
        "one item is all there is to push": mission_of(targets=(7,)),
        "a catalog that leaves no choice": mission_of(n_items=12, targets=(0, 4, 11)),
        "two items to push with": mission_of(n_items=5, targets=(0, 2, 4)),
    }[wrong]
    assert len(forged(build(**arguments), edge, np.random.default_rng(0))) == 8


@each_attack
def test_more_may_be_pushed_than_a_fake_has_places_for(build, arguments):
    many = mission_of(n_items=300, targets=range(0, 280, 2))
    assert len(forged(build(**arguments, slots=100), many, np.random.default_rng(0))) == 8


def test_fakes_are_as_long_as_genuine_users_between_ten_and_fifty_events():
    def drawn(lengths, most=100):
        return set(sample_lengths(np.array(lengths), 200, most, np.random.default_rng(0)).tolist())

    assert drawn([17]) == {17}
    assert drawn([12, 30, 31]) == {12, 30, 31}
    assert (drawn([3]), drawn([80]), drawn([30, 40], most=33)) == ({10}, {50}, {30, 33})
