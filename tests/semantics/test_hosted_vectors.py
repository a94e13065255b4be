"""Vectors from a hosted service are those of their texts, whatever happens on the way."""

from dataclasses import replace

import numpy as np
import pytest
from text_service import vector_of
from twelve_items import ITEMS, PROMPT, N, at

from seqrec.semantics.hosted import HostedEncoder
from seqrec.semantics.writers import ChatWriter, Work

pytest.importorskip("openai")

TEXTS = [f"text {number % 9}" for number in range(N)]  # some twice


def vectors(service, folder, half=True, dimensions=None, batch_size=4, **settings):
    encoder = HostedEncoder(at(service, **settings), dimensions, batch_size, half)
    return encoder.vectors(ITEMS, lambda: TEXTS, Work(folder))


@pytest.mark.parametrize("trouble", ["", "429", "500", "half", "nonsense", "shape", "empty"])
def test_hosted_vectors_are_those_of_their_texts(service, tmp_path, trouble):
    service.troubles = [trouble] if trouble else []
    made, record = vectors(service, tmp_path)
    assert made.dtype == np.float16
    assert np.array_equal(made, np.array([vector_of(text) for text in TEXTS], dtype=np.float16))
    assert len(service.asked) == 3 + bool(trouble)  # nine texts by four
    assert record["tokens_in"] == 9 * 7
    assert (record["encoder"]["model"], record["model"]) == ("small", "small")
    again, _ = vectors(service, tmp_path)
    assert np.array_equal(again, made)
    assert len(service.asked) == 3 + bool(trouble)


def test_vectors_without_numbers_are_none_and_nothing_of_them_is_kept(service, tmp_path):
    with pytest.raises(ValueError, match="no rows of finite numbers"):
        vectors(service, tmp_path, dimensions=0, retries=0)
    assert not list(tmp_path.iterdir())


def test_a_width_that_changes_on_the_way_is_told_and_what_was_paid_for_is_kept(service, tmp_path, monkeypatch):
    ask = HostedEncoder._ask

    def wider(encoder, client, texts):
        answer = ask(encoder, client, texts)
        return replace(answer, content=np.pad(answer.content, ((0, 0), (0, texts[0] != TEXTS[0]))))

    monkeypatch.setattr(HostedEncoder, "_ask", wider)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"has vectors of the widths .* Name another --store"):
            vectors(service, tmp_path)
    assert len(service.asked) == 3


def test_a_refused_text_is_named_alone_and_all_beside_it_are_answered(service, tmp_path):
    service.refuses = {"text 5"}
    for _ in range(2):
        with pytest.raises(ValueError, match=r"for the model small about 'text 5': .*All else was answered and is sto"):
            vectors(service, tmp_path)
    inputs = [set(request["body"]["input"]) for request in service.asked]
    assert len(inputs) == 3 + 2 + 2 + 1  # batches, halves, their halves, and the second run
    assert inputs[-1] == {"text 5"}
    service.refuses = set()
    made, record = vectors(service, tmp_path)
    assert np.array_equal(made, np.array([vector_of(text) for text in TEXTS], dtype=np.float16))
    assert record["tokens_in"] == 9 * 7


def test_a_batch_that_is_too_large_for_the_service_is_halved(service, tmp_path):
    service.troubles = ["413"] * 2
    made, _ = vectors(service, tmp_path, concurrency=1)
    assert np.array_equal(made, np.array([vector_of(text) for text in TEXTS], dtype=np.float16))


def test_several_refused_texts_are_named_in_their_order(service, tmp_path):
    service.refuses = {"text 0", "text 1", "text 2", "text 7"}
    with pytest.raises(ValueError, match=r"about 'text 0', 'text 1', 'text 2' and 1 more: .*All else was answered"):
        vectors(service, tmp_path)
    service.refuses = set()
    vectors(service, tmp_path)
    assert set(service.asked[-1]["body"]["input"]) == {"text 0", "text 1", "text 2", "text 7"}


def test_a_service_that_refuses_every_batch_is_left_alone(service, tmp_path):
    service.refuses = {f"text {number}" for number in range(256)}
    encoder = HostedEncoder(at(service, concurrency=1))
    with pytest.raises(ValueError, match="What was answered is stored"):
        encoder.vectors(ITEMS, lambda: sorted(service.refuses), Work(tmp_path))
    assert len(service.asked) < 30


def test_vectors_of_halves_come_in_the_order_of_the_texts(service):
    service.troubles = ["400"]
    made = HostedEncoder(at(service)).encode(TEXTS)
    assert np.array_equal(made, np.array([vector_of(text) for text in TEXTS], dtype=np.float32))
    assert len(service.asked) == 3


def test_a_model_that_changes_on_the_way_ends_the_embedding_there(service, tmp_path):
    service.troubles = ["", "", "other"]
    for _ in range(2):
        with pytest.raises(ValueError, match=r"several models, other, small, .* stored; name one of them exactly"):
            vectors(service, tmp_path, batch_size=1, concurrency=1)
        assert len(service.asked) == 3


def test_precision_and_width_have_vectors_of_their_own(service, tmp_path):
    whole, _ = vectors(service, tmp_path, half=False)
    short, _ = vectors(service, tmp_path, dimensions=3)
    assert (whole.dtype, whole.shape, short.shape) == (np.float32, (N, 8), (N, 3))
    assert service.asked[-1]["body"]["dimensions"] == 3


def test_embedding_stops_at_the_budget_and_goes_on(service, tmp_path):
    # Four texts may cost up to 92 tokens and cost 28.
    with pytest.raises(ValueError, match="does not suffice"):
        vectors(service, tmp_path, price_in=1e6, budget=100.0, concurrency=1)
    assert len(service.asked) == 1
    vectors(service, tmp_path, price_in=1e6, budget=1000.0)
    assert len(service.asked) == 3


def test_a_record_of_vectors_says_what_they_cost_and_what_this_run_did(service, tmp_path):
    service.troubles = ["empty"]  # tells that it took 28 tokens
    _, record = vectors(service, tmp_path, price_in=1e6, concurrency=1)
    assert (record["price"], record["spent_in_this_run"]) == (9 * 7, 9 * 7 + 28)
    _, record = vectors(service, tmp_path, price_in=1e6)
    assert (record["price"], record["spent_in_this_run"]) == (9 * 7, 0)


def test_vectors_that_do_not_say_what_they_took_are_not_free(service, tmp_path):
    service.tells_usage = False
    _, record = vectors(service, tmp_path / "likely", price_in=1e6)  # nine texts of six letters by four
    assert record["tokens_in"] == record["price"] == record["spent_in_this_run"] == 6 + 6 + 2
    _, record = vectors(service, tmp_path / "most", price_in=1e6, budget=1e3)
    assert record["tokens_in"] == record["price"] == record["spent_in_this_run"] == 9 * (6 + 16)


def test_an_interrupt_keeps_the_vectors_under_way(service, tmp_path):
    service.troubles, service.delay = ["", "", "interrupt"], 0.1
    with pytest.raises(KeyboardInterrupt):
        vectors(service, tmp_path, batch_size=1, concurrency=3)
    assert 3 <= len(service.asked) < 9
    vectors(service, tmp_path, batch_size=1)
    assert len(service.asked) == 9


def test_an_estimate_asks_nobody(service, tmp_path):
    writer, encoder = ChatWriter(at(service, price_in=1.0, price_out=1.0)), HostedEncoder(at(service, price_in=1.0))
    whole = writer.estimate(ITEMS, PROMPT, Work(tmp_path))
    assert (whole.subjects, whole.to_make, whole.tokens_out) == (N, N, 400 * N)
    assert whole.price == pytest.approx((whole.tokens_in + whole.tokens_out) / 1e6)
    assert encoder.estimate(ITEMS, lambda: TEXTS, Work(tmp_path)).to_make == 9
    assert service.asked == []
    writer.write(ITEMS, PROMPT, Work(tmp_path))
    assert writer.estimate(ITEMS, PROMPT, Work(tmp_path)).to_make == 0
