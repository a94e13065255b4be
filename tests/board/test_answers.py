"""The four answers on top of the page: what they choose, the interval behind it, and when they choose nothing."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from made_runs import a_measured_run, a_run, a_study

from seqrec.board.answers import answers
from seqrec.board.gains import Gains, gains_of
from seqrec.board.results import read, tables_of
from seqrec.leaderboard import leaderboard


def answered(folder, minutes=10.0):
    (table,) = tables_of(read([folder]))
    return answers(table, gains_of(table.rows), minutes)


def test_a_clear_winner_is_named_with_the_interval_to_the_next(tmp_path):
    short, long, cold, quick = answered(a_study(tmp_path, n_users=3000, better=2.0))
    assert short.models == long.models == ("sasrec",)
    assert short.question.startswith("short histories (histories of at most ")
    assert " to gru4rec; " in short.why
    assert cold.question == "cold items (items at most 5 times in training)"
    assert quick.models == ("gru4rec",)  # sasrec takes 15 minutes
    assert "[+" in quick.why
    assert answered(tmp_path, minutes=15.0)[-1].models == ("sasrec",)


def test_nothing_is_chosen_where_nothing_was_trained(tmp_path):
    ranks = np.where(np.arange(400) % 2, 0, 8)
    for name, parameters in (("markov", 0), ("popularity", 0)):
        a_measured_run(tmp_path, name, ranks if name == "markov" else ranks + 9, parameters=parameters, dim=len(name))
    assert answered(tmp_path) == []
    a_measured_run(tmp_path, "sasrec", ranks + 20, parameters=9, dim=3)
    assert answered(tmp_path)[-1].models == ("SASRec (markov)",)


def test_what_the_data_cannot_tell_apart_is_said_with_the_quickest_of_them(tmp_path):
    short = answered(a_study(tmp_path, n_users=300, better=1.0))[0]
    assert {"sasrec", "gru4rec"} <= set(short.models)
    assert short.headline.startswith("not told apart: ")
    assert "[-" in short.why
    assert "trains fastest" in short.why


def test_a_row_is_told_apart_where_its_interval_lies_above_zero(tmp_path, monkeypatch):
    a_study(tmp_path, n_users=300)
    intervals = np.zeros((5, 5, 2))
    intervals[0, :, 0] = [0.0, 0.001, -0.001, 0.0, 0.002]
    drawn = SimpleNamespace(means=-np.arange(5.0), simultaneous=lambda: intervals)
    monkeypatch.setattr(Gains, "draws", lambda gains, group: drawn)
    (table,) = tables_of(read([tmp_path]))
    gains = gains_of(table.rows)
    found = answers(table, gains, minutes=10.0)[0]
    assert found.models == tuple(gains.rows[at].label for at in (0, 2, 3))


def test_each_question_looks_at_its_own_predictions(tmp_path):
    """One model knows short histories, the other long ones; each is chosen where it is better."""
    history = np.repeat([2, 30], 200)
    popularity = np.tile([1, 50], 200)
    for name, dim, good in (("short", 1, history < 10), ("long", 2, history > 10), ("cold", 3, popularity < 5)):
        a_measured_run(tmp_path, name, np.where(good, 0, 8), history, popularity, dim=dim)
    short, long, cold, _ = answered(tmp_path)
    assert [answer.models for answer in (short, long, cold)] == [
        ("SASRec (short)",), ("SASRec (long)",), ("SASRec (cold)",)
    ]  # fmt: skip
    assert short.question == "short histories (histories of at most 2 events)"
    assert long.question == "long histories (histories of at least 30 events)"
    assert "200 targets" in short.why


def test_a_row_that_lacks_the_ranks_of_a_seed_is_named_as_left_out(tmp_path):
    a_study(tmp_path, n_users=3000, better=2.0)
    assert "left out" not in answered(tmp_path)[0].why
    (tmp_path / "beauty" / "sasrec-seed2" / "ranks.parquet").unlink()
    for answer in answered(tmp_path)[:3]:
        assert answer.models == ("gru4rec",)
        assert answer.why.endswith("; left out, for lack of the ranks of a seed: sasrec")


def test_a_winner_that_knows_when_it_is_asked_is_named_with_that_caveat(tmp_path):
    for name, rank, knows in (("hstu-time", 0, True), ("hstu", 8, False)):
        a_measured_run(tmp_path, name, [rank] * 50, [3] * 50, [9] * 50, dim=rank + 1, reads_asked_at=knows)
    assert answered(tmp_path)[0].headline == "SASRec (hstu-time) (knows when it is asked)"
    assert answered(tmp_path)[-1].headline == "SASRec (hstu-time) (knows when it is asked)"


def test_times_of_different_machines_are_said_to_be_that(tmp_path):
    same = {"machine": "x86_64 AVX2, 2 cores, threads used: 2"}
    for kind, other in (("one", same), ("two", {"machine": "NVIDIA H200"}), ("unknown", {})):
        for name, rank, fields in (("sasrec", 0, same), ("hstu", 8, other)):
            a_measured_run(tmp_path / kind, name, [rank] * 50, [3] * 50, [9] * 50, dim=rank + 1, **fields)
    assert "timed on one machine" not in answered(tmp_path / "one")[-1].why
    for kind in ("two", "unknown"):
        assert "not all were timed on one machine" in answered(tmp_path / kind)[-1].why
    (table,) = tables_of(read([tmp_path / "unknown"]))
    assert {row.machines for row in table.rows} == {(same["machine"],), ("not recorded",)}


def test_a_row_whose_texts_tell_too_much_or_were_written_by_a_template_says_so(tmp_path):
    told = [
        {"vectors": "items", "text_source": "none", "leaky": False},
        {"vectors": "histories", "text_source": "template", "leaky": True},
    ]
    a_run(tmp_path, "leaky", texts=told)
    a_run(tmp_path, "fair", texts=told[:1], dim=32)
    a_run(tmp_path, "earlier", views=told[1:], dim=16)
    (table,) = tables_of(read([tmp_path]))
    caveats = {row.runs[0].folder.name: row.caveat for row in table.rows}
    assert caveats["fair"] == ""
    assert caveats["leaky"] == caveats["earlier"] == " (its texts tell of what is held out; texts by template)"


def test_nothing_is_chosen_where_nothing_can_be_said(tmp_path):
    for name, dim in (("one", 1), ("two", 2)):
        a_run(tmp_path / "bare", name, dim=dim)
        a_measured_run(tmp_path / "plain", name, [dim] * 50, dim=dim)
        a_measured_run(tmp_path / "warm", name, [dim] * 50, [5] * 50, [90] * 49 + [0], dim=dim)
    bare = answered(tmp_path / "bare")
    assert [answer.models for answer in bare] == [(), (), (), ()]
    assert "fewer than two rows kept the ranks" in bare[0].why
    assert "of 2 rows that trained that fast, 0 kept the ranks of their users" in bare[3].why
    assert "without the lengths of histories" in answered(tmp_path / "plain")[0].why
    assert answered(tmp_path / "warm")[2].why == "users with such targets: 1, which is too few"
    why = answered(tmp_path / "plain", minutes=0.1)[3].why
    assert why == "no row trained that fast; SASRec (one) trains fastest, in 1.5 minutes"


def test_intervals_cover_the_truth_of_a_group(tmp_path):
    """The difference of two models on short histories is .5 by construction."""
    random = np.random.default_rng(0)
    good = random.random(2000) < 0.5
    a_measured_run(tmp_path, "one", np.zeros(2000, dtype=int), [3] * 2000, [9] * 2000, dim=1)
    a_measured_run(tmp_path, "two", np.where(good, 0, 99), [3] * 2000, [9] * 2000, dim=2)
    short = answered(tmp_path)[0]
    low, high = (float(end) for end in short.why.partition("[")[2].partition("]")[0].split(", "))
    assert low < 0.5 < high
    assert high - low == pytest.approx(2 * 1.96 * 0.5 / np.sqrt(2000), rel=0.1)


def test_tables_of_counts_alone_come_last_and_are_named_in_one_sentence(tmp_path):
    for name, data, parameters in (("markov", "a-shop", 0), ("sasrec", "b-shop", 9), ("popularity", "c-shop", 0)):
        run = a_measured_run(tmp_path, name, np.arange(400) % 20, parameters=parameters, dim=len(name))
        result = json.loads((run / "result.json").read_text()) | {"data": data}
        result["passport"]["dataset"] = data
        (run / "result.json").write_text(json.dumps(result))
    leaderboard([tmp_path], tmp_path / "page")
    page = (tmp_path / "page.md").read_text()
    assert [line.split(",")[0] for line in page.splitlines() if line.startswith("## ") and "shop" in line] == [
        "## b-shop", "## a-shop", "## c-shop"
    ]  # fmt: skip
    named = "Only models that count were run on these, which are there to be beaten: a-shop, LeaveOneOut, seen items "
    assert named + "excluded; c-shop" in page
    assert named.split(":")[0] in (tmp_path / "page.html").read_text()
    assert "| a-shop, LeaveOneOut, seen items excluded | short histories" not in page
