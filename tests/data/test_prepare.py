"""What a prepared data set is, whatever it was made from."""

import json
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqrec.data.errors import InputError
from seqrec.data.events import to_seconds, unit_of
from seqrec.data.filters import Duplicates, stable_order
from seqrec.data.log import Log
from seqrec.data.prepare import _name_of, prepare, prepare_log
from seqrec.data.sources import RetailRocket, Source, Table
from seqrec.data.sources_reviews import AmazonReviews

ROWS = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 4), st.integers(1, 5)), min_size=2, max_size=60
).filter(lambda rows: len({row[0] for row in rows}) > 1)


class Rows(Source):
    """A source made of Python rows: user, item, time, and a rating if there are four."""

    def __init__(self, rows, items: pl.DataFrame | None = None) -> None:
        users, things, times, *ratings = zip(*rows, strict=True)
        table = {"user_id": [f"u{user}" for user in users], "item_id": [f"i{thing}" for thing in things]}
        self.table = pl.DataFrame(table | {"timestamp": pl.Series(times, dtype=pl.Int64)})
        if ratings:
            self.table = self.table.with_columns(rating=pl.Series(ratings[0], dtype=pl.Float32))
        self.described = items

    def read(self) -> pl.LazyFrame:
        return self.table.lazy()

    def items(self) -> pl.LazyFrame | None:
        return None if self.described is None else self.described.lazy()


VISITS = "who,item_id,timestamp\n007,a,1000000000\n7,a,1000000001\n7,b,1000000002\n"


def histories(log: Log) -> dict[str, list[tuple[str, int]]]:
    """What the arrays say, in raw ids."""
    ids = log.catalog.ids.to_list()
    return {
        user: [(ids[item], int(time)) for item, time in zip(log.items[a:b], log.times[a:b], strict=True)]
        for user, a, b in zip(log.users, log.offsets[:-1], log.offsets[1:], strict=True)
    }


def expected(rows) -> dict[str, list[tuple[str, int]]]:
    """The same by the plainest Python: group by user, sort by time, keep the order of the file within ties."""
    grouped: dict[str, list[tuple[str, int]]] = {}
    for user, item, time, *_ in rows:
        grouped.setdefault(f"u{user}", []).append((f"i{item}", time))
    return {user: sorted(events, key=lambda event: event[1]) for user, events in sorted(grouped.items())}


@given(rows=ROWS)
@settings(max_examples=25, deadline=None)
def test_histories_hold_every_event_in_time_order_with_ties_in_file_order(tmp_path_factory, rows):
    log = prepare_log(Rows(rows), tmp_path_factory.mktemp("log") / "log")
    assert histories(log) == expected(rows)
    counts = Counter(f"i{row[1]}" for row in rows)
    assert dict(zip(log.catalog.ids, log.catalog.counts.tolist(), strict=True)) == counts
    assert (log.items.dtype, log.times.dtype, log.offsets.dtype) == (np.int32, np.int64, np.int64)


@given(rows=ROWS, user_core=st.integers(0, 4), item_core=st.integers(0, 4), policy=st.sampled_from(Duplicates))
@settings(max_examples=40, deadline=None)
def test_duplicates_and_core_agree_with_a_plain_loop(tmp_path_factory, rows, user_core, item_core, policy):
    kept = [(user, item, time) for user, events in expected(rows).items() for item, time in events]
    if policy is not Duplicates.keep_all:
        step = 1 if policy is Duplicates.keep_first else -1
        once = {(user, item): place for place, (user, item, _) in list(enumerate(kept))[::-step]}
        kept = [kept[place] for place in sorted(once.values())]
    before = None
    while before != len(kept):
        before = len(kept)
        users, items = Counter(row[0] for row in kept), Counter(row[1] for row in kept)
        kept = [row for row in kept if users[row[0]] >= user_core and items[row[1]] >= item_core]
    folder = tmp_path_factory.mktemp("log") / "log"
    arguments = {"duplicates": policy, "user_core": user_core, "item_core": item_core}
    if len({row[0] for row in kept}) < 2:
        with pytest.raises(ValueError, match=r"No interactions are left|Only one user"):
            prepare_log(Rows(rows), folder, **arguments)
        assert not folder.exists()
        return
    log = prepare_log(Rows(rows), folder, **arguments)
    assert [(user, *event) for user, events in histories(log).items() for event in events] == kept
    assert sorted({row[1] for row in kept}) == log.catalog.ids.to_list()


@given(values=st.lists(st.integers(-(2**62), 2**62) | st.integers(0, 5), max_size=50))
def test_the_packed_sort_is_a_stable_sort(values):
    array = np.array(values, dtype=np.int64)
    assert stable_order(array).tolist() == np.argsort(array, kind="stable").tolist()


def test_low_ratings_and_short_histories_are_left_out(tmp_path):
    rows = [
        (1, 1, 0, 5),
        (1, 2, 1, 4),
        (1, 3, 2, 1),
        (2, 1, 0, 5),
        (2, 2, 1, 3),
        (3, 4, 0, 5),
        (4, 1, 9, 4),
        (4, 5, 8, 4),
    ]
    log = prepare_log(Rows(rows), tmp_path / "log", min_rating=4.0, min_length=2)
    assert histories(log) == {"u1": [("i1", 0), ("i2", 1)], "u4": [("i5", 8), ("i1", 9)]}
    assert log.manifest["counts"]["read"]["interactions"] == 6
    assert log.manifest["counts"]["kept"] == {"users": 2, "items": 3, "interactions": 4}


def test_a_rating_that_is_no_number_is_none(tmp_path):
    rows = [(1, 1, 0, 5), (1, 2, 1, float("nan")), (2, 1, 0, 4)]
    log = prepare_log(Rows(rows), tmp_path / "log", min_rating=4.0)
    assert histories(log) == {"u1": [("i1", 0)], "u2": [("i1", 0)]}
    assert len(prepare_log(Rows(rows), tmp_path / "all").items) == 3


def test_same_rows_in_another_chunking_give_the_same_bytes(tmp_path):
    random = np.random.default_rng(0)
    rows = [tuple(row) for row in random.integers(0, 50, (500, 3)).tolist()]
    whole, parts = Rows(rows), Rows(rows)
    parts.table = pl.concat([parts.table[start : start + 7] for start in range(0, 500, 7)], rechunk=False)
    for source, name in ((whole, "a"), (parts, "b")):
        prepare_log(source, tmp_path / name, origin="rows")
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == ["catalog.parquet", "items.npy", "manifest.json", "offsets.npy", "times.npy", "users.parquet"]
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_ties_are_counted_by_hand(tmp_path):
    rows = [(1, 1, 5), (1, 2, 5), (1, 3, 6), (2, 1, 7), (2, 2, 8), (2, 3, 8), (2, 4, 8), (3, 1, 8)]
    manifest = prepare_log(Rows(rows), tmp_path / "log").manifest
    assert manifest["share_of_tied_events"] == 5 / 8
    assert manifest["share_of_users_with_tied_last_event"] == pytest.approx(1 / 3)


def test_the_first_event_of_all_is_tied_to_none_before_it(tmp_path):
    manifest = prepare_log(Rows([(1, 1, 5), (2, 1, 6), (2, 2, 7), (2, 3, 7), (3, 1, 7)]), tmp_path / "log").manifest
    assert manifest["share_of_tied_events"] == 2 / 5
    assert manifest["share_of_users_with_tied_last_event"] == pytest.approx(1 / 3)


def test_titles_and_categories_are_joined_in_row_order_and_strangers_left_out(tmp_path):
    items = pl.DataFrame(
        {
            "item_id": ["i9", "i2", "i1", "i2"],
            "title": ["nine", "two", "one", "again"],
            "categories": [["a"], ["b"], [], []],
        }
    )
    log = prepare_log(Rows([(1, 1, 0), (1, 2, 1), (2, 3, 0)], items), tmp_path / "log")
    assert log.catalog.table.columns == ["item_id", "count", "title", "categories"]
    assert log.catalog.titles.to_list() == ["one", "two", "i3"]
    assert log.catalog.table["categories"].to_list() == [[], ["b"], None]


def test_a_whole_folder_is_used_again_and_a_broken_or_different_one_is_not(tmp_path):
    folder, rows, other = tmp_path / "log", Rows([(1, 1, 0), (2, 2, 0)]), Rows([(1, 1, 0), (2, 2, 0), (3, 3, 0)])
    first = prepare_log(rows, folder, origin="a").manifest["fingerprint"]
    assert prepare_log(other, folder, origin="a").manifest["fingerprint"] == first
    assert len(prepare_log(other, folder, origin="a", force=True).users) == 3
    assert len(prepare_log(rows, folder, origin="b").users) == 2
    assert len(prepare_log(other, folder, origin="b", min_length=1, duplicates=Duplicates.keep_last).users) == 3
    (folder / "times.npy").write_bytes(b"")
    assert len(prepare_log(rows, folder, origin="b", duplicates=Duplicates.keep_last).users) == 2
    (folder / "manifest.json").write_text("{}")
    assert len(prepare_log(rows, folder, origin="b", duplicates=Duplicates.keep_last).users) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_times_that_count_events_are_positions():
    assert unit_of(np.array([0, 1, 2313]), Rows([(1, 1, 1)])) == "position"
    assert unit_of(np.array([20_240_131, 20_241_301]), Rows([(1, 1, 1)])) == "position"  # there is no month 13


def test_days_written_as_numbers_are_no_positions(tmp_path):
    rows = Rows([(1, 1, 20_240_131), (1, 2, 20_240_201), (2, 1, 19_991_231)])
    with pytest.raises(
        InputError, match="days written as one number in column timestamp, such as 20240131; write them"
    ):
        prepare_log(rows, tmp_path / "log")
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize(("unit", "per_second"), [("second", 1), ("millisecond", 10**3), ("nanosecond", 10**9)])
def test_clocks_of_any_one_unit_become_seconds(unit, per_second):
    times = np.array([1_000_000_000, 1_700_000_000]) * per_second
    assert unit_of(times, Rows([(1, 1, 1)])) == unit
    assert to_seconds(times, unit).tolist() == [1_000_000_000, 1_700_000_000]


def test_milliseconds_order_events_of_the_same_second(tmp_path):
    rows = [(1, 1, 1_700_000_000_900), (1, 2, 1_700_000_000_100), (2, 1, 1_700_000_000_000)]
    log = prepare_log(Rows(rows), tmp_path / "log")
    assert histories(log)["u1"] == [("i2", 1_700_000_000), ("i1", 1_700_000_000)]
    assert log.manifest["share_of_tied_events"] == 0


@pytest.mark.parametrize(
    "times",
    [
        pl.Series([3.0, 3.75, 3.25]),
        pl.Series([1e9, 1e9 + 0.75, 1e9 + 0.25]),
        pl.Series([1e9, -1.25, -1.75]),
        pl.Series([f"2018-07-07T22:09:11{end}" for end in ("Z", ".75Z", ".249999999Z")]),
        pl.Series(["1000000000", "1000000000.75", "1000000000.25"]),
        pl.Series(["1e9", "1000000000.75", "1000000000"]),
        pl.Series([2 * 10**9, 750, 250]).cast(pl.Datetime("ms")),
        pl.Series([10**9, 10**9 + 2, 10**9 + 1]).cast(pl.Datetime("ns")),
        pl.Series([10**15, -1, -(10**6)]).cast(pl.Datetime("us")).dt.replace_time_zone("UTC"),
        pl.Series([1_588_687_728_000.0, 1_588_687_728_923.75, 1_588_687_728_923.25]),
    ],
)
@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_every_clock_orders_events_by_its_finest_reading_and_is_stored_in_seconds(tmp_path, times, ending):
    path = tmp_path / f"log.{ending}"
    table = pl.DataFrame({"user_id": ["u2", "u1", "u1"], "item_id": ["i1", "i1", "i2"], "timestamp": times})
    {"csv": table.write_csv, "parquet": table.write_parquet, "jsonl": table.write_ndjson}[ending](path)
    log = prepare_log(Table(path), tmp_path / "log")
    assert [item for item, _ in histories(log)["u1"]] == ["i2", "i1"]
    assert log.manifest["share_of_tied_events"] == 0
    whole = Table(path).read().collect()["timestamp"].to_list()
    assert log.times.tolist() == to_seconds(np.array(whole)[::-1], log.manifest["unit_of_times"]).tolist()


@pytest.mark.parametrize(
    ("times", "stored", "unit"),
    [
        ([0.5, 1.25], [0, 1], "position"),
        ([0.5, 1_000_000_000.25], [0, 1_000_000_000], "second"),
        ([1_588_687_728_923.5, 1_588_687_728_924.0], [1_588_687_728] * 2, "millisecond"),
        ([1_588_687_728_923, 1_588_687_728_924], [1_588_687_728] * 2, "millisecond"),
        (pl.Series([1, 10**15 + 1]).cast(pl.Datetime("us")), [0, 10**9], "second"),
        (pl.Series([-1, 10**15 + 1]).cast(pl.Datetime("us")), [-1, 10**9], "second"),
        ([1e18, 1e18 + 4096], [10**9] * 2, "nanosecond"),
    ],
)
def test_the_unit_of_a_clock_does_not_depend_on_what_is_below_it(tmp_path, times, stored, unit):
    table = pl.DataFrame({"user_id": ["u1", "u2"], "item_id": "i", "timestamp": times})
    table.write_parquet(tmp_path / "log.parquet")
    log = prepare_log(Table(tmp_path / "log.parquet"), tmp_path / "log")
    assert (log.times.tolist(), log.manifest["unit_of_times"]) == (stored, unit)


@pytest.mark.parametrize("source", [RetailRocket, AmazonReviews])
def test_sources_that_count_milliseconds_order_events_by_them(tmp_path, source):
    header = "timestamp,visitorid,event,itemid,transactionid,user_id,parent_asin,rating\n"
    rows = [("1433221332900", "1", "1"), ("1433221332100", "1", "2"), ("1433221332000", "2", "1")]
    text = header + "".join(f"{time},{user},view,{item},,{user},{item},5\n" for time, user, item in rows)
    (tmp_path / "events.csv").write_text(text)
    log = prepare_log(source(tmp_path / "events.csv"), tmp_path / "log")
    assert histories(log) == {"1": [("2", 1433221332), ("1", 1433221332)], "2": [("1", 1433221332)]}
    assert log.manifest["share_of_tied_events"] == 0


def test_the_manifest_says_how_the_folder_was_made(tmp_path):
    prepare_log(Rows([(1, 1, 0, 5), (2, 2, 0, 5)]), tmp_path / "log", min_rating=3.5, origin="x")
    manifest = json.loads((tmp_path / "log" / "manifest.json").read_text())
    assert manifest["schema_version"] == 1
    assert manifest["parameters"] == {
        "min_rating": 3.5, "duplicates": "keep_all", "user_core": 0, "item_core": 0, "min_length": 1,
    }  # fmt: skip
    assert len(manifest["fingerprint"]) == 64


@pytest.mark.real
@pytest.mark.parametrize("name", ["amazon-beauty", "ml-100k", "foursquare-nyc"])
def test_a_real_log_equals_a_stable_sort_of_its_rows(tmp_path, real_data: Path, name):
    class Real(Rows):
        def __init__(self) -> None:
            self.table = pl.read_parquet(real_data / name / "interactions.parquet")
            self.described = pl.read_parquet(real_data / name / "items.parquet")

    log = prepare_log(Real(), tmp_path / name)
    rows = Real().table.sort("user_id", "timestamp", maintain_order=True)
    assert (log.catalog.ids[log.items.tolist()] == rows["item_id"]).all()
    assert (pl.Series(log.times) == rows["timestamp"]).all()
    assert log.catalog.counts.sum() == rows.height


def test_another_file_of_the_same_name_does_not_replace_the_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder, end in (("a", ""), ("b", ""), ("c", "8,b,1000000003\n")):
        Path(folder).mkdir()
        Path(folder, "good.csv").write_text(VISITS + end)
    prepare("a/good.csv", user_column="who")
    prepare("b/good.csv", user_column="who", min_length=1)
    with pytest.raises(InputError, match=r"data/prepared/good was prepared from .*a/good\.csv, .*--out, .*--force"):
        prepare("c/good.csv", user_column="who")
    assert len(Log.open("data/prepared/good").items) == 3
    prepare("c/good.csv", user_column="who", out=Path("other"))
    prepare("c/good.csv", user_column="who", force=True)
    assert len(Log.open("data/prepared/good").items) == len(Log.open("other").items) == 4
    Path("c/good.csv").write_text(VISITS)
    prepare("c/good.csv", user_column="who")
    assert len(Log.open("data/prepared/good").items) == 3


@pytest.mark.parametrize("name", ["items.npy", "times.npy", "offsets.npy", "users.parquet", "catalog.parquet"])
def test_a_prepared_file_that_was_cut_short_is_named_when_the_log_is_opened(tmp_path, name):
    prepare_log(Rows([(1, 1, 0), (2, 2, 0)]), tmp_path / "log")
    path = tmp_path / "log" / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=rf"{name} is not whole .*`seqrec prepare`"):
        Log.open(tmp_path / "log")
    path.unlink()
    with pytest.raises(ValueError, match=rf"{name} is not whole .*`seqrec prepare`"):
        Log.open(tmp_path / "log")


def test_a_broken_table_of_items_is_refused(tmp_path):
    (tmp_path / "items.csv").write_text("item_id\na,b\n")
    pl.DataFrame({"user_id": ["u", "v"], "item_id": "a", "timestamp": 1}).write_csv(tmp_path / "interactions.csv")
    with pytest.raises(InputError, match="table of the items"):
        prepare_log(Table(tmp_path), tmp_path / "log")
    assert not (tmp_path / "log").exists()


def test_whole_numbers_that_a_gap_made_floats_are_ids_as_before(tmp_path):
    log = {"user_id": [1.0, 2.0, 2.0], "item_id": [7.0, 8.0, 2.0**53], "timestamp": [1, 2, 3]}
    pl.DataFrame(log).write_parquet(tmp_path / "interactions.parquet")
    titles = {"item_id": [7, 8, 2**53], "title": ["seven", "eight", "many"]}
    pl.DataFrame(titles).write_parquet(tmp_path / "items.parquet")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = prepare_log(Table(tmp_path, title="title"), tmp_path / "log")
    assert made.users.to_list() == ["1", "2"]
    found = made.catalog.table.select("item_id", "title").sort("title").rows()
    assert found == [("8", "eight"), (str(2**53), "many"), ("7", "seven")]
    pl.DataFrame({"item_id": [1.5, 2.0, 3.0], "title": ["a", "b", "c"]}).write_parquet(tmp_path / "items.parquet")
    with pytest.warns(UserWarning, match="describes none of the 3 items of the log"):
        prepare_log(Table(tmp_path, title="title"), tmp_path / "other")


def test_a_table_that_a_card_names_beside_the_log_counts_as_its_file(tmp_path, capsys):
    pl.DataFrame({"user_id": ["u", "v"], "item_id": "a", "timestamp": 1}).write_csv(tmp_path / "interactions.csv")
    items, card = tmp_path / "elsewhere.csv", tmp_path / "mine.yaml"
    reader = {"class_path": "seqrec.data.sources.Table", "init_args": {"items": str(items), "title": "title"}}
    told = {"name": "mine", "licence": "mine", "citation": "none", "columns": {}, "counts": {}}
    card.write_text(json.dumps({**told, "source": reader}))
    for title in ("first", "second"):
        pl.DataFrame({"item_id": ["a"], "title": [title]}).write_csv(items)
        prepare(str(card), raw=tmp_path / "interactions.csv", out=tmp_path / "log")
        assert Log.open(tmp_path / "log").catalog.titles.to_list() == [title]


def test_the_simulated_shop_is_prepared_by_its_card_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    prepare("simulated-shop")
    log = Log.open("data/prepared/simulated-shop")
    assert {"title", "text", "categories"} <= set(log.catalog.table.columns)
    assert len(log.users) == 2000
    assert "Licence of simulated-shop" in capsys.readouterr().out
    stamp = (tmp_path / "data/prepared/simulated-shop/manifest.json").stat().st_mtime_ns
    prepare("simulated-shop")
    assert (tmp_path / "data/prepared/simulated-shop/manifest.json").stat().st_mtime_ns == stamp


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_items_are_known_by_the_name_of_their_ids_in_the_log_where_they_have_no_item_id(tmp_path, monkeypatch, ending):
    monkeypatch.chdir(tmp_path)
    Path("log.csv").write_text(VISITS.replace("item_id", "sku"))
    items = pl.DataFrame({"sku": ["b", "a"], "item_id": ["a", "b"], "name": ["one", "two"]})
    options = {
        "user_column": "who",
        "item_column": "sku",
        "items_file": Path(f"items.{ending}"),
        "title_column": "name",
    }
    for table, titles in ((items, ["one", "two"]), (items.drop("item_id"), ["two", "one"])):
        {"csv": table.write_csv, "jsonl": table.write_ndjson, "parquet": table.write_parquet}[ending](f"items.{ending}")
        prepare("log.csv", **options)
        assert Log.open("data/prepared/log").catalog.titles.to_list() == titles
    with pytest.raises(InputError, match=r"items\.\w+ has no column 'label' .* such as --title_column"):
        prepare("log.csv", **{**options, "title_column": "label"}, force=True)


def test_the_folder_one_stands_in_is_prepared_by_its_name_and_takes_no_other_away(tmp_path, monkeypatch):
    (tmp_path / "my.shop").mkdir()
    monkeypatch.chdir(tmp_path / "my.shop")
    table = pl.DataFrame({"user_id": [1, 1, 2], "item_id": [2, 1, 2], "timestamp": [1_700_000_000] * 3})
    table.write_csv("interactions.csv")
    prepare("interactions.csv", out=Path("data/prepared/other"))
    for _ in range(2):
        prepare(".")
    assert {path.name for path in Path("data/prepared").iterdir()} == {"my", "other"}
    made = Path("data/prepared/my/manifest.json").stat().st_mtime_ns
    prepare(".")  # what was prepared is no part of what is read
    assert Path("data/prepared/my/manifest.json").stat().st_mtime_ns == made
    Path("data/prepared/my/inner").mkdir()
    with pytest.raises(InputError, match="my holds the folder inner, too, which would be lost; choose another --out"):
        prepare(".", force=True)
    Path("here.csv").symlink_to("interactions.csv")
    assert _name_of(Path("here.csv")) == "here"
    with pytest.raises(InputError, match="/ has no name to call the data by"):
        _name_of(Path("/"))


def test_the_parts_of_a_table_are_read_as_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("sales.parquet").mkdir()
    Path("sales.parquet/_SUCCESS").touch()
    for part in range(3):
        rows = {"user_id": [part, part], "item_id": [7, 8 + part], "timestamp": [1_700_000_000, 1_700_000_001]}
        pl.DataFrame(rows).write_parquet(f"sales.parquet/part-{part:04d}.parquet")
    prepare("sales.parquet")
    assert Log.open("data/prepared/sales").users.to_list() == ["0", "1", "2"]


def test_a_zip_of_ones_own_is_to_be_unpacked(tmp_path):
    (tmp_path / "sales.csv.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"sales\.csv\.zip is a zip, .* unpack it and name the table"):
        prepare(str(tmp_path / "sales.csv.zip"))


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_categories_are_lists_or_divided_words_whatever_the_table(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    Path("log.csv").write_text(
        "user_id,item_id,timestamp\n1,a,1700000000\n1,b,1700000001\n2,c,1700000002\n2,d,1700000003\n"
    )
    lists, words = [["x", "y z"], [], ["[Sale] shoes", "w"], None], ["x|y z", "", "[Sale] shoes|w", None]
    items = pl.DataFrame({"item_id": ["a", "b", "c", "d"], "groups": lists})
    if kind == "jsonl":
        rows = [
            {"item_id": raw, "groups": group} for raw, group in zip("abcd", [*lists[:2], words[2], None], strict=True)
        ]
        Path("items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == "csv":
        items.with_columns(groups=pl.Series(words)).write_csv("items.csv")
    else:
        items.write_parquet("items.parquet")
    prepare("log.csv", items_file=Path(f"items.{kind}"), categories_column="groups")
    found = Log.open("data/prepared/log").catalog.table["categories"].to_list()
    assert [group or [] for group in found] == [group or [] for group in lists]


def test_categories_of_few_kinds_are_words(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("log.csv").write_text("user_id,item_id,timestamp\n1,a,1700000000\n1,b,1700000001\n2,a,1700000002\n")
    items = pl.DataFrame({"item_id": ["a", "b"], "groups": pl.Series(["x|y", "z"], dtype=pl.Categorical)})
    items.write_parquet("items.parquet")
    prepare("log.csv", items_file=Path("items.parquet"), categories_column="groups")
    assert Log.open("data/prepared/log").catalog.table["categories"].to_list() == [["x", "y"], ["z"]]


@pytest.mark.parametrize(
    "times",
    [
        ["2023-11-14T22:13Z", "2023-11-14 22:14Z"],
        ["20231114T221300Z", "20231114T221400Z"],
        [" 1700000000", "1700000060 "],
    ],
)
def test_times_are_read_however_iso_writes_them(tmp_path, monkeypatch, times):
    monkeypatch.chdir(tmp_path)
    Path("log.csv").write_text(f"user_id,item_id,timestamp\n1,a,{times[0]}\n1,b,{times[1]}\n2,a,{times[0]}\n")
    prepare("log.csv")
    log = Log.open("data/prepared/log")
    assert log.times[1] - log.times[0] == 60
    assert log.times[0] // 60 == 1_700_000_000 // 60
