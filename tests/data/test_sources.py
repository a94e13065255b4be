"""Each format is read as its publisher wrote it. What all sources must obey stands in tests/contracts."""

import gzip
import json
import zipfile
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqrec.data.errors import InputError
from seqrec.data.sources import CheckIns, RetailRocket, Table
from seqrec.data.sources_reviews import AmazonReviews, MovieLens, Yelp


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def lines(*rows: dict) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def refused(source, *words: str) -> str:
    with pytest.raises(InputError) as caught:
        source.read().collect()
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    for word in words:
        assert word in message
    return message


def read(source) -> list[tuple]:
    return source.read().collect().rows()


def test_the_hundred_thousand_ratings_of_movielens_are_read_with_their_genres(tmp_path):
    write(tmp_path / "ml-100k/u.data", "196\t242\t3\t881250949\n186\t302\t3\t891717742\n")
    flags = "|".join("1" if n in (5, 14) else "0" for n in range(19))
    write(tmp_path / "ml-100k/u.item", f"242|Misérables, Les (1995)|01-Jan-1995||http://x|{flags}\n".encode("latin-1"))
    source = MovieLens(tmp_path)
    assert read(source) == [("196", "242", 881250949, 3.0), ("186", "302", 891717742, 3.0)]
    assert source.items().collect().rows() == [("242", "Misérables, Les (1995)", ["Comedy", "Romance"])]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_the_million_ratings_of_movielens_are_read_inside_the_zip(tmp_path, newline):
    with zipfile.ZipFile(tmp_path / "ml-1m.zip", "w") as archive:
        archive.writestr("ml-1m/README", "hello")
        archive.writestr("ml-1m/ratings.dat", newline.join(["1::1193::5::978300760", "2::661::3::978302109", ""]))
        archive.writestr("ml-1m/movies.dat", f"661::Été: a Peach (1996)::Animation|Musical{newline}".encode("latin-1"))
    source = MovieLens(tmp_path if newline == "\n" else tmp_path / "ml-1m.zip")
    assert read(source) == [("1", "1193", 978300760, 5.0), ("2", "661", 978302109, 3.0)]
    assert source.items().collect().rows() == [("661", "Été: a Peach (1996)", ["Animation", "Musical"])]


@pytest.mark.parametrize("is_zip", [False, True])
def test_newer_movielens_releases_are_read_from_csv(tmp_path, is_zip):
    ratings = "userId,movieId,rating,timestamp\n1,31,2.5,1260759144\n1,1029,3.0,1260759179\n"
    movies = 'movieId,title,genres\n31,"American, The (1995)",Comedy|Drama\n7,Odd,(no genres listed)\n'
    if is_zip:
        raw = tmp_path / "ml-latest.zip"
        with zipfile.ZipFile(raw, "w") as archive:
            archive.writestr("ml-latest/ratings.csv", ratings)
            archive.writestr("ml-latest/movies.csv", movies)
    else:
        raw = write(tmp_path / "ratings.csv", ratings).parent
        write(tmp_path / "movies.csv", movies)
    assert read(MovieLens(raw)) == [("1", "31", 1260759144, 2.5), ("1", "1029", 1260759179, 3.0)]
    items = MovieLens(raw).items().collect().rows()
    assert items == [("31", "American, The (1995)", ["Comedy", "Drama"]), ("7", "Odd", [])]


def test_amazon_reviews_of_2014_come_with_metadata_written_by_python(tmp_path):
    review = {"reviewerID": "A1", "asin": "0007", "unixReviewTime": 1390000000, "overall": 5.0, "reviewText": "ok"}
    write(tmp_path / "reviews_Beauty_5.json.gz.part", "half a download")
    write(tmp_path / "reviews_Beauty_5.json.gz", lines(review, {**review, "reviewerID": "A2", "helpful": [0, 0]}))
    meta = {"asin": "0007", "title": "It's", "description": "Soft &amp; warm", "categories": [["Beauty", "Skin"]]}
    meta |= {"brand": "Soft &amp; Co", "price": 5.4}
    write(tmp_path / "meta_Beauty.json.gz", repr(meta) + "\n")
    source = AmazonReviews(tmp_path)
    assert read(source) == [("A1", "0007", 1390000000, 5.0), ("A2", "0007", 1390000000, 5.0)]
    assert source.items().collect().rows() == [("0007", "It's", "Soft & warm", ["Beauty", "Skin"], "Soft & Co", "$5.4")]


def test_amazon_metadata_of_2018_and_2023_are_read(tmp_path):
    new = {"parent_asin": "B2", "title": "T", "features": ["f"], "description": ["d"], "categories": ["C"]}
    new |= {"store": "W", "price": None}
    old = {"asin": "B1", "title": "S", "description": ["x", "y"], "category": ["A", "B"]}
    old |= {"brand": "V", "price": "$3.00 - $4.00"}
    meta = write(tmp_path / "meta_All.jsonl.gz", lines(old, new, new))
    expected = [("B1", "S", "x y", ["A", "B"], "V", "$3.00 - $4.00"), ("B2", "T", "f d", ["C"], "W", None)]
    assert AmazonReviews(tmp_path / "reviews.csv", meta=meta).items().collect().rows() == expected


@pytest.mark.parametrize("name", ["All_Beauty.csv", "All_Beauty.csv.gz", "All_Beauty.jsonl", "All_Beauty.jsonl.gz"])
def test_amazon_reviews_of_2023_are_read_in_seconds(tmp_path, name):
    review = {"rating": 4.0, "title": "x", "parent_asin": "B01", "user_id": "AE", "timestamp": 1588687728923}
    comma = "user_id,parent_asin,rating,timestamp\nAE,B01,4.0,1588687728923\n"
    write(tmp_path / name, comma if "csv" in name else lines(review))
    assert read(AmazonReviews(tmp_path / name)) == [("AE", "B01", 1588687728, 4.0)]
    assert AmazonReviews(tmp_path / name).items() is None


def test_a_folder_of_several_amazon_categories_is_refused_by_name_and_a_copy_of_one_is_not(tmp_path):
    review = lines({"reviewerID": "A1", "asin": "0007", "unixReviewTime": 1390000000, "overall": 5.0})
    for name in ("reviews_Beauty_5.json", "reviews_Beauty_5.json.gz"):
        write(tmp_path / name, review)
    assert len(read(AmazonReviews(tmp_path))) == 1
    write(tmp_path / "reviews_Toys_5.json.gz", review)
    with pytest.raises(InputError, match=r"holds reviews_Beauty_5.json, reviews_Toys_5.json, of which one can be read"):
        read(AmazonReviews(tmp_path))
    for category in ("Beauty", "Toys"):
        write(tmp_path / f"meta_{category}.json", repr({"asin": "0007", "title": category}) + "\n")
    with pytest.raises(InputError, match=r"holds meta_Beauty.json, meta_Toys.json, of which one can be read"):
        AmazonReviews(tmp_path / "reviews_Toys_5.json.gz", meta=tmp_path).items()


def test_yelp_reviews_are_read_with_their_businesses(tmp_path):
    review = {"user_id": "u", "business_id": "b", "stars": 4.0, "date": "2018-07-07 22:09:11", "text": "…"}
    write(tmp_path / "yelp_academic_dataset_review.json", lines(review))
    business = {"business_id": "b", "name": "Café", "categories": "Food, Coffee & Tea"}
    write(tmp_path / "yelp_academic_dataset_business.json", lines(business, {**business, "categories": None}))
    assert read(Yelp(tmp_path)) == [("u", "b", 1531001351, 4.0)]
    assert Yelp(tmp_path).items().collect().rows() == [("b", "Café", ["Food", "Coffee & Tea"]), ("b", "Café", [])]


def test_check_ins_of_gowalla_and_foursquare_are_read(tmp_path):
    gowalla = write(tmp_path / "loc-gowalla_totalCheckins.txt.gz", "0\t2010-10-19T23:55:27Z\t30.2\t-97.7\t22847\n")
    assert read(CheckIns(gowalla)) == [("0", "22847", 1287532527)]
    assert CheckIns(gowalla).items() is None
    row = "470\t49bb\t4bf5\tCafé\t40.7\t-74.0\t-240\tTue Apr 03 18:00:09 +0000 2012\n"
    with zipfile.ZipFile(tmp_path / "tsmc.zip", "w") as archive:
        archive.writestr("dataset_tsmc2014/dataset_TSMC2014_NYC.txt", row.encode("latin-1") * 2)
        archive.writestr("dataset_tsmc2014/dataset_TSMC2014_TKY.txt", row.replace("470", "1").encode("latin-1"))
    foursquare = CheckIns(tmp_path / "tsmc.zip")
    assert read(foursquare) == [("470", "49bb", 1333476009)] * 2
    assert foursquare.items().collect().rows() == [("49bb", "Café", ["Café"])]
    assert read(CheckIns(tmp_path / "tsmc.zip", city="TKY")) == [("1", "49bb", 1333476009)]


def test_retail_rocket_keeps_the_chosen_events(tmp_path):
    rows = ["timestamp,visitorid,event,itemid,transactionid", "1433221332117,257597,view,355908,"]
    path = write(tmp_path / "events.csv", "\n".join([*rows, "1433224214164,992329,transaction,248676,7", ""]))
    assert len(read(RetailRocket(path))) == 2
    assert read(RetailRocket(tmp_path, events=("transaction",))) == [("992329", "248676", 1433224214)]
    with pytest.raises(InputError, match="'addtocart'"):
        RetailRocket(path, events=("add_to_cart",))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(*[st.text("0123456789ab, ;\"'é", min_size=1).filter(str.strip)] * 2, st.integers(0, 2**40))))
def test_every_format_of_the_same_table_reads_the_same(tmp_path_factory, rows):
    rows = [("007", "1", 5), *rows]
    folder = tmp_path_factory.mktemp("tables")
    table = pl.DataFrame(rows, schema=["u", "i", "t"], orient="row")
    table.write_csv(folder / "a.csv")
    table.write_csv(folder / "a.tsv", separator="\t")
    table.write_ndjson(folder / "a.jsonl")
    table.write_parquet(folder / "a.parquet")
    write(folder / "b.csv.gz", (folder / "a.csv").read_bytes())
    write(folder / "b.csv", b"\xef\xbb\xbf" + (folder / "a.csv").read_bytes().replace(b"\n", b"\r\n"))
    write(folder / "c.jsonl", b"\xef\xbb\xbf" + (folder / "a.jsonl").read_bytes())
    for name in ("a.csv", "a.tsv", "a.jsonl", "a.parquet", "b.csv.gz", "b.csv", "c.jsonl"):
        assert read(Table(folder / name, user="u", item="i", time="t")) == rows, name


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("12", 12),
        ("12.75", 12),
        ("1.4e9", 1_400_000_000),
        ("-3", -3),
        ("2018-07-07", 1530921600),
        ("2018-07-07 22:09", 1531001340),
        ("2018-07-07T22:09:11", 1531001351),
        ("2018-07-07T22:09:11.250Z", 1531001351),
        ("2018-07-08T00:09:11+02:00", 1531001351),
    ],
)
def test_a_time_may_be_a_number_or_a_date(tmp_path, written, seconds):
    path = write(tmp_path / "log.csv", f"user_id,item_id,timestamp\nu,i,{written}\n")
    assert read(Table(path)) == [("u", "i", seconds)]


def test_typed_dates_of_parquet_become_seconds(tmp_path):
    table = pl.DataFrame({"user_id": [7], "item_id": [8], "timestamp": ["2018-07-07 22:09:11"]})
    for kind in ("ms", "us", "ns"):
        table.with_columns(pl.col("timestamp").str.to_datetime(time_unit=kind)).write_parquet(tmp_path / "a.parquet")
        assert read(Table(tmp_path / "a.parquet")) == [("7", "8", 1531001351)]


def test_items_of_a_table_are_named_by_its_mapping(tmp_path):
    write(tmp_path / "interactions.csv", "user_id,item_id,timestamp,stars\nu,01,1,\n")
    write(tmp_path / "items.csv", 'sku,name,about,tags\n01,"A, b",words,x| y |\n')
    source = Table(tmp_path, rating="stars", item_id="sku", title="name", text="about", categories="tags")
    assert read(source) == [("u", "01", 1, None)]
    assert source.items().collect().rows() == [("01", "A, b", "words", ["x", "y"])]
    assert Table(tmp_path / "interactions.csv").items() is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["empty"]),
        (b"\n\n", ["empty"]),
        (b"user_id,item_id,timestamp\n", ["no rows"]),
        (b"userid,item_id,timestamp\nu,i,1\n", ["'user_id'", "nearest is 'userid'"]),
        (b"user_id,item_id,timestamp,item_id\nu,i,1,j\n", ["2 columns named 'item_id'"]),
        (b"user_id,item_id,timestamp\nu,i,1\nu,\xff,1\n", ["not UTF-8", "line 3"]),
        (b"user_id,item_id,timestamp\nu,i,1\nu,,1\n", ["no item_id", "line 3"]),
        (b"user_id,item_id,timestamp\nu,i,1\nu,i,soon\n", ["'soon'", "'timestamp'", "line 3"]),
        (b"user_id,item_id,timestamp\nu,i,2018-07-07\nu,i,5\n", ["'5'", "line 3"]),
        (b"user_id,item_id,timestamp\nu,i,1\nu,i\n", ["timestamp", "line 3"]),
        (b"user_id,item_id,timestamp\nu,i,1\nu,i,2,3\n", ["4 fields at line 3 where line 1 has 3"]),
        (b'user_id,item_id,timestamp\nu,"a\nb",1\nu,i,2,3\n', ["4 fields at line 4"]),
        (b'user_id,item_id,timestamp\nu,i,1\nu,"i,2\nu,i,3\n', ["quotation mark at line 3", "close it"]),
        (b'user_id,item_id,timestamp\nu,i,1\nu,"i,2\nu,"i",3\n', ["quotation mark at line 3", "close it"]),
        (b'user_id,item_id,timestamp\nu,i,1\nu,i"a,2\nu,i,3\n', ["stray quotation mark at line 3"]),
        (b'user_id,item_id,"timestamp\nu,i,1\n', ["quotation mark in line 1"]),
    ],
)
def test_a_broken_table_is_refused_in_one_sentence(tmp_path, content, words):
    path = write(tmp_path / "log.csv", content)
    refused(Table(path), str(path), *words)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"user_id": 1, "item": 2, "timestamp": 3}\n', ["'item_id'", "nearest is 'item'"]),
        ('{"user_id": 1, "item_id": 2, "timestamp": 3}\n[1]\n', ["line 2"]),
        ('{"user_id": 1, "item_id": 2, "timestamp": 3}\n{"user_id": 1,\n', ["line 2"]),
        ('{"user_id": 1, "item_id": 2, "timestamp": 3}\n{"user_id": 1, "timestamp": 3}\n', ["item_id", "line 2"]),
    ],
)
def test_broken_json_lines_are_refused_in_one_sentence(tmp_path, content, words):
    path = write(tmp_path / "log.jsonl", content)
    refused(Table(path), str(path), *words)


def test_a_line_with_too_many_fields_is_named_in_files_without_header(tmp_path):
    write(tmp_path / "u.data", '1\t2\t3\t4\n1\t"2\t3\t4\n1\t2\t3\t4\t5\n')
    refused(MovieLens(tmp_path), str(tmp_path), "5 fields at line 3 where line 1 has 4")


def test_lists_are_neither_ids_nor_times(tmp_path):
    for column in ("user_id", "item_id", "timestamp"):
        cells = {"user_id": ["u"], "item_id": ["i"], "timestamp": [1]} | {column: [["a", "b"]]}
        pl.DataFrame(cells).write_parquet(tmp_path / "log.parquet")
        refused(Table(tmp_path / "log.parquet"), "log.parquet", f"'{column}'", "List(String)")


def test_archives_that_are_none_are_refused(tmp_path):
    (tmp_path / "log.csv.gz").write_bytes(b"not gzip at all")
    refused(Table(tmp_path / "log.csv.gz"), "log.csv.gz")
    (tmp_path / "ml.zip").write_bytes(b"PK nonsense")
    refused(MovieLens(tmp_path / "ml.zip"), "ml.zip", "zip")
    (tmp_path / "log.parquet").write_bytes(b"PAR1 nonsense")
    refused(Table(tmp_path / "log.parquet"), "log.parquet", "Parquet")


@pytest.mark.real
def test_real_logs_are_read_whole_and_in_order(real_data):
    path = real_data / "ml-latest-small" / "interactions.parquet"
    assert Table(path, rating="rating").read().collect().equals(pl.read_parquet(path))
