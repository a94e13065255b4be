"""Every kind of index finds what an exact search finds, and is measured before it is kept."""

import gc

import pytest
import torch

from seqrec.data.errors import InputError
from seqrec.export import index_kinds
from seqrec.export.index import KeyIndex, n_gpus
from seqrec.export.index_kinds import INDEX, KEYS, IndexKind, load_index, save_index
from seqrec.export.search import best_rows, most_alike
from seqrec.ops import ranking
from seqrec.sequences import Sequences

pytest.importorskip("faiss")

N, K, WIDTH = 3000, 20, 9
QUICK = [IndexKind.ivf, IndexKind.hnsw, IndexKind.pq]


def some_keys(n=N, seed=0):
    """Keys in clusters, and queries near them."""
    draw = torch.Generator().manual_seed(seed)
    centres = 2 * torch.randn(40, WIDTH, generator=draw)
    keys = centres[torch.randint(40, (n,), generator=draw)] + 0.5 * torch.randn(n, WIDTH, generator=draw)
    queries = keys[torch.randint(n, (50,), generator=draw)] + 0.3 * torch.randn(50, WIDTH, generator=draw)
    return keys, queries


@pytest.fixture(scope="module")
def built():
    keys, queries = some_keys()
    return {kind: kind.value(keys, queries) for kind in IndexKind}


def nothing_seen(queries):
    return Sequences.pack([[]] * len(queries))


@pytest.mark.parametrize("kind", QUICK)
def test_a_quick_index_finds_nearly_all_and_its_report_is_true(built, kind):
    (index, report), (keys, queries) = built[kind], some_keys()
    exact, _ = ranking.top_k(queries, keys, 100)
    found, scores = best_rows(index, queries, 100, nothing_seen(queries), torch.ones(N, dtype=torch.bool))
    recall = (found[:, :, None] == exact[:, None, :]).any(2).float().mean()
    assert recall >= 0.95
    assert abs(recall - report.recall) < 0.03
    assert report.kind == kind.name
    assert report.seconds > 0
    # What is found is scored exactly, and in the order of the evaluation.
    torch.testing.assert_close(scores, ranking.rescore(queries, keys, found).float(), rtol=0, atol=0)
    assert (scores.diff(dim=1) <= 0).all()


@pytest.mark.parametrize("kind", [IndexKind.flat, *QUICK])
def test_an_index_goes_through_its_files(built, kind, tmp_path):
    index, report = built[kind]
    _, queries = some_keys()
    names = save_index(index, tmp_path)
    assert names == ([INDEX] if kind is IndexKind.flat else [INDEX, KEYS])
    again = load_index(tmp_path, N, WIDTH, index_kinds.as_fields(report))
    assert torch.equal(again.keys, index.keys)
    for one, other in zip(index.search(queries, 30), again.search(queries, 30), strict=True):
        assert torch.equal(one, other)
    for n_items, width in ((N + 1, WIDTH), (N, WIDTH + 1)):
        with pytest.raises(InputError, match=r"index\.faiss holds 3,000 keys of width 9.*another model"):
            load_index(tmp_path, n_items, width, index_kinds.as_fields(report))


def test_auto_is_exact_for_few_items_and_quick_for_many(built, monkeypatch):
    assert built[IndexKind.auto][1].kind == "flat"
    keys, queries = some_keys()
    monkeypatch.setattr(index_kinds, "_FEW", 1000)
    monkeypatch.setattr(index_kinds, "_quicker", lambda report: True)
    monkeypatch.setattr(index_kinds, "ivf", lambda *_: built[IndexKind.ivf])
    monkeypatch.setattr(index_kinds, "pq", lambda *_: built[IndexKind.pq])
    assert index_kinds.auto(keys, queries)[1].kind == "ivf"
    monkeypatch.setattr(index_kinds, "_VERY_MANY", 2000)
    assert index_kinds.auto(keys, queries)[1].kind == "pq"


def test_auto_keeps_the_exact_index_where_the_quick_one_is_not_good_enough(monkeypatch):
    keys, queries = some_keys()
    monkeypatch.setattr(index_kinds, "_FEW", 1000)
    monkeypatch.setattr(index_kinds, "_quicker", lambda report: False)
    index, report = index_kinds.auto(keys, queries)
    assert report.kind == "flat"
    assert index.quick is None


@pytest.mark.parametrize("kind", [IndexKind.flat, *QUICK])
@pytest.mark.parametrize("share", [0.0, 0.002, 0.3, 0.999])
def test_what_a_filter_admits_is_ranked_exactly_whatever_the_index(built, kind, share):
    (index, _), (keys, queries) = built[kind], some_keys()
    draw = torch.Generator().manual_seed(1)
    admitted = torch.rand(N, generator=draw) < share
    seen = Sequences.pack([torch.randint(N, (n % 40,), generator=draw).tolist() for n in range(len(queries))])
    own = [[*seen.items[a:b].tolist()] for a, b in zip(seen.offsets[:-1], seen.offsets[1:], strict=True)]
    left_out = Sequences.pack([sorted({*rows, *(~admitted).nonzero().flatten().tolist()}) for rows in own])
    expected = ranking.top_k(queries, keys, K, left_out.items, left_out.offsets)
    found = best_rows(index, queries, K, seen, torch.ones(N, dtype=torch.bool), admitted)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


@pytest.mark.parametrize("kind", [IndexKind.flat, *QUICK])
@pytest.mark.parametrize("share", [0.01, 0.5, 1.0])
def test_what_is_not_offered_never_comes_and_the_list_is_full_while_it_can_be(built, kind, share):
    (index, _), (_, queries) = built[kind], some_keys()
    offered = torch.rand(N, generator=torch.Generator().manual_seed(2)) < share
    seen = Sequences.pack([[*range(row, N, 50)] for row in range(len(queries))])
    found, _ = best_rows(index, queries, K, seen, offered)
    for row, rows in enumerate(found.tolist()):
        left = {each for each in offered.nonzero().flatten().tolist() if each % 50 != row}
        kept = [each for each in rows if each >= 0]
        assert len(kept) == min(K, len(left))
        assert set(kept) <= left


def test_the_most_alike_are_those_of_the_largest_cosines():
    keys, _ = some_keys(300)
    keys[7] = 0
    offered = torch.ones(300, dtype=torch.bool)
    offered[[5, 6]] = False
    cosines = torch.nn.functional.cosine_similarity(keys[11][None], keys)
    cosines[[5, 6, 11]] = -torch.inf
    best = cosines.sort(descending=True)
    rows, scores = most_alike(keys, 11, 20, offered)
    torch.testing.assert_close(scores[0], best.values[:20])
    assert torch.equal(rows[0], best.indices[:20])


def test_the_keys_outlive_their_index():
    keys, _ = some_keys(2000)
    held = KeyIndex(keys).keys
    gc.collect()
    others = [KeyIndex(torch.zeros(2000, WIDTH)) for _ in range(5)]
    assert torch.equal(held, keys)
    assert len(others) == 5


def test_keys_that_are_not_finite_are_refused():
    with pytest.raises(FloatingPointError, match="not finite"):
        KeyIndex(torch.tensor([[1.0, torch.nan]]))


def test_too_few_items_for_codes_are_answered_with_what_to_take():
    keys, queries = some_keys(100)
    with pytest.raises(InputError, match="needs 256; take --index flat"):
        index_kinds.pq(keys, queries)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", [IndexKind.flat, IndexKind.ivf])
def test_an_index_built_on_a_gpu_is_written_for_both(kind, tmp_path, monkeypatch):
    if not n_gpus():
        pytest.skip("FAISS sees no GPU; install faiss-gpu-cu12 on a machine that has one")
    keys, queries = some_keys()
    index, report = kind.value(keys, queries)
    save_index(index, tmp_path)
    on_gpu = load_index(tmp_path, N, WIDTH, index_kinds.as_fields(report))
    monkeypatch.setattr("seqrec.export.index.n_gpus", lambda: 0)
    on_cpu = load_index(tmp_path, N, WIDTH, index_kinds.as_fields(report))
    nothing, offered = nothing_seen(queries), torch.ones(N, dtype=torch.bool)
    one, other = (best_rows(each, queries, K, nothing, offered)[0] for each in (on_gpu, on_cpu))
    assert (one == other).float().mean() > 0.99


@pytest.mark.parametrize("kind", QUICK)
def test_who_plays_the_same_over_and_over_is_answered_quickly(built, kind, monkeypatch):
    index, (_, queries) = built[kind][0], some_keys()
    seen, offered = range(50), torch.ones(N, dtype=torch.bool)
    wanted = best_rows(index, queries[:2], 1, Sequences.pack([seen, []]), offered)
    monkeypatch.delattr(KeyIndex, "search_among")  # an exact search needs it
    repeated = best_rows(index, queries[:2], 1, Sequences.pack([[*seen] * 400, []]), offered)
    assert torch.equal(repeated[0], wanted[0])


@pytest.fixture(scope="module")
def shelves():
    """120 shelves of 100 keys, far from each other, and a query before every third of them."""
    draw = torch.Generator().manual_seed(0)
    centres = 2 * torch.randn(120, 16, generator=draw)
    keys = centres.repeat_interleave(100, 0) + 0.1 * torch.randn(12_000, 16, generator=draw)
    return keys, centres[::3] + 0.1 * torch.randn(40, 16, generator=draw)


@pytest.mark.parametrize("kind", [IndexKind.ivf, IndexKind.hnsw])
def test_the_best_of_what_is_left_are_found_where_the_nearest_were_withdrawn(shelves, kind):
    keys, queries = shelves
    index, _ = kind.value(keys, queries)
    for number in range(0, 40, 4):
        query, nothing = queries[number : number + 1], Sequences.pack([[]])
        offered = torch.ones(len(keys), dtype=torch.bool)
        offered[ranking.top_k(query, keys, 100)[0][0]] = False
        found = best_rows(index, query, 10, nothing, offered)
        assert torch.equal(found[0], best_rows(index, query, 10, nothing, offered, offered)[0])


@pytest.mark.parametrize("kind", [IndexKind.ivf, IndexKind.hnsw])
def test_the_report_is_true_of_histories_whose_items_are_left_out(shelves, kind):
    keys, queries = shelves
    seen = Sequences.pack(ranking.top_k(queries, keys, 90)[0].tolist())
    index, report = kind.value(keys, queries, seen)
    exact, _ = ranking.top_k(queries, keys, 100, seen.items, seen.offsets)
    found, _ = best_rows(index, queries, 100, seen, torch.ones(len(keys), dtype=torch.bool))
    recall = (found[:, :, None] == exact[:, None, :]).any(2).float().mean()
    assert recall >= 0.95
    assert abs(recall - report.recall) < 0.03


def test_an_item_whose_key_is_zero_is_like_no_other_and_breaks_nothing():
    keys, _ = some_keys(300)
    keys[7] = 0
    rows, scores = most_alike(keys, 7, 5, torch.ones(300, dtype=torch.bool))
    assert 7 not in rows
    assert (scores == 0).all()
