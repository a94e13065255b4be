"""The service says what the bundle says, to one and to many at once, and every mistake gets a sentence."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from fastapi.testclient import TestClient
from small_bundles import LEARNED, LENGTH, TIMED, a_bundle, part, recipe

from seqrec.export.bundle import read_bundle, write_bundle
from seqrec.export.changes import remove_items
from seqrec.export.retriever import Retriever
from seqrec.export.users import remember_users
from seqrec.sequences import Sequences
from seqrec.serving.app import build_app
from seqrec.serving.filters import Filters
from seqrec.serving.models import Model
from seqrec.serving.questions import AboutHistories, AboutUser, answer_all
from seqrec.serving.store import SQLiteStore, StoreError


@pytest.fixture(scope="module")
def client(windowed, streaming, tmp_path_factory):
    store = SQLiteStore(tmp_path_factory.mktemp("answers") / "events.sqlite")
    with TestClient(build_app(windowed, store, compare=streaming, watch=0.0)) as client:
        yield client


@pytest.fixture(scope="module")
def retriever(windowed):
    return Retriever.load(windowed)


def ids(answer):
    return [each["item_id"] for each in answer["items"]]


def history(n, length):
    return [f"item-{(7 * n + 3 * place) % 200:03d}" for place in range(length)]


def test_lists_are_those_of_the_bundle(client, retriever):
    histories = [history(n, 1 + n) for n in range(20)]
    told = client.post("/recommend", json={"histories": histories, "k": 7}).json()
    for answer, some in zip(told["answers"], histories, strict=True):
        wanted = retriever.recommend(some, 7)
        assert ids(answer) == [each.item_id for each in wanted]
        assert [each["score"] for each in answer["items"]] == pytest.approx([each.score for each in wanted], rel=1e-5)
        assert answer["items"][0]["title"] == wanted[0].title
        assert answer["unknown"] == []


def test_many_who_ask_at_once_are_each_answered_as_if_alone(client, retriever):
    questions = [
        {
            "histories": [history(n, 1 + n % 15)],
            "k": 1 + n % 9,
            "exclude_seen": n % 3 > 0,
            "deny": ["item-005"] * (n % 2),
        }
        for n in range(60)
    ]
    barrier = threading.Barrier(12)

    def ask(question):
        barrier.wait()
        return client.post("/recommend", json=question).json()["answers"][0]

    with ThreadPoolExecutor(12) as pool:
        told = list(pool.map(ask, questions))
    for answer, question in zip(told, questions, strict=True):
        alone = retriever.recommend(
            question["histories"][0], question["k"], question["exclude_seen"], deny=question["deny"]
        )
        assert ids(answer) == [each.item_id for each in alone]
    sizes = client.get("/metrics").text
    assert 'seqrec_batch_requests_bucket{le="1.0"}' in sizes


def test_unknown_items_are_skipped_and_listed(client):
    one, none, empty = client.post(
        "/recommend", json={"histories": [["item-001", "nonsense", "item-002", "nonsense"], ["x"], []]}
    ).json()["answers"]
    assert one["unknown"] == ["nonsense"]
    assert ids(one) == ids(
        client.post("/recommend", json={"histories": [["item-001", "item-002"]]}).json()["answers"][0]
    )
    assert none == {"items": [], "unknown": ["x"]}
    assert empty == {"items": [], "unknown": []}


def test_filters_are_kept(client):
    def asked(**more):
        return ids(client.post("/recommend", json={"histories": [["item-001"]], "k": 200} | more).json()["answers"][0])

    assert len(asked()) == 199
    assert len(asked(exclude_seen=False)) == 200
    assert set(asked(allow=["item-003", "item-004", "nonsense"])) == {"item-003", "item-004"}
    assert set(asked()) - set(asked(deny=["item-003"])) == {"item-003"}
    assert {int(each[-3:]) % 3 for each in asked(categories=["blue"])} == {2}


def test_a_user_is_answered_from_their_events(client, retriever):
    told = client.post(
        "/events", json={"events": [{"user": "a/ b", "item": "item-001"}, {"user": "a/ b", "item": "new"}]}
    )
    assert told.json() == {"acknowledged": 2, "unknown": ["new"]}
    client.post("/events", json={"events": [{"user": "a/ b", "item": "item-050", "time": 7}]})
    answer = client.get("/users/a%2F%20b/recommend", params={"k": 4})
    assert ids(answer.json()) == [each.item_id for each in retriever.recommend(["item-001", "item-050"], 4)]
    other = client.get("/users/a%2F%20b/recommend", params={"k": 4, "model": "compare"})
    assert ids(other.json()) != ids(answer.json())
    denied = client.get("/users/a%2F%20b/recommend", params={"k": 4, "deny": ids(answer.json())[:2]})
    assert ids(denied.json())[:2] == ids(answer.json())[2:]
    unknown = client.get("/users/nobody/recommend")
    assert unknown.status_code == 404
    assert unknown.json()["error"]["message"].startswith("Nothing is known of user 'nobody'")


@pytest.mark.parametrize("kind", ["user", "item"])
@pytest.mark.parametrize("text", ["a\nb", "a\r", "\t", "a\0", "a\x85b"])
def test_ids_of_events_that_no_address_can_name_are_refused(client, kind, text):
    answer = client.post("/events", json={"events": [{"user": "line", "item": "item-001"} | {kind: text}]})
    assert answer.status_code == 422
    wanted = f"events.0.{kind}: {text!r} has a line break or another control character; send it without."
    assert answer.json()["error"]["message"] == wanted
    assert client.get("/users/line/recommend").status_code == 404


def test_similar_items_are_those_of_the_bundle(client, retriever):
    told = client.get("/similar/item-009", params={"k": 3}).json()
    assert ids(told) == [each.item_id for each in retriever.similar("item-009", 3)]
    assert client.get("/similar/nonsense").status_code == 404


def test_a_search_finds_words_in_any_order_and_ids_and_shows_the_popular_first(client):
    def found(words, **more):
        return ids(client.get("/items", params={"search": words} | more).json())

    assert found("", limit=2) == ["item-000", "item-001"]
    assert found("RED 19") == found("number 19 red") == ["item-192", "item-195", "item-198"]
    assert found("item-150")[0] == "item-150"
    assert found("no such thing") == []
    assert found("(.*") == []


def test_items_that_were_removed_are_nowhere_to_be_found(own_bundle, tmp_path):
    remove_items(own_bundle, "item-001,item-004")
    with TestClient(build_app(own_bundle, SQLiteStore(tmp_path / "events.sqlite"), watch=0.0)) as client:
        assert ids(client.get("/items", params={"limit": 3}).json()) == ["item-000", "item-002", "item-003"]
        assert ids(client.get("/items", params={"search": "item-001"}).json()) == []
        assert client.get("/health").json()["models"]["bundle"]["items"] == 198


def test_influence_is_the_fall_of_the_score_when_an_event_is_left_out(client, retriever):
    past = [*history(3, LENGTH + 2), "nonsense"]
    told = client.post("/influence", json={"history": past, "target": "item-111"}).json()["events"]
    assert [each["item_id"] for each in told] == past
    assert [each["influence"] is None for each in told] == [True, True, *[False] * LENGTH, True]
    assert told[-1]["title"] is None
    read = retriever.rows(past)[0][-LENGTH:]

    def score(rows):
        window = Sequences.pack([rows])
        with torch.no_grad():
            return float(retriever.recommender.queries(window, window.newest) @ retriever.index.keys[111])

    for place, each in enumerate(told[2:-1]):
        without = score(read[:place] + read[place + 1 :])
        assert each["influence"] == pytest.approx(score(read) - without, rel=1e-4, abs=1e-4)
    alone = client.post("/influence", json={"history": ["item-001"], "target": "item-111"}).json()["events"]
    assert alone == [{"item_id": "item-001", "title": "Green thing number 1", "influence": None}]
    assert client.post("/influence", json={"history": [], "target": "item-111"}).json() == {"events": []}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "histories: Field required"),
        ({"histories": [["item-001"]], "k": 0}, "k: Input should be greater than or equal to 1"),
        ({"histories": [["item-001"]], "kk": 1}, "kk: Extra inputs are not permitted"),
        ({"histories": [["item-001"], []], "times": [[1]]}, "give one time for each item"),
        ({"histories": [["\ud800"]]}, "histories.0.0"),
        ({"histories": [["item-001"]], "\ud800": 1}, "unicode"),
        ({"histories": "item-001"}, "valid list"),
        ({"histories": [[]] * 21, "k": 1000}, "at most 20,000 items"),
    ],
)
def test_a_mistake_is_answered_with_a_sentence(client, body, words):
    answer = client.post("/recommend", content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert words in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("/users/ann/recommend?k=3&denied=item-001", "no option 'denied'; the nearest is 'deny'."),
        ("/users/ann/recommend?category=red", "no option 'category'; the nearest is 'categories'."),
        ("/similar/item-001?top=3", "no option 'top'; there are 'k', 'model'."),
        ("/items?serach=red", "no option 'serach'; the nearest is 'search'."),
    ],
)
def test_an_option_that_nobody_reads_is_refused_and_the_nearest_is_named(client, address, words):
    answer = client.get(address)
    assert answer.status_code == 422
    assert answer.json()["error"]["message"] == f"This address has {words}"


def test_filters_of_items_that_nobody_knows_are_listed(client):
    filters = {"allow": ["item-003", "x"], "deny": ["y", "x"]}
    client.post("/events", json={"events": [{"user": "filters", "item": "item-001"}]})
    for told in (
        client.post("/recommend", json={"histories": [["item-001"]]} | filters).json(),
        client.get("/users/filters/recommend", params=filters).json(),
    ):
        assert told["unknown_filters"] == ["x", "y"]
    assert client.get("/users/filters/recommend").json()["unknown_filters"] == []


def test_other_mistakes_look_alike(client):
    broken = client.post("/recommend", content=b"{", headers={"Content-Type": "application/json"})
    assert (broken.status_code, broken.json()["error"]["code"]) == (422, "invalid")
    assert client.get("/nothing").json() == {"error": {"code": "not_found", "message": "Not Found"}}
    assert client.get("/recommend").json()["error"]["code"] == "method_not_allowed"


def test_without_a_second_bundle_there_is_nothing_to_compare(windowed, tmp_path):
    with TestClient(build_app(windowed, SQLiteStore(tmp_path / "events.sqlite"), watch=0.0)) as client:
        answer = client.post("/recommend", json={"histories": [["item-001"]], "model": "compare"})
        assert answer.status_code == 404
        assert "--compare" in answer.json()["error"]["message"]


def test_models_that_read_times_ask_for_them_and_for_the_moment_take_now(tmp_path):
    folder = a_bundle(tmp_path / "bundle", TIMED)
    with TestClient(build_app(folder, SQLiteStore(tmp_path / "events.sqlite"), watch=0.0)) as client:
        told = client.get("/health").json()["models"]["bundle"]
        assert (told["reads_times"], told["streams"]) == (True, False)
        refused = client.post("/recommend", json={"histories": [["item-001"]]})
        assert refused.status_code == 422
        assert "give times" in refused.json()["error"]["message"]
        question = {
            "histories": [["item-001", "x"]],
            "times": [[1_700_000_000, 1_700_000_001]],
            "asked_at": 1_800_000_000,
        }
        answer = client.post("/recommend", json=question).json()["answers"][0]
        wanted = Retriever.load(folder).recommend(["item-001"], times=[1_700_000_000], asked_at=1_800_000_000)
        assert ids(answer) == [each.item_id for each in wanted]
        del question["asked_at"]
        assert client.post("/recommend", json=question).status_code == 200
        client.post("/events", json={"events": [{"user": "ann", "item": "item-001", "time": 1_700_000_000}]})
        later = client.get("/users/ann/recommend", params={"asked_at": 1_800_000_000})
        assert ids(later.json()) == ids(answer)


def test_a_store_that_is_away_is_said_to_be_and_all_else_goes_on(windowed, tmp_path):
    store = SQLiteStore(tmp_path / "events.sqlite")
    with TestClient(build_app(windowed, store, watch=0.0)) as client:
        store.close()
        for answer in (
            client.post("/events", json={"events": [{"user": "ann", "item": "item-001"}]}),
            client.get("/users/ann/recommend"),
        ):
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store")
        assert client.post("/recommend", json={"histories": [["item-001"]]}).status_code == 200


def test_a_store_that_is_away_is_asked_once_for_all_who_wait(windowed, tmp_path, monkeypatch):
    store, asked = SQLiteStore(tmp_path / "events.sqlite"), []
    model = Model(windowed, store, "bundle")

    def away(user, start=0):
        asked.append(user)
        raise StoreError("away")

    monkeypatch.setattr(store, "events", away)
    users = [AboutUser(model, f"user {n}", 5, True, None, Filters()) for n in range(20)]
    history = AboutHistories(model, [["item-001"]], None, 5, True, None, Filters())
    *failures, (found,) = answer_all([*users, history])
    assert asked == ["user 0"]
    assert [str(failure) for failure in failures] == ["away"] * 20
    assert found == model.retriever.recommend(["item-001"], 5)


def test_health_says_which_bundles_answer(client):
    told = client.get("/health").json()
    assert told["status"] == "ok"
    assert {which: (model["name"], model["streams"]) for which, model in told["models"].items()} == {
        "bundle": ("windowed", False),
        "compare": ("streaming", True),
    }
    assert told["models"]["bundle"]["metrics"] == {"ndcg@10": 0.1}


DEEP = part("backbones.sasrec.SASRec", dim=8, n_layers=2, n_heads=1)  # tokens of one layer know nothing of the events
REMEMBERING = {
    "GRU4Rec": recipe(part("backbones.gru4rec.GRU4Rec", dim=8)),
    "GRU4Rec, places": recipe(part("backbones.gru4rec.GRU4Rec", dim=8), LEARNED),
    "Compressed": recipe(
        part("backbones.compressed.Compressed", inner=DEEP, n_recent=4, n_tokens=2, init_std=1.0), LEARNED
    ),
}


def remembering(folder, described, past, times=None):
    """A bundle that remembers what ann did, as `seqrec export --users true` writes it."""
    recommender = read_bundle(a_bundle(folder, described)).recommender
    newest = slice(-(LENGTH - recommender.leaves_room), None)
    window = Sequences.pack([past[newest]], None if times is None else [times[newest]])
    if recommender.reads_asked_at:
        window = window.asking(window.newest, window.times[window.newest])
    has = Sequences.pack([past], None if times is None else [times])
    users = remember_users(recommender, [(["ann"], window, has)], described)
    write_bundle(recommender, folder, recipe=described, config={}, max_length=LENGTH, users=users)
    return Retriever.load(folder)


@pytest.mark.parametrize("n_past", [5, 12, 30])
@pytest.mark.parametrize("described", REMEMBERING.values(), ids=REMEMBERING.keys())
def test_a_user_whom_the_bundle_remembers_is_gone_on_with(tmp_path, described, n_past):
    past, since = list(range(n_past)), list(range(100, 120))
    retriever = remembering(tmp_path / "bundle", described, past)
    with TestClient(build_app(tmp_path / "bundle", SQLiteStore(tmp_path / "e.sqlite"), watch=0.0)) as client:
        assert ids(client.get("/users/ann/recommend").json()) == [e.item_id for e in retriever.recommend_user("ann")]
        for n, new in enumerate(since, start=1):
            client.post("/events", json={"events": [{"user": "ann", "item": f"item-{new:03d}"}]})
            found = ids(client.get("/users/ann/recommend", params={"k": 200}).json())
            all_of_it = [f"item-{row:03d}" for row in [*past, *since[:n]]]
            assert sorted(found) == sorted(set(retriever.catalog.ids) - set(all_of_it))
            if n >= 4 or not retriever.recommender.leaves_room:  # else some of the newest are compressed
                assert found == [each.item_id for each in retriever.recommend(all_of_it, 200)]


def test_a_model_of_the_clock_reads_what_a_user_has_again_and_leaves_it_out(tmp_path):
    described = recipe(part("backbones.gru4rec.GRU4Rec", dim=8), part("positions.time.TimeGap", dim=8, init_std=1.0))
    retriever = remembering(tmp_path / "bundle", described, range(LENGTH), range(1_000_000, 1_000_000 + LENGTH))
    store = SQLiteStore(tmp_path / "events.sqlite")
    with TestClient(build_app(tmp_path / "bundle", store, watch=0.0)) as client:
        client.post("/events", json={"events": [{"user": "ann", "item": "item-100", "time": 2_000_000}]})
        found = ids(client.get("/users/ann/recommend", params={"k": 200}).json())
    whole, times = [f"item-{row:03d}" for row in [*range(LENGTH), 100]], [*range(1_000_000, 1_000_000 + LENGTH)]
    assert found == [each.item_id for each in retriever.recommend(whole, 200, times=[*times, 2_000_000])]


def test_a_user_who_did_nothing_since_is_answered_by_a_model_of_the_clock(tmp_path):
    timed = part("backbones.sasrec.SASRec", dim=8, n_layers=2, n_heads=1, position=part("positions.time_bias.TimeBias"))
    described = recipe(part("backbones.compressed.Compressed", inner=timed, n_recent=4, n_tokens=2, init_std=1.0))
    retriever = remembering(tmp_path / "bundle", described, range(6), range(1_000_000, 1_000_006))
    assert retriever.recommender.reads_asked_at
    with TestClient(build_app(tmp_path / "bundle", SQLiteStore(tmp_path / "e.sqlite"), watch=0.0)) as client:
        whole, times = [f"item-{row:03d}" for row in range(6)], [*range(1_000_000, 1_000_006)]
        wanted = [each.item_id for each in retriever.recommend(whole, times=times, asked_at=3_000_000)]
        assert ids(client.get("/users/ann/recommend", params={"asked_at": 3_000_000}).json()) == wanted
        old_and_unknown = [("item-000", 1_000_000), ("nobody", 2_000_000)]
        told = [{"user": "ann", "item": item, "time": time} for item, time in old_and_unknown]
        client.post("/events", json={"events": told})
        assert ids(client.get("/users/ann/recommend", params={"asked_at": 3_000_000}).json()) == wanted


@pytest.mark.parametrize("n_past", [3, 12])
def test_events_that_the_bundle_was_trained_on_are_not_read_twice(tmp_path, n_past):
    past, times = list(range(n_past)), list(range(1_000_000, 1_000_000 + n_past))
    retriever = remembering(tmp_path / "bundle", REMEMBERING["GRU4Rec"], past, times)
    store = SQLiteStore(tmp_path / "events.sqlite")
    with TestClient(build_app(tmp_path / "bundle", store, watch=0.0)) as client:

        def told(item, time):
            client.post("/events", json={"events": [{"user": "ann", "item": item, "time": time}]})
            return ids(client.get("/users/ann/recommend", params={"k": 200}).json())

        for row, time in zip(past, times, strict=True):
            found = told(f"item-{row:03d}", time)
            assert found == [each.item_id for each in retriever.recommend_user("ann", k=200)]
        late = told("item-100", times[0])
        assert late == [each for each in found if each != "item-100"]
        whole = [f"item-{row:03d}" for row in [*past, 101]]
        newer = told("item-101", times[-1] + 1)
        assert newer == [each.item_id for each in retriever.recommend(whole, 200, deny=["item-100"])]
