"""Neighbours equal those of a plain search through everything, and are never of the own group."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqrec.semantics.neighbours import Neighbours, _bounds, nearest, write_neighbours
from seqrec.semantics.vectors import Vectors, write_vectors

pytest.importorskip("faiss")


def cosines(vectors: np.ndarray) -> np.ndarray:
    vectors = vectors.astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.where(lengths > 0, lengths, 1)
    return unit @ unit.T


def assert_nearest(rows: np.ndarray, vectors: np.ndarray, k: int, groups: np.ndarray) -> None:
    """The k largest cosines in order, none of the own group, none twice; equal cosines may change places."""
    truth = cosines(vectors)
    truth[groups[:, None] == groups] = -np.inf
    assert rows.shape == (len(vectors), k)
    assert rows.dtype == np.int32
    for row, (found, all_of) in enumerate(zip(rows, truth, strict=True)):
        best = np.sort(all_of)[::-1][:k]
        best = best[np.isfinite(best)]
        assert (found[len(best) :] == -1).all()
        found = found[: len(best)]
        assert len(set(found.tolist())) == len(best)
        assert not (groups[found] == groups[row]).any()
        np.testing.assert_allclose(all_of[found], best, atol=3e-6)


@st.composite
def clouds(draw):
    """Vectors of few or many directions, some of them equal, some zero, with groups of any size."""
    n, dim, rank = draw(st.integers(1, 60)), draw(st.integers(1, 12)), draw(st.integers(1, 12))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    vectors = generator.normal(size=(n, rank)) @ generator.normal(size=(rank, dim))
    vectors[generator.random(n) < draw(st.sampled_from([0, 0.3, 0.9]))] = vectors[0]
    vectors[generator.random(n) < draw(st.sampled_from([0, 0.2]))] = 0
    groups = generator.integers(0, draw(st.sampled_from([1, 2, 5, 60])), n)
    return vectors.astype(draw(st.sampled_from([np.float16, np.float32]))), groups


@given(clouds(), st.integers(1, 8), st.booleans())
def test_they_are_those_of_a_search_through_everything(cloud, k, grouped):
    vectors, groups = cloud
    rows = nearest(vectors, k, groups if grouped else None)
    assert_nearest(rows, vectors, k, groups if grouped else np.arange(len(vectors)))


def test_a_search_is_widened_past_a_large_group_of_ones_own():
    """The 400 nearest of everyone are of the same group; exactly k others are found all the same."""
    generator = np.random.default_rng(0)
    groups = np.repeat(np.arange(3), 400)
    vectors = generator.normal(size=(3, 30))[groups] + 0.01 * generator.normal(size=(1200, 30))
    rows = nearest(vectors.astype(np.float32), 5, groups)
    assert (rows >= 0).all()
    assert_nearest(rows, vectors.astype(np.float32), 5, groups)


def test_a_bound_that_proves_nothing_is_not_taken_for_a_proof():
    """Sixty vectors lie where the leading coordinates see nothing: to each other all of their bounds are 1."""
    generator = np.random.default_rng(0)
    vectors = np.zeros((4100, 208), dtype=np.float32)
    vectors[:4040, :8] = generator.normal(size=(4040, 8))
    vectors[4040:, 8:] = generator.normal(size=(60, 200))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert_nearest(nearest(vectors, 2), vectors, 2, np.arange(4100))


def test_vectors_that_all_point_one_way_are_told_apart_at_the_first_look():
    """Means of what some encoders write: any two have a cosine beyond .98."""
    generator = np.random.default_rng(0)
    scales = 1 / np.arange(1, 65)
    vectors = (generator.normal(size=(3000, 64)) * scales + 40 * generator.normal(size=64) * scales).astype(np.float32)
    assert cosines(vectors).min() > 0.9
    done = []
    rows = nearest(vectors, 5, advance=done.append)
    assert_nearest(rows, vectors, 5, np.arange(3000))
    assert done[0] > 2900


def test_bounds_are_never_below_the_cosines():
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(500, 40)) / np.arange(1, 41) ** 0.5 + generator.normal(size=40)
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    bounds = _bounds(unit)
    assert bounds.shape[1] < 40
    assert (bounds @ bounds.T >= unit @ unit.T - 1e-6).all()


def test_oneself_is_left_out_by_number_where_many_are_equal():
    vectors = np.ones((500, 6), dtype=np.float32)
    rows = nearest(vectors, 3)
    assert (rows >= 0).all()
    assert not (rows == np.arange(500)[:, None]).any()


def test_the_search_says_how_far_it_is():
    done = []
    nearest(np.random.default_rng(0).normal(size=(9000, 8)).astype(np.float32), 2, advance=done.append)
    assert sum(done) == 9000
    assert len(done) >= 3


def test_a_search_through_a_part_of_the_space_finds_most():
    vectors = np.random.default_rng(0).normal(size=(4000, 16)).astype(np.float32)
    exact, quick = nearest(vectors, 10), nearest(vectors, 10, exact=False)
    shared = np.mean([len(set(one) & set(other)) / 10 for one, other in zip(exact, quick, strict=True)])
    assert 0.5 < shared < 1
    assert (quick >= 0).all()
    groups = np.arange(4000) % 2
    assert ((nearest(vectors, 10, groups, exact=False) + np.arange(4000)[:, None]) % 2 == 1).all()


def test_fewer_than_one_neighbour_is_refused():
    with pytest.raises(ValueError, match="k is 0; ask for at least 1"):
        nearest(np.ones((2, 2), dtype=np.float32), 0)


@pytest.fixture
def folder(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    write_vectors(tmp_path, pl.DataFrame({"item_id": [str(row) for row in range(20)]}), vectors, {"kind": "items"})
    made = Vectors.open(tmp_path)
    write_neighbours(tmp_path, nearest(made.vectors, 3), {"fingerprint": made.manifest["fingerprint"], "exact": True})
    return tmp_path


def test_neighbours_come_back_memory_mapped(folder):
    found = Neighbours.open(folder)
    assert isinstance(found.rows, np.memmap)
    assert np.array_equal(found.rows, nearest(Vectors.open(folder).vectors, 3))
    assert (found.manifest["k"], found.manifest["exact"]) == (3, True)


def test_neighbours_of_other_vectors_are_refused(folder):
    made = Vectors.open(folder)
    write_vectors(folder, made.ids, np.array(made.vectors)[::-1], {"kind": "items"})
    with pytest.raises(ValueError, match=r"neighbours of other vectors. Run `seqrec neighbours --vectors"):
        Neighbours.open(folder)


def test_damaged_or_missing_neighbours_are_refused(folder):
    content = bytearray((folder / "neighbours.npy").read_bytes())
    content[-4] ^= 1
    for damaged in (content, b""):
        (folder / "neighbours.npy").write_bytes(damaged)
        with pytest.raises(ValueError, match="missing or changed"):
            Neighbours.open(folder)
    (folder / "neighbours.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"neighbours\.json does not exist"):
        Neighbours.open(folder)
