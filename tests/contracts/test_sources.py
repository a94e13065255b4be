"""What every source must obey. A new one adds one line to ``CASES``."""

import gzip
from dataclasses import dataclass, field
from datetime import UTC, datetime

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqrec.data.errors import InputError
from seqrec.data.simulated import SimulatedShop
from seqrec.data.simulated_taste import SimulatedLongTaste
from seqrec.data.sources import CheckIns, RetailRocket, Table
from seqrec.data.sources_reviews import AmazonReviews, MovieLens, Yelp


@dataclass(frozen=True)
class Form:
    """How a source's file is written.

    Attributes:
        name: of the file.
        line: an interaction, with the cells that ``cells_of`` names.
        header: the first line, if there is one.
        beside: other files by name, which tell of the item 01.
    """

    name: str
    line: str
    header: str = ""
    beside: dict[str, str] = field(default_factory=dict)

    def text(self, rows) -> str:
        header = [self.header] if self.header else []
        return "".join(line + "\n" for line in [*header, *(self.line % cells_of(*row) for row in rows)])


def cells_of(user, item, second, rating):
    """The cells of one interaction, its time in every form; a second of None is no time in any of them."""
    cells = {"user": user, "item": item, "rating": rating}
    if second is None:
        return cells | dict.fromkeys(["second", "date", "iso", "long"], "soon")
    time = datetime.fromtimestamp(second, UTC)
    return cells | {
        "second": second,
        "date": time.strftime("%Y-%m-%d %H:%M:%S"),
        "iso": time.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "long": time.strftime("%a %b %d %H:%M:%S +0000 %Y"),
    }


CASES = [
    pytest.param(
        Table,
        {"rating": "stars", "title": "title"},
        Form(
            "interactions.csv",
            "%(user)s,%(item)s,%(second)s,%(rating)s",
            header="user_id,item_id,timestamp,stars",
            beside={"items.csv": "item_id,title\n01,Odd\n"},
        ),
        id="Table",
    ),
    pytest.param(
        MovieLens,
        {},
        Form(
            "u.data",
            "%(user)s\t%(item)s\t%(rating)s\t%(second)s",
            beside={"u.item": "01|Odd (1995)|01-Jan-1995||http://x" + 19 * "|0" + "\n"},
        ),
        id="MovieLens, 100K",
    ),
    pytest.param(
        MovieLens,
        {},
        Form(
            "ratings.dat",
            "%(user)s::%(item)s::%(rating)s::%(second)s",
            beside={"movies.dat": "01::Odd (1995)::Comedy|Drama\n"},
        ),
        id="MovieLens, 1M",
    ),
    pytest.param(
        MovieLens,
        {},
        Form(
            "ratings.csv",
            "%(user)s,%(item)s,%(rating)s,%(second)s",
            header="userId,movieId,rating,timestamp",
            beside={"movies.csv": "movieId,title,genres\n01,Odd (1995),Comedy|Drama\n"},
        ),
        id="MovieLens, with CSV",
    ),
    pytest.param(
        AmazonReviews,
        {},
        Form(
            "reviews_Beauty.json",
            '{"reviewerID": "%(user)s", "asin": "%(item)s", "overall": %(rating)s, "unixReviewTime": %(second)s}',
            beside={"meta_Beauty.json": '{"asin": "01", "title": "Odd", "categories": [["Beauty", "Skin"]]}\n'},
        ),
        id="AmazonReviews, 2014",
    ),
    pytest.param(
        AmazonReviews,
        {},
        Form(
            "All_Beauty.csv",
            "%(user)s,%(item)s,%(rating)s,%(second)s999",
            header="user_id,parent_asin,rating,timestamp",
            beside={"meta_All_Beauty.jsonl": '{"parent_asin": "01", "title": "Odd", "features": ["soft"]}\n'},
        ),
        id="AmazonReviews, 2023",
    ),
    pytest.param(
        AmazonReviews,
        {},
        Form(
            "All_Beauty.jsonl",
            '{"user_id": "%(user)s", "parent_asin": "%(item)s", "rating": %(rating)s, "timestamp": %(second)s999}',
        ),
        id="AmazonReviews, 2023 in JSON",
    ),
    pytest.param(
        Yelp,
        {},
        Form(
            "yelp_academic_dataset_review.json",
            '{"user_id": "%(user)s", "business_id": "%(item)s", "stars": %(rating)s, "date": "%(date)s"}',
            beside={
                "yelp_academic_dataset_business.json": '{"business_id": "01", "name": "Odd", "categories": "Tea"}\n'
            },
        ),
        id="Yelp",
    ),
    pytest.param(
        CheckIns,
        {},
        Form("loc-gowalla_totalCheckins.txt", "%(user)s\t%(iso)s\t30.2\t-97.7\t%(item)s"),
        id="CheckIns, Gowalla",
    ),
    pytest.param(
        CheckIns,
        {},
        Form("dataset_TSMC2014_NYC.txt", "%(user)s\t%(item)s\t4bf5\tTea Room\t40.7\t-74.0\t-240\t%(long)s"),
        id="CheckIns, Foursquare",
    ),
    pytest.param(
        RetailRocket,
        {},
        Form(
            "events.csv",
            "%(second)s999,%(user)s,view,%(item)s,",
            header="timestamp,visitorid,event,itemid,transactionid",
        ),
        id="RetailRocket",
    ),
    pytest.param(SimulatedShop, {"users": 20, "items": 60, "mean_events": 8.0}, None, id="SimulatedShop"),
    pytest.param(SimulatedLongTaste, {"users": 20, "items": 760}, None, id="SimulatedLongTaste"),
]
each_source = pytest.mark.parametrize(("build", "arguments", "form"), CASES)
each_source_of_a_file = pytest.mark.parametrize(("build", "arguments", "form"), [c for c in CASES if c.values[2]])

BASE = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64}
RATED = {**BASE, "rating": pl.Float32}
ITEMS = {"item_id": pl.String, "title": pl.String, "text": pl.String, "categories": pl.List(pl.String)}
ITEMS |= {"brand": pl.String, "price": pl.String}
# Ids that differ by their zeros alone, times that go back, and an interaction that happened twice.
ROWS = [("007", "1", 1_300_000_000, 4.0), ("7", "01", 1_200_000_000, 0.5), ("007", "1", 1_300_000_000, 4.0)]

ids = st.text("0123456789abcXYZ_", min_size=1, max_size=8)
more_rows = st.lists(
    st.tuples(ids, ids, st.integers(10**8, 2**31), st.integers(1, 10).map(lambda n: n / 2)), max_size=9
)


def ready(build, arguments, form, folder, rows=ROWS):
    """The source, which reads these rows where it reads a file."""
    if form is None:
        return build(**arguments)
    for name, text in {**form.beside, form.name: form.text(rows)}.items():
        (folder / name).write_text(text)
    return build(folder, **arguments)


def refused(source, *words):
    with pytest.raises(InputError) as caught:
        source.read().collect()
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    for word in words:
        assert word in message


@each_source
def test_it_yields_the_columns_of_a_log_and_raw_ids_as_strings(build, arguments, form, tmp_path):
    read = ready(build, arguments, form, tmp_path).read()
    assert isinstance(read, pl.LazyFrame)
    assert dict(read.collect_schema()) in (BASE, RATED)
    assert read.collect().schema == read.collect_schema()


@each_source_of_a_file
@settings(max_examples=8)
@given(rows=more_rows)
def test_every_interaction_is_read_in_the_order_of_the_file(build, arguments, form, tmp_path_factory, rows):
    rows = [*ROWS, *rows]
    table = ready(build, arguments, form, tmp_path_factory.mktemp("source"), rows).read().collect()
    assert table.select(BASE.keys()).rows() == [row[:3] for row in rows]
    if "rating" in table.columns:
        assert table["rating"].to_list() == [rating for *_, rating in rows]


@each_source
def test_the_same_input_twice_gives_the_same_rows_and_stays_as_it_was(build, arguments, form, tmp_path):
    source, again = (ready(build, arguments, form, tmp_path) for _ in range(2))
    files = {path: path.read_bytes() for path in tmp_path.iterdir()}
    log, items = source.read().collect(), source.items()
    for other in (source, again):
        assert other.read().collect().equals(log)
        listed = other.items()
        assert (listed is None) == (items is None)
        if items is not None:
            assert listed.collect().equals(items.collect())
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == files


@each_source
def test_what_it_tells_of_items_is_typed_and_speaks_of_raw_ids(build, arguments, form, tmp_path):
    source = ready(build, arguments, form, tmp_path)
    items = source.items()
    if items is None:
        pytest.skip("tells nothing of its items")
    schema = dict(items.collect_schema())
    assert schema.items() <= ITEMS.items()
    found = items.collect()
    assert dict(found.schema) == schema
    assert found["item_id"].null_count() == 0
    assert set(found["item_id"]) & set(source.read().collect()["item_id"])


@each_source_of_a_file
@pytest.mark.parametrize(
    "content", [None, b"", b"\n\n", b"hello,world\n1,2\n"], ids=["absent", "empty", "blank", "another"]
)
def test_a_file_that_holds_no_log_is_refused_in_one_sentence(build, arguments, form, tmp_path, content):
    source = ready(build, arguments, form, tmp_path)
    (tmp_path / form.name).unlink()
    if content is not None:
        (tmp_path / form.name).write_bytes(content)
    refused(source, str(tmp_path))


@each_source_of_a_file
def test_an_archive_cut_short_is_refused_in_one_sentence(build, arguments, form, tmp_path):
    source = ready(build, arguments, form, tmp_path)
    whole = gzip.compress((tmp_path / form.name).read_bytes())
    (tmp_path / form.name).unlink()
    (tmp_path / f"{form.name}.gz").write_bytes(whole[: len(whole) // 2])
    refused(source, str(tmp_path))


@each_source_of_a_file
@pytest.mark.parametrize(
    "row", [("", "1", 1_300_000_000, 4.0), ("7", "", 1_300_000_000, 4.0), ("7", "1", None, 4.0)], ids=BASE.keys()
)
def test_an_interaction_without_user_item_or_time_is_refused_with_its_line(build, arguments, form, tmp_path, row):
    source = ready(build, arguments, form, tmp_path, [*ROWS, row, *ROWS])
    refused(source, str(tmp_path), f"line {4 + bool(form.header)}")
