"""Known fraudsters: they push what no attack in the data pushes."""

import numpy as np

from seqrec.data.poisoning.base import Attack, Mission
from seqrec.data.poisoning.heuristic import Random
from seqrec.data.poisoning.known import KnownFraudsters
from seqrec.data.poisoning.poison import poisoned
from seqrec.data.prepare import prepare_log
from seqrec.data.protocol import LeaveOneOut
from seqrec.data.simulated import SimulatedShop


class Watched(Attack):
    """What ``Random`` makes up, and the targets of every history."""

    def __init__(self) -> None:
        self.pushed: set[int] = set()

    def forge(self, mission: Mission, random: np.random.Generator) -> list[np.ndarray]:
        self.pushed |= set(mission.targets.tolist())
        return Random().forge(mission, random)


def pushed(log) -> set[int]:
    attack = Watched()
    KnownFraudsters(attack, share=1.0).histories(log, LeaveOneOut().split(log).train)
    return attack.pushed


def test_known_fraudsters_push_any_item_but_those_of_an_attack_in_the_data(tmp_path):
    clean = prepare_log(SimulatedShop(users=300, items=60, mean_events=12.0), tmp_path / "clean")
    attacked = poisoned(tmp_path / "clean", tmp_path / "attacked", Random(), n_targets=3)
    everything = set(range(len(clean.catalog)))
    assert pushed(clean) == everything
    assert pushed(attacked) == everything - set(attacked.manifest["poison"]["target_rows"])
