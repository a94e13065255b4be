"""What every schedule of the learning rate must obey. A new one adds one line to ``CASES``."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqrec.training.schedule import Constant, Cosine

CASES = [
    pytest.param(Constant, {}, id="Constant"),
    pytest.param(Cosine, {}, id="Cosine"),
    pytest.param(Cosine, {"floor": 0.1}, id="Cosine, with a floor"),
]
each_schedule = pytest.mark.parametrize(("build", "arguments"), CASES)


@each_schedule
@settings(max_examples=30)
@given(steps=st.integers(1, 60), warmup_steps=st.integers(0, 60))
def test_every_factor_of_every_run_lies_between_zero_and_one(build, arguments, steps, warmup_steps):
    schedule = build(warmup_steps=warmup_steps, **arguments)
    # The optimiser asks once more than it steps; a resumed run may ask for steps beyond its end.
    factors = [schedule.factor(step, steps) for step in range(steps + 3)]
    assert all(0 <= factor <= 1 for factor in factors)


@each_schedule
@settings(max_examples=30)
@given(steps=st.integers(1, 60), warmup_steps=st.integers(0, 60))
def test_the_first_step_already_learns(build, arguments, steps, warmup_steps):
    assert build(warmup_steps=warmup_steps, **arguments).factor(0, steps) > 0


@each_schedule
def test_the_warm_up_climbs_evenly_and_ends_at_full_height(build, arguments):
    schedule = build(warmup_steps=4, **arguments)
    assert [schedule.factor(step, 10) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert build(**arguments).factor(0, 10) == 1.0


@each_schedule
def test_a_factor_depends_on_its_step_alone(build, arguments):
    schedule = build(warmup_steps=3, **arguments)
    forwards = [schedule.factor(step, 20) for step in range(20)]
    assert [schedule.factor(step, 20) for step in reversed(range(20))] == forwards[::-1]


@each_schedule
def test_a_run_without_an_end_has_factors_or_is_told_what_to_set(build, arguments):
    def factor(step):
        try:
            return build(**arguments).factor(step, math.inf)
        except ValueError as refusal:
            return str(refusal)

    found = factor(1000)
    assert "trainer.max_" in found if isinstance(found, str) else 0 <= found <= 1


@each_schedule
def test_a_warm_up_of_less_than_no_steps_is_refused(build, arguments):
    with pytest.raises(ValueError, match="warmup_steps is -1"):
        build(warmup_steps=-1, **arguments)
