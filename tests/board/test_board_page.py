"""The page in a real browser: it draws without a network, sorts, filters and gives its answers on top."""

import sys
from pathlib import Path

import pytest
from made_runs import a_study

from seqrec.leaderboard import leaderboard

sys.path.append(str(Path(__file__).parents[1] / "serving"))  # one way to start a browser for all pages

from browsers import chromium


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    for number, data in enumerate(("beauty", "toys")):
        a_study(folder / "runs", data=data, better=2.0, seed=number)
    leaderboard(folder / "runs", folder / "leaderboard")
    return folder / "leaderboard.html"


@pytest.fixture(scope="module")
def browser(page):
    with chromium(1400, 1000) as browser:
        browser.execute_cdp_cmd("Network.enable", {})
        browser.execute_cdp_cmd("Network.emulateNetworkConditions", {
            "offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0,
        })  # fmt: skip
        browser.get(page.as_uri())
        yield browser


def labels(browser) -> list[str]:
    """The rows of the first table that are shown, in order."""
    return browser.execute_script(
        "return [...document.querySelector('.board').tBodies[0].rows].filter(row => !row.hidden)"
        ".map(row => row.cells[0].textContent)"
    )


def test_it_is_one_file_that_asks_nobody_else(page):
    text = page.read_text()
    assert "<script src" not in text
    assert "<link" not in text


def test_it_draws_every_figure_and_complains_of_nothing(browser):
    drawn = browser.execute_script(
        "return [...document.querySelectorAll('.plotly-graph-div')]"
        ".map(each => each.querySelectorAll('path,rect').length)"
    )
    assert len(drawn) == 2 * 5 + 1
    assert min(drawn) > 5
    captions = browser.execute_script(
        "return [...document.querySelectorAll('figcaption')].map(each => each.textContent)"
    )
    for words in ("Against sasrec", "Quality and cost", "By length of history", "Coverage", "Learning curves"):
        assert sum(words in caption for caption in captions) == 2
    assert [each for each in browser.get_log("browser") if each["level"] == "SEVERE"] == []


def test_the_answers_stand_on_top(browser):
    top = browser.execute_script(
        "const box = document.querySelector('#choices').getBoundingClientRect();"
        "const first = document.querySelector('section.table').getBoundingClientRect();"
        "return box.top + scrollY < first.top + scrollY && box.top + scrollY < 120"
    )
    assert top
    said = browser.find_element("css selector", "#choices").text
    for words in ("short histories", "long histories", "cold items", "training in at most 10 minutes"):
        assert said.count(words) >= 2


def test_a_click_sorts_by_number_and_another_turns_it_round(browser):
    table = browser.find_element("css selector", ".board")
    head = table.find_elements("css selector", "th button")[5]
    assert "ndcg@10" in head.text.lower()
    head.click()
    assert labels(browser)[0] == "sasrec"
    assert labels(browser)[-1] == "popularity"
    head.click()
    assert labels(browser) == ["popularity", "popularity-7-days", "markov", "gru4rec", "sasrec"]


def test_a_filter_keeps_the_rows_that_hold_all_words(browser):
    field = browser.find_element("css selector", ".filter input")
    field.send_keys("pop days")
    assert labels(browser) == ["popularity-7-days"]
    field.clear()
    field.send_keys(" ")
    assert len(labels(browser)) == 5
