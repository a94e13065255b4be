"""Services are asked over real HTTP: what goes wrong on the way is tried again, and what is paid is counted."""

import time
from email.utils import formatdate
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from text_service import chat
from twelve_items import ITEMS, PROMPT, N, at

from seqrec.semantics.asking import Asking
from seqrec.semantics.hosted import HostedEncoder
from seqrec.semantics.prompts import DEFAULTS, Prompt
from seqrec.semantics.service import Question, Service, took_of
from seqrec.semantics.subjects import Histories
from seqrec.semantics.writers import ChatWriter, Work

pytest.importorskip("openai")

# The most that the first question can cost, at a price of 1,000 a million: a token for each byte, 16 more, and 400.
MOST = sum(len(message["content"].encode()) for message in PROMPT.messages(ITEMS.facts(0))) / 1000 + 0.416


def written(service, folder, writer=None, **settings):
    return (writer or ChatWriter(at(service, **settings))).write(ITEMS, PROMPT, Work(folder))


def test_every_item_is_asked_for_once_at_temperature_0(service, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret-key")
    texts, record = written(service, tmp_path, key_variable="MY_KEY", price_in=2.0, price_out=10.0)
    assert len(set(texts)) == N
    assert all(text.startswith("Written of ") for text in texts)
    assert len(service.asked) == N
    for request in service.asked:
        assert request["path"] == "/v1/chat/completions"
        assert request["key"] == "Bearer secret-key"
        assert (request["body"]["temperature"], request["body"]["model"]) == (0, "small")
        assert [message["role"] for message in request["body"]["messages"]] == ["system", "user"]
    assert (record["tokens_in"], record["tokens_out"]) == (100 * N, 10 * N)
    assert record["spent_in_this_run"] == pytest.approx((100 * N * 2 + 10 * N * 10) / 1e6)
    assert record["prompt_version"].startswith("items-1@")
    assert not any(b"secret-key" in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    # Nothing is asked for again.
    again, record = written(service, tmp_path)
    assert again == texts
    assert len(service.asked) == N
    assert record["spent_in_this_run"] == 0


@pytest.mark.parametrize("trouble", ["429", "500", "503", "half", "gone", "nonsense", "shape", "empty"])
def test_trouble_on_the_way_is_tried_again(service, tmp_path, trouble):
    service.troubles = [trouble] * 2
    texts, _ = written(service, tmp_path)
    assert len(set(texts)) == N
    assert len(service.asked) == N + 2


def test_a_service_that_says_when_is_asked_no_sooner(service, tmp_path):
    service.troubles = ["429"]
    written(service, tmp_path, concurrency=1)
    assert service.asked[1]["at"] - service.asked[0]["at"] > 0.29


def test_a_service_may_say_a_date(service, tmp_path):
    moment = int(time.time()) + 3  # dates have whole seconds
    due = time.monotonic() + moment - time.time()
    service.troubles, service.retry_after = ["429"], formatdate(moment, usegmt=True)
    written(service, tmp_path, concurrency=1)
    assert service.asked[0]["at"] < due < service.asked[1]["at"] + 0.05


def test_a_service_that_wants_to_be_left_alone_for_long_ends_the_run(service, tmp_path):
    service.troubles, service.retry_after = ["429"] * 9, "600"
    with pytest.raises(ValueError, match="trouble 429"):
        written(service, tmp_path, concurrency=1)
    assert len(service.asked) == 1


def test_a_slow_answer_counts_as_lost(service, tmp_path):
    service.troubles = ["slow"]
    texts, _ = written(service, tmp_path, timeout=0.5)
    assert len(set(texts)) == N
    assert len(service.asked) == N + 1


@pytest.mark.parametrize(("trouble", "tries"), [("400", 1), ("422", 1), ("empty", 4)])
def test_what_is_refused_by_itself_is_named_once_all_else_is_answered(service, tmp_path, trouble, tries):
    service.troubles = [""] * 5 + [trouble] * tries
    with pytest.raises(ValueError, match=r"for the model small about 5: .*All else was answered and is stored.*again"):
        written(service, tmp_path, concurrency=1)
    assert len(service.asked) == N - 1 + tries
    texts, _ = written(service, tmp_path)
    assert len(set(texts)) == N
    assert len(service.asked) == N + tries


@pytest.mark.parametrize(
    ("trouble", "asked"),
    [("nonsense", 2 * 3), ("400", 3), ("429", 2), ("401", 1), ("404", 1)],
)
def test_trouble_without_end_ends_the_run(service, tmp_path, trouble, asked):
    """What may lie with a question is tried with two more."""
    service.troubles = [trouble] * 99
    with pytest.raises(ValueError, match=r"gave no usable answer for the model small: .*What was answered is stored"):
        written(service, tmp_path, retries=1, concurrency=1)
    assert len(service.asked) == asked


def test_a_service_that_refuses_most_is_left_alone(service, tmp_path):
    service.troubles = [""] * 2 + ["400"] * 99
    with pytest.raises(ValueError, match="What was answered is stored"):
        written(service, tmp_path, concurrency=1)
    assert len(service.asked) == N


def test_what_is_refused_at_once_does_not_hide_what_is_answered_later(service, tmp_path):
    service.troubles, service.delay = ["400"] * 4 + ["slow"] * 4, 0.0
    with pytest.raises(ValueError, match=r"about .* and 1 more: .*All else was answered and is stored"):
        written(service, tmp_path, concurrency=8)
    assert len(service.asked) == N


def test_a_service_that_the_environment_names_is_another_one(service, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:1/v1")
    one = Service("small")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:2/v1")
    assert one.identity == {"model": "small", "base_url": "http://localhost:2/v1"}
    monkeypatch.setenv("OPENAI_BASE_URL", at(service).base_url)
    assert one.identity == at(service).identity
    texts, _ = ChatWriter(Service("small")).write(ITEMS, PROMPT, Work(tmp_path))
    assert len(set(texts)) == N
    monkeypatch.delenv("OPENAI_BASE_URL")
    assert one.identity["base_url"] is None


def test_a_slash_behind_its_address_makes_no_other_service(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://there/v1/")
    told = [Service("m", "http://there/v1/"), Service("m", "http://there/v1"), Service("m")]
    assert {service.identity["base_url"] for service in told} == {"http://there/v1"}


def test_nobody_is_asked_where_there_is_nobody_to_describe(service, tmp_path):
    nobody = Histories(
        ITEMS.catalog, np.arange(3), np.arange(0), np.arange(0), pl.DataFrame({"user_id": [], "n_events": []})
    )
    texts, record = ChatWriter(at(service)).write(nobody, Prompt.read(DEFAULTS["histories"]), Work(tmp_path))
    assert texts == []
    assert record["model"] == "small"
    assert not service.asked


def test_a_service_that_is_not_there_is_named(tmp_path):
    nobody = Service("small", "http://127.0.0.1:9/v1", retries=0, concurrency=1)
    with pytest.raises(ValueError, match=r"service at http://127\.0\.0\.1:9/v1 gave no usable answer"):
        ChatWriter(nobody).write(ITEMS, PROMPT, Work(tmp_path))


def test_the_budget_is_never_exceeded_and_the_rest_is_done_later(service, tmp_path):
    money = {"price_in": 1000.0, "price_out": 1000.0}
    # An answer costs 0.11; the most that it can cost, by which it is let through, is about 1.5.
    with pytest.raises(ValueError, match=r"budget of 2 does not suffice .* Run the same command again to go on"):
        written(service, tmp_path, budget=2.0, concurrency=4, **money)
    done = len(service.asked)
    assert 1 <= done < N
    assert done * 0.11 <= 2
    texts, record = written(service, tmp_path, budget=100.0, **money)
    assert len(set(texts)) == N
    assert len(service.asked) == N
    assert record["spent_in_this_run"] == pytest.approx((N - done) * 0.11)
    assert record["tokens_in"] == 100 * N


@pytest.mark.parametrize(
    ("trouble", "asked", "spent"),
    [("empty", 3, 0.33), *((trouble, 1, MOST) for trouble in ("shape", "nonsense", "half", "gone", "slow", "504"))],
)
def test_useless_and_lost_answers_are_paid_from_the_budget_too(service, tmp_path, trouble, asked, spent):
    """One that says what it took costs that, 0.11; one that says nothing the most that it can cost."""
    service.troubles = [trouble] * 99
    money = {"price_in": 1000.0, "price_out": 1000.0, "budget": MOST + 0.3}
    with pytest.raises(ValueError, match=rf"budget of .* does not suffice .* \({spent:.4g} spent\)"):
        written(service, tmp_path, concurrency=1, timeout=0.5, **money)
    assert len(service.asked) == asked


def test_what_the_service_refused_cost_nothing(service, tmp_path):
    service.troubles = ["500", "429", "503"]
    with pytest.raises(ValueError, match=r"does not suffice .* \(0\.11 spent\)"):
        written(service, tmp_path, price_in=1000.0, price_out=1000.0, budget=MOST + 0.05, concurrency=1)
    assert len(service.asked) == 4


def test_what_was_never_sent_cost_nothing():
    asking = Asking(Service("small", "http://127.0.0.1:9/v1", price_in=1.0, budget=1.0, retries=2))
    with pytest.raises(ValueError, match="gave no usable answer"):
        list(asking.each(lambda client, content: client.models.list(), [Question(None, "text")]))
    assert asking.spent == 0


def test_a_budget_needs_prices():
    with pytest.raises(ValueError, match="give price_in"):
        Service("small", budget=1.0)


def test_settings_that_ask_for_nothing_are_refused():
    for name in ("requests_per_minute", "tokens_per_minute"):
        for limit in (0, -5):
            with pytest.raises(ValueError, match=f"{name} is {limit}; it must be at least 1, or left out"):
                Service("small", **{name: limit})
    for settings in ({"max_tokens": 0}, {"keep_every": -5}):
        with pytest.raises(ValueError, match="both must be at least 1"):
            ChatWriter(Service("small"), **settings)


def test_a_budget_of_a_writer_needs_the_price_of_answers_too():
    with pytest.raises(ValueError, match=r"budget of 1 cannot be kept with a price_out of 0, .*; give the service's"):
        ChatWriter(Service("small", price_in=1.0, budget=1.0))
    HostedEncoder(Service("small", price_in=1.0, budget=1.0))


QUESTIONS = [
    Question(None, "".join(message["content"] for message in PROMPT.messages(ITEMS.facts(row)))) for row in range(N)
]


def test_answers_that_do_not_say_what_they_took_are_not_free(service, tmp_path):
    service.tells_usage = False
    money = {"price_in": 1000.0, "price_out": 1000.0}
    texts, record = written(service, tmp_path / "likely", **money)
    assert record["tokens_in"] == sum(question.likely_in for question in QUESTIONS)
    assert record["tokens_out"] == sum(-(-len(text) // 4) for text in texts)
    assert record["spent_in_this_run"] == pytest.approx((record["tokens_in"] + record["tokens_out"]) / 1000)
    _, record = written(service, tmp_path / "most", **money, budget=1e6)
    assert (record["tokens_in"], record["tokens_out"]) == (sum(each.most_in for each in QUESTIONS), 400 * N)
    assert record["spent_in_this_run"] == pytest.approx((record["tokens_in"] + record["tokens_out"]) / 1000)


def test_half_of_what_an_answer_took_is_not_believed():
    assert took_of(SimpleNamespace(prompt_tokens=7, completion_tokens=2)) == (7, 2)
    assert took_of(SimpleNamespace(prompt_tokens=7), writes=False) == (7, 0)
    for usage in (None, SimpleNamespace(prompt_tokens=7), SimpleNamespace(prompt_tokens=0, completion_tokens=2)):
        assert took_of(usage) is None
    for odd in ("7", 7.5, -7):  # nor is what is no count
        assert took_of(SimpleNamespace(prompt_tokens=odd, completion_tokens=odd)) is None


def test_an_interrupt_keeps_what_is_under_way_and_asks_nothing_more(service, tmp_path):
    service.troubles, service.delay = [""] * 5 + ["interrupt"], 0.1
    with pytest.raises(KeyboardInterrupt):
        written(service, tmp_path)
    assert 6 <= len(service.asked) < N
    written(service, tmp_path)
    assert len(service.asked) == N


def test_an_interrupt_between_two_answers_keeps_what_is_under_way_too(service, tmp_path):
    service.delay, done = 0.1, []

    def advance(count):
        done.append(count)
        if len(done) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ChatWriter(at(service)).write(ITEMS, PROMPT, Work(tmp_path, lambda total: advance))
    assert 5 <= len(service.asked) < N
    written(service, tmp_path)
    assert len(service.asked) == N


def test_an_interrupt_ends_a_wait_for_another_try(service, tmp_path):
    service.troubles, service.retry_after = ["429", "interrupt"], "60"
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        written(service, tmp_path, concurrency=2)
    assert time.monotonic() - begun < 30


def test_no_more_is_under_way_than_wanted(service, tmp_path):
    service.delay = 0.05
    written(service, tmp_path, concurrency=3)
    assert service.most_at_once == 3


def test_requests_keep_their_pace(service, tmp_path):
    written(service, tmp_path, requests_per_minute=1200)
    times = sorted(request["at"] for request in service.asked)
    assert times[-1] - times[0] > 0.9 * (N - 1) * 60 / 1200


def test_retries_keep_the_pace_too(service, tmp_path):
    service.troubles = ["500"] * 3
    written(service, tmp_path, requests_per_minute=300)
    times = sorted(request["at"] for request in service.asked)
    assert len(times) == N + 3
    assert times[-1] - times[0] > 0.95 * (N + 2) * 60 / 300


def test_the_pace_delays_no_bad_news(service, tmp_path):
    service.troubles = ["401"] * 99
    with pytest.raises(ValueError, match="trouble 401"):
        written(service, tmp_path, requests_per_minute=12)
    assert len(service.asked) == 1


def test_tokens_keep_their_pace(service, tmp_path):
    begun = time.monotonic()
    written(service, tmp_path, tokens_per_minute=600_000)  # about 650 tokens each
    assert time.monotonic() - begun > (N - 1) * 400 / 10_000


def test_an_answer_that_was_cut_is_kept_and_counted(service, tmp_path):
    service.troubles = ["cut", "cut"]
    _, record = written(service, tmp_path)
    assert record["cut_answers"] == 2


def test_an_answer_that_was_cut_within_a_character_is_kept(service, tmp_path, monkeypatch):
    def cut(body):
        reply = chat(body)
        reply["choices"][0]["message"]["content"] = "good for caf\ud83d"
        return reply

    monkeypatch.setattr("text_service.chat", cut)
    for _ in range(2):
        texts, _ = written(service, tmp_path)
        assert set(texts) == {"good for caf?"}
        assert len(service.asked) == N


def test_a_service_that_changes_its_model_is_refused(service, tmp_path):
    service.troubles = [""] * 4 + ["401"]
    service.model = "small-may"
    with pytest.raises(ValueError, match="trouble 401"):
        written(service, tmp_path, concurrency=1)
    service.model = "small-june"
    asked = len(service.asked)
    for _ in range(2):  # one answer tells, and is kept
        with pytest.raises(ValueError, match="several models, small-june, small-may"):
            written(service, tmp_path, concurrency=1)
        assert len(service.asked) == asked + 1


def test_a_model_that_changes_on_the_way_ends_the_run_there(service, tmp_path):
    service.troubles = ["", "", "other"]
    for _ in range(2):
        with pytest.raises(ValueError, match=r"several models, other, small, .* stored; name one of them exactly"):
            written(service, tmp_path, concurrency=1)
        assert len(service.asked) == 3


def test_another_model_prompt_or_length_asks_anew(service, tmp_path):
    written(service, tmp_path)
    written(service, tmp_path, model="large")
    ChatWriter(at(service), max_tokens=50).write(ITEMS, PROMPT, Work(tmp_path))
    own = tmp_path / "items-1.txt"
    own.write_text(DEFAULTS["items"].read_text() + " Be brief.")
    ChatWriter(at(service)).write(ITEMS, Prompt.read(own), Work(tmp_path))
    assert len(service.asked) == 4 * N


def test_a_missing_key_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(ValueError, match="NO_SUCH_KEY is not set"):
        ChatWriter(Service("small", key_variable="NO_SUCH_KEY")).write(ITEMS, PROMPT, Work(tmp_path))
