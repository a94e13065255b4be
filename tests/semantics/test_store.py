"""What is in the store comes back as it was put there, whatever stops the program that puts it there."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import polars as pl
import pytest

from seqrec.semantics.store import Store, key_of

WORDS = [f"word {number}" for number in range(10)]
KEYS = [key_of(word) for word in WORDS]
VECTORS = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float16)


def filled(folder, identity=None) -> Store:
    store = Store(folder, identity or {"model": "m"})
    store.append(pl.DataFrame({"key": KEYS[:6], "text": WORDS[:6]}), VECTORS[:6])
    store.append(pl.DataFrame({"key": KEYS[6:], "text": WORDS[6:]}), VECTORS[6:])
    return store


def test_lines_and_vectors_come_back_in_the_order_that_is_asked_for(tmp_path):
    filled(tmp_path)
    store = Store(tmp_path, {"model": "m"})
    wanted = [7, 2, 2, 9, 0]
    assert len(store) == 10
    assert store.lines(KEYS[row] for row in wanted)["text"].to_list() == [WORDS[row] for row in wanted]
    assert np.array_equal(store.vectors([KEYS[row] for row in wanted]), VECTORS[wanted])


def test_only_the_first_place_of_what_is_not_there_is_missing(tmp_path):
    store = filled(tmp_path)
    new = key_of("new")
    assert store.missing([KEYS[3], new, KEYS[0], new, key_of("newer")]) == [1, 4]
    assert Store(tmp_path, {"model": "other"}).missing(KEYS) == list(range(10))


def test_models_are_never_mixed(tmp_path):
    one, other = filled(tmp_path), Store(tmp_path, {"model": "n"})
    other.append(pl.DataFrame({"key": KEYS}), -VECTORS)
    assert one.folder != other.folder
    assert np.array_equal(Store(tmp_path, {"model": "m"}).vectors(KEYS), VECTORS)
    assert np.array_equal(Store(tmp_path, {"model": "n"}).vectors(KEYS), -VECTORS)


def test_what_was_kept_is_never_written_again(tmp_path):
    def files():
        return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in store.folder.iterdir()}

    store = filled(tmp_path)
    before = files()
    store.append(pl.DataFrame({"key": [KEYS[0], key_of("new")], "text": ["other", "new"]}), VECTORS[:2])
    assert before.items() <= files().items()
    assert store.lines([KEYS[0]])["text"].to_list() == ["word 0"]  # the first answer stays


def test_two_programs_may_append_at_once(tmp_path):
    one, other = Store(tmp_path, {"model": "m"}), Store(tmp_path, {"model": "m"})
    one.append(pl.DataFrame({"key": KEYS[:5]}), VECTORS[:5])
    other.append(pl.DataFrame({"key": KEYS[5:]}), VECTORS[5:])
    assert np.array_equal(Store(tmp_path, {"model": "m"}).vectors(KEYS), VECTORS)


@pytest.mark.parametrize("ending", [".parquet", ".npy"])
@pytest.mark.parametrize("place", [0.3, 0.6, 0.99])
def test_one_changed_bit_is_detected_and_the_file_named(tmp_path, ending, place):
    store = filled(tmp_path)
    damaged = sorted(store.folder.glob(f"*{ending}"))[1]
    content = bytearray(damaged.read_bytes())
    content[int(place * len(content))] ^= 4
    damaged.write_bytes(content)
    with pytest.raises(ValueError, match=f"{damaged.name} is missing or not what was written. Delete") as refusal:
        Store(tmp_path, {"model": "m"})
    (made,) = store.folder.glob("000001-*.parquet")
    assert f"Delete {made.name} in" in str(refusal.value)
    made.unlink()
    repaired = Store(tmp_path, {"model": "m"})
    assert len(repaired) == 6
    lost = repaired.missing(KEYS)
    repaired.append(pl.DataFrame({"key": [KEYS[row] for row in lost]}), VECTORS[lost])
    assert np.array_equal(Store(tmp_path, {"model": "m"}).vectors(KEYS), VECTORS)


def test_the_remedy_spares_what_another_program_wrote_beside_it(tmp_path):
    one, other = Store(tmp_path, {"model": "m"}), Store(tmp_path, {"model": "m"})
    one.append(pl.DataFrame({"key": KEYS[:5]}), VECTORS[:5])
    kept = set(one.folder.glob("*.parquet"))
    other.append(pl.DataFrame({"key": KEYS[5:]}), VECTORS[5:])
    (damaged,) = set(one.folder.glob("*.parquet")) - kept
    damaged.write_bytes(b"")
    with pytest.raises(ValueError, match=f"Delete {damaged.name} in"):
        Store(tmp_path, {"model": "m"})
    damaged.unlink()
    assert np.array_equal(Store(tmp_path, {"model": "m"}).vectors(KEYS[:5]), VECTORS[:5])


@pytest.mark.parametrize("content", ["", "[]", '{"model": "n"}'])
def test_a_damaged_identity_costs_nothing_that_was_kept(tmp_path, content):
    store = filled(tmp_path)
    identity = store.folder / "identity.json"
    before = identity.read_bytes()
    identity.write_text(content)
    with pytest.raises(ValueError, match=r"identity\.json is not what was written. Delete it, and it alone"):
        Store(tmp_path, {"model": "m"})
    identity.unlink()
    again = Store(tmp_path, {"model": "m"})
    assert np.array_equal(again.vectors(KEYS), VECTORS)
    again.append(pl.DataFrame({"key": [key_of("new")], "text": ["new"]}), VECTORS[:1])
    assert identity.read_bytes() == before


def test_vectors_that_are_gone_are_noticed(tmp_path):
    store = filled(tmp_path)
    next(store.folder.glob("000000-*.npy")).unlink()
    with pytest.raises(ValueError, match="is missing or not what was written"):
        Store(tmp_path, {"model": "m"})


APPENDS = """
import sys
from pathlib import Path
import numpy as np, polars as pl
from seqrec.semantics.store import Store, key_of
store = Store(Path(sys.argv[1]), {"model": "m"})
print("begins", flush=True)
for number in range(len(store) // 3, 100_000):
    keys = [key_of(f"{number} {row}") for row in range(3)]
    store.append(pl.DataFrame({"key": keys, "number": [number] * 3}), np.full((3, 500), number, np.float32))
"""


def test_a_killed_program_leaves_whole_segments_and_the_next_goes_on(tmp_path):
    last = 0
    for seconds in (0.05, 0.11, 0.23):
        program = subprocess.Popen([sys.executable, "-c", APPENDS, str(tmp_path)], stdout=subprocess.PIPE)
        assert program.stdout.readline() == b"begins\n"
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob("**/*.parquet"))) <= last and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(seconds)
        os.kill(program.pid, signal.SIGKILL)
        assert program.wait() == -signal.SIGKILL
        program.stdout.close()
        store = Store(tmp_path, {"model": "m"})
        n = len(store) // 3
        assert len(store) % 3 == 0
        assert n > last
        keys = [key_of(f"{number} {row}") for number in range(n) for row in range(3)]
        assert store.missing(keys) == []
        assert np.array_equal(store.vectors(keys), np.repeat(np.arange(n), 3)[:, None] * np.ones(500, np.float32))
        last = n


def test_what_a_killed_program_left_half_written_is_not_read(tmp_path):
    store = filled(tmp_path)
    (store.folder / ".000002-abc.parquet.123.tmp").write_bytes(b"half")
    (store.folder / "000002-abcdef.npy").write_bytes(b"no segment was made of it")
    again = Store(tmp_path, {"model": "m"})
    assert len(again) == 10
    again.append(pl.DataFrame({"key": [key_of("new")]}), VECTORS[:1])
    assert len(Store(tmp_path, {"model": "m"})) == 11


@pytest.mark.skipif(sys.platform == "win32", reason="no such limits there")
def test_a_store_of_more_segments_than_a_program_may_open_files_is_read(tmp_path):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    store = Store(tmp_path, {"model": "m"})
    keys = [key_of(str(number)) for number in range(90)]
    for number, key in enumerate(keys):
        store.append(pl.DataFrame({"key": [key]}), np.full((1, 4), number, dtype=np.float32))
    opened = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 40
    resource.setrlimit(resource.RLIMIT_NOFILE, (opened + 40, hard))
    try:
        again = Store(tmp_path, {"model": "m"})
        assert again.vectors(keys[::-1])[:, 0].tolist() == list(range(90))[::-1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_disk_that_fails_is_not_taken_for_a_broken_file(tmp_path, monkeypatch):
    filled(tmp_path)

    def failed(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("seqrec.semantics.store.Path.read_bytes", failed)
    with pytest.raises(OSError, match="Input/output error"):
        Store(tmp_path, {"model": "m"})
