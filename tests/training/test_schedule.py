"""The learning rate stays or falls as its schedule says. What all must obey stands in tests/contracts."""

import math

import pytest

from seqrec.training.schedule import Constant, Cosine


def test_the_constant_stays_at_full_height():
    assert {Constant().factor(step, math.inf) for step in range(5)} == {1.0}


def test_the_cosine_falls_from_one_to_its_floor():
    schedule = Cosine(warmup_steps=2, floor=0.1)
    factors = [schedule.factor(step, 12) for step in range(2, 13)]
    assert factors[0] == 1.0
    assert factors[5] == pytest.approx(0.55)
    assert factors[-1] == pytest.approx(0.1)
    assert factors == sorted(factors, reverse=True)


def test_a_cosine_without_an_end_says_what_to_set():
    with pytest.raises(ValueError, match=r"trainer\.max_epochs"):
        Cosine().factor(0, math.inf)
