"""Locks where there are some, and a sentence where there are none."""

import errno
import fcntl
import os

import pytest

from seqrec.data.errors import InputError
from seqrec.studies.locks import held, is_held


def test_a_lock_is_had_by_one_at_a_time(tmp_path):
    path = tmp_path / "runs" / "job.lock"
    assert not is_held(path)
    with held(path) as mine:
        assert mine
        assert is_held(path)
    assert not is_held(path)


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_refused(tmp_path, monkeypatch, code):
    def refuse(descriptor, operation):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with (
        pytest.raises(InputError, match=r"has no locks \(.*\); put --runs on one that has"),
        held(tmp_path / "job.lock"),
    ):
        pass
