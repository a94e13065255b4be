"""The page in a real browser: what a person does on it, by keyboard, on a phone, and when things go wrong."""

import time

import polars as pl
import pytest
from browsers import chromium
from small_bundles import TIMED, a_bundle, a_catalog

from seqrec.catalog import Catalog
from seqrec.export.retriever import Retriever

By = pytest.importorskip("selenium.webdriver.common.by").By
ActionChains = pytest.importorskip("selenium.webdriver.common.action_chains").ActionChains
Keys = pytest.importorskip("selenium.webdriver.common.keys").Keys
StaleElementReferenceException = pytest.importorskip("selenium.common").StaleElementReferenceException

TRAP = "<img src=x onerror=\"document.title='taken'\"><b>bold</b>"


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def service(start_once, windowed, streaming):
    return start_once(f"--bundle={windowed}", f"--compare={streaming}")


@pytest.fixture
def page(browser, service):
    return Page(browser, service.url)


class Page:
    """The page as a person sees it."""

    def __init__(self, browser, url):
        self.browser = browser
        browser.get("about:blank")
        browser.get(url)

    def all(self, selector):
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector):
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector):
        """What it says; where it is drawn anew while it is read, once more."""
        try:
            return self.one(selector).text
        except StaleElementReferenceException:
            time.sleep(0.2)
            return self.one(selector).text

    def texts(self, selector):
        return [each.text for each in self.all(selector)]

    def wait(self, holds, seconds=20.0):
        """Until it holds; what is drawn anew meanwhile is looked at again."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                if holds():
                    return
            except StaleElementReferenceException:
                pass
            assert time.monotonic() < deadline, self.text("body")
            time.sleep(0.05)

    def press(self, *keys):
        """Keys of the keyboard, for whatever has the focus when they arrive."""
        for key in keys:
            ActionChains(self.browser).send_keys(key).perform()

    def type(self, words):
        self.one("#search").click()
        self.one("#search").send_keys(words)

    def add(self, raw_id):
        """Type a raw id and press Enter."""
        n = len(self.all("#history li"))
        self.type(raw_id)
        self.press(Keys.ENTER)
        self.wait(lambda: len(self.all("#history li")) == n + 1)

    def next_ids(self, place=0):
        return [each.text for each in self.all("#lists .items")[place].find_elements(By.CSS_SELECTOR, ".id")]

    def shows(self, ids, place=0):
        self.wait(lambda: self.all("#lists .items") and self.next_ids(place) == ids)


def best(folder, history, k=10, **more):
    return [each.item_id for each in Retriever.load(folder).recommend(history, k, **more)]


def test_an_empty_history_says_what_to_do(page):
    page.wait(lambda: "Nothing to go on yet" in page.text("#said"))
    assert page.texts("#history li") == []
    assert not page.one("#clear").is_enabled()
    assert not page.one("#trouble").is_displayed()
    page.wait(lambda: page.text("#models") == "windowed (200 items) beside streaming (200 items)")


def test_items_are_found_by_title_and_every_addition_is_answered_anew(page, windowed):
    page.type("thing 17 green")
    page.wait(lambda: "Green thing number 17" in page.text("#found"))
    page.press(Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_UP, Keys.ENTER)
    page.wait(lambda: len(page.texts("#history li")) == 1)
    first = page.text("#history li .id")
    assert page.text("#history li .title").startswith("Green thing number")
    assert not page.one("#found").is_displayed()
    page.shows(best(windowed, [first]))
    chosen = page.next_ids()[2]
    page.all("#lists .items")[0].find_elements(By.CSS_SELECTOR, "li > button")[2].click()
    page.shows(best(windowed, [first, chosen]))
    assert page.text("#history-title") == "History (2)"
    page.wait(lambda: len(page.all("#history .measure")) == 2)
    page.all("#history button")[0].click()
    page.shows(best(windowed, [chosen]))


def test_two_models_stand_side_by_side(page, windowed, streaming):
    page.add("item-007")
    page.shows(best(windowed, ["item-007"]))
    page.shows(best(streaming, ["item-007"]), place=1)
    assert page.texts("#lists h3") == ["windowed", "streaming"]
    left, right = page.all("#lists .list")
    assert left.rect["y"] == right.rect["y"]
    assert right.rect["x"] >= left.rect["x"] + left.rect["width"]


def test_it_says_which_events_mattered_and_for_what(page, service):
    for raw_id in ("item-007", "item-050", "nonsense", "item-120"):
        page.add(raw_id)
    page.wait(lambda: len(page.all("#history .measure")) == 3)
    page.wait(lambda: page.texts("#history li .id")[2] == "not in the catalog, so skipped")
    target = page.next_ids()[4]
    page.all("#lists .items")[0].find_elements(By.XPATH, ".//button[text()='Why?']")[4].click()
    title = f"thing number {int(target[-3:])}”"
    page.wait(lambda: title in page.text("#why"))
    asked = {"history": ["item-007", "item-050", "nonsense", "item-120"], "target": target}
    told = [each["influence"] for each in service.post("/influence", asked).json()["events"]]
    wanted = [f"{'−' if fall < 0 else '+'}{abs(fall):.2f}" for fall in told if fall is not None]
    page.wait(lambda: page.texts("#history .number") == wanted)


def test_an_item_that_the_second_model_alone_knows_has_its_title(browser, start_once, windowed, tmp_path):
    larger = a_bundle(tmp_path / "larger", catalog=a_catalog(300))
    service = start_once(f"--bundle={windowed}", f"--compare={larger}", f"--store={tmp_path / 'events.sqlite'}")
    page = Page(browser, f"{service.url}/#item-007,item-250,item-900")
    page.shows(best(larger, ["item-007", "item-250"]), place=1)
    page.wait(lambda: page.texts("#history .title") == ["Green thing number 7", "Green thing number 250", "item-900"])
    assert page.texts("#history .id") == ["item-007", "item-250", "not in the catalog, so skipped"]
    page.type("number 251")
    page.wait(lambda: "Blue thing number 251" in page.text("#found"))
    page.press(Keys.ENTER)
    page.shows(best(larger, ["item-007", "item-250", "item-251"]), place=1)
    assert page.texts("#history .title")[3] == "Blue thing number 251"


def test_similar_items_can_be_walked_through(page, windowed):
    page.add("item-007")
    page.wait(lambda: page.all("#lists .items li"))
    item = page.next_ids()[0]
    page.one("#lists .items").find_elements(By.XPATH, ".//button[text()='Similar']")[0].click()
    retriever = Retriever.load(windowed)
    similar = [each.item_id for each in retriever.similar(item, 6)]
    page.wait(lambda: page.texts("#similar .id") == similar)
    page.all("#similar .row button")[1].click()
    page.wait(lambda: page.texts("#similar .id") == [each.item_id for each in retriever.similar(similar[1], 6)])


def test_unknown_items_alone_leave_nothing_to_go_on(page):
    page.add("no such item")
    page.wait(lambda: "nothing to go on" in page.text("#said"))
    assert page.texts("#history li .title") == ["no such item"]
    assert page.texts("#lists .items li") == []
    page.one("#clear").click()
    page.wait(lambda: "Nothing to go on yet" in page.text("#said"))


def test_the_length_and_what_is_left_out_can_be_chosen(page, windowed):
    page.add("item-007")
    page.one("#k").send_keys("20")
    page.shows(best(windowed, ["item-007"], 20))
    page.one("#exclude").click()
    page.shows(best(windowed, ["item-007"], 20, exclude_seen=False))


def test_all_of_it_works_by_keyboard(page, windowed):
    page.one("#search").send_keys("")
    page.press("item-007", Keys.ENTER)
    page.shows(best(windowed, ["item-007"]))

    def focused():
        """In one step, for the page may draw its lists anew between two."""
        return page.browser.execute_script("return document.activeElement.getAttribute('aria-label') || ''")

    for _ in range(12):
        page.press(Keys.TAB)
        if focused().startswith("Add "):
            break
    assert focused().startswith("Add ")
    outline = page.browser.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid", "one sees where the focus is"
    chosen = page.next_ids()[0]
    page.press(Keys.ENTER)
    page.shows(best(windowed, ["item-007", chosen]))
    page.wait(lambda: focused().startswith("Add "))  # the focus stays in the list that was drawn anew
    for _ in range(30):
        if focused().startswith("Remove "):
            break
        ActionChains(page.browser).key_down(Keys.SHIFT).send_keys(Keys.TAB).key_up(Keys.SHIFT).perform()
    page.press(Keys.ENTER)
    page.wait(lambda: len(page.all("#history li")) == 1)
    page.wait(lambda: focused().startswith("Remove "))
    page.press(Keys.ENTER)
    page.wait(lambda: page.browser.switch_to.active_element.get_attribute("id") == "search")


def test_a_link_brings_the_history_back(page, windowed):
    page.add("item-007")
    page.add("item-050")
    page.browser.refresh()
    page.shows(best(windowed, ["item-007", "item-050"]))
    page.wait(lambda: page.texts("#history .title") == ["Green thing number 7", "Blue thing number 50"])


def test_another_link_is_explained_by_its_own_first_recommendation(page):
    page.add("item-007")
    page.add("item-050")
    page.wait(lambda: page.all("#history .measure"))
    page.one("#lists .items").find_elements(By.XPATH, ".//button[text()='Why?']")[4].click()
    chosen = f"thing number {int(page.next_ids()[4][-3:])}”"
    page.wait(lambda: chosen in page.text("#why"))
    page.browser.execute_script("location.hash = '#item-001,item-002'")
    page.wait(lambda: page.texts("#history .title") == ["Green thing number 1", "Blue thing number 2"])
    assert f"thing number {int(page.next_ids()[0][-3:])}”" in page.text("#why")


def test_a_link_that_broke_on_its_way_brings_back_what_it_can(browser, service, windowed):
    page = Page(browser, f"{service.url}/#item-001,50%zz,item-002")
    page.shows(best(windowed, ["item-001", "item-002"]))
    assert page.texts("#history li .id") == ["item-001", "item-002"]


def test_a_link_of_more_events_than_can_be_explained_brings_the_newest(browser, service):
    page = Page(browser, f"{service.url}/#" + ",".join(f"item-{n % 150:03d}" for n in range(230)))
    page.wait(lambda: page.all("#history .measure"))
    assert page.text("#history-title") == "History (200)"
    assert not page.one("#trouble").is_displayed()


@pytest.mark.parametrize("width", [320, 375])
def test_nothing_sticks_out_on_a_phone(page, width):
    size = {"width": width, "height": 700, "deviceScaleFactor": 1, "mobile": True}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        page.add("item-007")
        page.add("x" * 120)
        page.wait(lambda: page.all("#lists .items li"))
        page.all(".items .row button")[1].click()
        page.wait(lambda: page.texts("#similar .id"))
        assert page.browser.execute_script("return document.documentElement.scrollWidth") <= width
        for each in page.all("main button"):
            assert each.rect["height"] >= 40, "large enough for a finger"
            assert each.rect["x"] + each.rect["width"] <= width
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_nothing_comes_from_elsewhere_and_nothing_is_complained_about(page, service):
    page.browser.get_log("browser")
    page.add("item-007")
    page.wait(lambda: page.all("#lists .items li"))
    script = "return performance.getEntriesByType('resource').map((each) => each.name)"
    loaded = page.browser.execute_script(script)
    assert any(each.endswith("/page/app.js") for each in loaded)
    assert all(each.startswith((service.url, "data:")) for each in loaded), loaded
    assert page.browser.get_log("browser") == []
    page.browser.get(f"{service.url}/docs")
    page.wait(lambda: "/recommend" in page.text("body"))
    loaded = page.browser.execute_script(script)
    assert all(each.startswith((service.url, "data:")) for each in loaded), loaded


def test_when_the_service_goes_away_it_says_so_and_goes_on_when_it_is_back(browser, start, windowed):
    service = start(f"--bundle={windowed}")
    page = Page(browser, service.url)
    page.add("item-007")
    page.shows(best(windowed, ["item-007"]))
    service.kill()
    page.all("#lists .items li > button")[0].click()
    page.wait(lambda: page.one("#trouble").is_displayed())
    assert page.text("#trouble").startswith("The service does not answer. Trying again")
    chosen = page.texts("#history li .id")
    assert len(chosen) == 2
    start(f"--bundle={windowed}", port=int(service.url.rpartition(":")[2]))
    page.wait(lambda: not page.one("#trouble").is_displayed())
    page.shows(best(windowed, chosen))


def test_a_bundle_that_takes_the_place_of_another_is_asked_in_its_own_way(browser, start, own_bundle, tmp_path):
    timed = a_bundle(tmp_path / "timed", TIMED)
    service = start(f"--bundle={own_bundle}", "--watch=0.1")
    page = Page(browser, service.url)
    page.add("item-007")
    page.shows(best(own_bundle, ["item-007"]))
    own_bundle.rename(tmp_path / "old")
    timed.rename(own_bundle)
    page.wait(lambda: service.get("/health").json()["models"]["bundle"]["exchanges"] == 1)
    page.one("#lists .items").find_elements(By.XPATH, ".//button[text()='Why?']")[4].click()
    asked_at = int(time.time())
    page.shows(best(own_bundle, ["item-007"], times=[asked_at], asked_at=asked_at))
    assert not page.one("#trouble").is_displayed()


def test_a_service_that_comes_back_without_its_second_model_is_asked_for_one(browser, start, windowed, streaming):
    service = start(f"--bundle={windowed}", f"--compare={streaming}")
    page = Page(browser, service.url)
    page.add("item-007")
    page.shows(best(streaming, ["item-007"]), place=1)
    service.kill()
    start(f"--bundle={windowed}", port=int(service.url.rpartition(":")[2]))
    page.add("item-050")
    page.shows(best(windowed, ["item-007", "item-050"]))
    assert len(page.all("#lists .list")) == 1
    assert page.text("#models") == "windowed (200 items)"
    assert not page.one("#trouble").is_displayed()


@pytest.fixture(scope="module")
def guarded(start_once, tmp_path_factory):
    """A service that asks for a key, over titles that are traps."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "keys").write_text("open sesame\n")
    table = a_catalog().table.with_columns(title=pl.concat_str(pl.lit(TRAP), pl.col("item_id")))
    bundle = a_bundle(folder / "bundle", catalog=Catalog(table))
    return bundle, start_once(f"--bundle={bundle}", f"--api_keys={folder / 'keys'}", f"--store={folder / 'e.sqlite'}")


def test_a_service_that_asks_for_a_key_is_given_it(browser, guarded):
    bundle, service = guarded
    page = Page(browser, service.url + "/#item-007")
    page.wait(lambda: page.one("#key").is_displayed())
    page.one("#key").send_keys("open sesame", Keys.ENTER)
    page.shows(best(bundle, ["item-007"]))
    assert not page.one("#key").is_displayed()
    assert not page.one("#trouble").is_displayed()


def test_a_title_is_text_and_never_markup(browser, guarded):
    page = Page(browser, guarded[1].url + "/#item-007")
    page.wait(lambda: page.one("#key").is_displayed() or page.all("#lists .items li"))
    if page.one("#key").is_displayed():
        page.one("#key").send_keys("open sesame", Keys.ENTER)
    page.wait(lambda: TRAP in page.text("#lists"))
    page.type("img")
    page.wait(lambda: TRAP in page.text("#found"))
    assert page.browser.title == "seqrec: which item comes next?"
    assert page.all("main img") == []
