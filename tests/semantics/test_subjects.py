"""Texts and prompts say of an item or a history what they should, in the right order, and no more."""

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from seqrec.catalog import Catalog
from seqrec.data.log import Log
from seqrec.data.prepare import prepare
from seqrec.semantics.prompts import DEFAULTS, Prompt
from seqrec.semantics.subjects import Histories, Items

CATALOG = Catalog(
    pl.DataFrame(
        {
            "item_id": ["a", "b", "c", "d"],
            "count": [1] * 4,
            "title": ["Red\n tea", None, "Milk", None],
            "text": ["x" * 600, None, "white", None],
            "categories": [["Food", "Tea"], ["Food", "Bread"], None, []],
            "brand": ["Leaf", None, None, None],
        }
    )
)
NAMES = ["Red tea", "Food, Bread", "Milk", "item d"]
EVENTS = np.array([0, 1, 2, 1, 2, 0, 2, 3, *[1] * 15, 2], dtype=np.int32)
OFFSETS = np.array([0, 3, 5, 8, 24])


def histories(window=20):
    starts, ends = np.array([0, 0, 3]), np.array([2, 3, 5])
    ids = pl.DataFrame({"user_id": ["u", "u", "v"], "n_events": [2, 3, 2]})
    return Histories(CATALOG, EVENTS, starts, ends, ids, window)


def test_an_item_is_told_with_what_is_known_and_what_is_not():
    items = Items(CATALOG, EVENTS, OFFSETS)
    assert items.ids["item_id"].to_list() == ["a", "b", "c", "d"]
    facts = items.facts(0)
    assert (facts["title"], facts["brand"], facts["categories"]) == ("Red tea", "Leaf", "Food, Tea")
    assert facts["description"] == "x" * 500
    assert facts["price"] == "not given"
    assert facts["histories"] == "none"  # it only ever came first
    assert items.facts(3)["title"] == "not given"


def test_an_item_is_quoted_from_histories_that_end_in_it():
    quotes = Items(CATALOG, EVENTS, OFFSETS).facts(2)["histories"].splitlines()
    assert quotes == [
        "Red tea >> Food, Bread >> Milk",
        "Food, Bread >> Milk",
        "Red tea >> Milk",
        " >> ".join(["Food, Bread"] * 10 + ["Milk"]),  # the newest eleven
    ]
    assert len(Items(CATALOG, EVENTS, OFFSETS, n_quotes=2).facts(2)["histories"].splitlines()) == 2
    assert Items(CATALOG, EVENTS, OFFSETS, n_quotes=0).facts(2)["histories"] == "none"
    assert len(Items(CATALOG, EVENTS, OFFSETS).facts(1)["histories"].splitlines()) == 5


def test_fewer_than_no_quotes_are_refused():
    with pytest.raises(ValueError, match="quotes is -1; quote at least 0"):
        Items(CATALOG, np.arange(0), np.zeros(1, dtype=np.int64), n_quotes=-1)


def test_a_history_is_told_oldest_first_and_summed_up_newest_first():
    assert histories().facts(1) == {"history": "- Red tea\n- Food, Bread\n- Milk"}
    assert histories(window=2).facts(1) == {"history": "- Food, Bread\n- Milk"}
    assert histories().summary(1) == "Mostly Food, Tea, Bread. Chosen, newest first: Milk; Food, Bread; Red tea"
    assert histories().facts(2) == {"history": "- Food, Bread\n- Milk"}
    with pytest.raises(ValueError, match="window is 0"):
        histories(window=0)


def test_a_template_text_of_an_item_is_its_title_and_categories():
    items = Items(CATALOG, EVENTS, OFFSETS, limit=3)
    assert items.summaries() == ["Red tea. Food, Tea", "Food, Bread", "Milk"]
    assert Items(CATALOG, EVENTS, OFFSETS).summary(3) == "item d"


@pytest.mark.parametrize("kind", ["items", "histories"])
def test_a_prompt_of_the_package_uses_every_fact_and_asks_for_the_right_things(kind):
    subjects = {"items": Items(CATALOG, EVENTS, OFFSETS), "histories": histories()}[kind]
    prompt = Prompt.read(DEFAULTS[kind]).about("groceries")
    system, user = prompt.messages(subjects.facts(2))
    assert (system["role"], user["role"]) == ("system", "user")
    assert "groceries" in system["content"]
    for fact in subjects.facts(2).values():
        assert fact in user["content"]
    assert "$" not in system["content"] + user["content"]
    wanted = {"items": ("80 words", "50 words", "JSON"), "histories": ("100 words", "one coherent paragraph")}[kind]
    assert all(re.search(each, user["content"], re.IGNORECASE) for each in wanted)


def test_a_prompt_is_known_by_its_text(tmp_path):
    own = tmp_path / "mine.txt"
    own.write_text("You know $domain.\n---\nSay: $history costs $$5")
    prompt = Prompt.read(own).about("tea")
    assert prompt.version.startswith("mine@")
    assert [message["content"] for message in prompt.messages({"history": "h"})] == ["You know tea.", "Say: h costs $5"]
    own.write_text("You know $domain.\n---\nSay $history!")
    assert Prompt.read(own).version != prompt.version
    with pytest.raises(ValueError, match=r"has the place \$history; known are \$domain, \$title"):
        Prompt.read(own).messages({"title": "t"})
    own.write_text("You know $domain.\n---\nSay: $history costs $5")
    with pytest.raises(ValueError, match=r"^The prompt mine@\w+ has a \$ without .*; write \$\$ for a dollar sign\.$"):
        Prompt.read(own).messages({"history": "h"})
    own.write_text("no line")
    with pytest.raises(ValueError, match=r"mine\.txt has no line of three hyphens"):
        Prompt.read(own)


@pytest.mark.parametrize("content", [None, b"Caf\xe9\n---\n$title"])
def test_a_prompt_that_cannot_be_read_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / "mine.txt").write_bytes(content)
    with pytest.raises(ValueError, match=r"The prompt .*mine\.txt cannot be read .*; name a text file in UTF-8"):
        Prompt.read(tmp_path / "mine.txt")


def test_brand_and_price_reach_a_prompt_from_the_files_of_a_shop(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("log.csv").write_text("user_id,item_id,timestamp\nu,a,1000000000\nu,b,1000000001\nv,a,1000000002\n")
    Path("items.csv").write_text("item_id,name,maker,cost\na,Tea,Leaf,3 EUR\nb,Milk,,\n")
    prepare("log.csv", items_file=Path("items.csv"), title_column="name", brand_column="maker", price_column="cost")
    catalog = Log.open("data/prepared/log").catalog
    items = Items(catalog, np.arange(0), np.zeros(1, dtype=np.int64))
    prompt = Prompt.read(DEFAULTS["items"])
    told, untold = (str(prompt.messages(items.facts(row))) for row in (0, 1))
    assert "Leaf" in told
    assert "3 EUR" in told
    assert untold.count("not given") > told.count("not given")
