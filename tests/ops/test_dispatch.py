"""An op runs the newest implementation that does not refuse, and says why the others did."""

import logging

import pytest

from seqrec.ops.dispatch import Op, using


def _doubling():
    @Op
    def double(x):
        return x * 2

    @double.implementation("negative", refuses=lambda x: "x is not negative" if x >= 0 else None)
    def _(x):
        return -double.reference(-x)

    return double


def test_the_reference_runs_where_all_refuse():
    assert _doubling()(3) == 6


def test_a_forced_implementation_says_why_it_cannot_run():
    with using("negative"), pytest.raises(RuntimeError, match="x is not negative"):
        _doubling()(3)


def test_forcing_leaves_ops_without_that_implementation_alone():
    with using("flash"):
        assert _doubling()(3) == 6


def test_it_says_once_what_runs_and_why_what_is_faster_does_not(caplog):
    with caplog.at_level(logging.DEBUG, "seqrec.ops"):
        double = _doubling()
        for x in (3, 4, -3, -4):
            double(x)
    assert caplog.messages == ["double runs as 'reference' (negative: x is not negative)", "double runs as 'negative'"]
    assert [record.levelname for record in caplog.records] == ["INFO", "DEBUG"]
