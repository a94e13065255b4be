"""Cards are complete, found by name, and lead to a source for whatever form the raw data have."""

from pathlib import Path

import polars as pl
import pytest
import yaml

from seqrec.data import card as cards
from seqrec.data.card import Card, known
from seqrec.data.errors import InputError
from seqrec.data.sources import Source, Table

SHARED = {"ml-1m", "ml-100k", "ml-latest-small", "ml-latest-2k", "amazon-beauty", "amazon-toys", "amazon-games-sasrec"}
SHARED |= {"yelp", "foursquare-nyc"}


def written(folder: Path, **changes: object) -> Path:
    content: dict[str, object] = {
        "name": "shop",
        "source": {"class_path": "seqrec.data.sources.Table", "init_args": {"user": "who"}},
        "licence": "our own",
        "citation": "none",
        "columns": {"user_id": "customer"},
        "counts": {"users": None, "items": None, "interactions": None, "where": "none"},
    } | changes
    path = folder / "shop.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in content.items() if value != "leave out"}))
    return path


def test_the_promised_sets_have_cards():
    assert set(known()) >= SHARED | {"ml-20m", "ml-25m", "ml-32m", "gowalla", "retailrocket"} | {
        "amazon-2018-games",
        "amazon-2023-beauty",
    }


@pytest.mark.parametrize("name", known())
def test_a_card_is_complete_and_its_source_can_be_made(name, tmp_path):
    card = Card.load(name)
    assert card.name == name
    assert isinstance(card.source(tmp_path), Source)
    assert set(card.counts) == {"users", "items", "interactions", "where"}
    assert card.licence
    assert card.citation
    assert {"user_id", "item_id", "timestamp"} <= set(card.columns)
    assert all(address.startswith("http") for address in (card.url, card.homepage) if address)
    assert card.sha256 is None or (len(card.sha256) == 64 and int(card.sha256, 16))
    assert set(card.preparation or {}) <= {"min_rating", "duplicates", "user_core", "item_core", "min_length"}


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(InputError, match="'ml-1m'"):
        Card.load("ml1m")


def test_a_card_of_your_own_is_found_by_its_path(tmp_path):
    (tmp_path / "log.csv").write_text("who,item_id,timestamp\n007,1,2\n")
    source = Card.load(written(tmp_path)).source(tmp_path / "log.csv")
    assert source.read().collect().rows() == [("007", "1", 2)]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"licence": "leave out"}, "no 'licence'"),
        ({"licens": "x"}, "nearest is 'licence'"),
        ({"source": {"init_args": {}}}, "class_path"),
        ({"source": "Table"}, "class_path"),
    ],
)
def test_a_broken_card_is_refused(tmp_path, changes, words):
    with pytest.raises(InputError, match=words):
        Card.load(written(tmp_path, **changes))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"class_path": "seqrec.data.sources.Tabel"}, "nearest is 'Table'"),
        ({"class_path": "seqrec.data.source.Table"}, "cannot be imported"),
        ({"class_path": "Table"}, "cannot be imported"),
        ({"class_path": "seqrec.data.sources.Table", "init_args": {"usr": "x"}}, "usr"),
    ],
)
def test_a_card_with_a_wrong_source_is_refused(tmp_path, source, words):
    with pytest.raises(InputError, match=words):
        Card.load(written(tmp_path, source=source)).source(tmp_path)


def test_a_source_that_makes_its_data_needs_no_files_and_others_say_where_to_fetch_them(tmp_path):
    made = {"class_path": "seqrec.data.simulated.SimulatedShop", "init_args": {"users": 20, "items": 200}}
    assert isinstance(Card.load(written(tmp_path, source=made)).source(), Source)
    with pytest.raises(InputError, match=r"yelp\.com"):
        Card.load("yelp").source()


def test_files_that_are_no_cards_are_refused(tmp_path):
    for content in (b"- a\n", b"a: [\n", b"\xff\n", b""):
        (tmp_path / "odd.yaml").write_bytes(content)
        with pytest.raises(InputError, match=r"odd\.yaml"):
            Card.load(tmp_path / "odd.yaml")
    with pytest.raises(InputError, match="does not exist"):
        Card.load(tmp_path / "absent.yaml")


def test_an_installed_package_finds_the_cards_beside_its_code(tmp_path, monkeypatch):
    (tmp_path / "seqrec/data/cards").mkdir(parents=True)
    written(tmp_path / "seqrec/data/cards")
    monkeypatch.setattr(cards, "__file__", str(tmp_path / "seqrec/data/card.py"))
    assert known() == ["shop"]
    assert Card.load("shop").licence == "our own"


@pytest.mark.parametrize("categories", ["categories", "genres"])
def test_a_folder_with_ready_tables_is_read_whatever_the_original_is(tmp_path, categories):
    pl.DataFrame({"user_id": ["1"], "item_id": ["02"], "timestamp": [3], "rating": [4.0]}).write_parquet(
        tmp_path / "interactions.parquet"
    )
    pl.DataFrame({"item_id": ["02"], "title": ["T"], categories: [["C"]], "year": [1999]}).write_parquet(
        tmp_path / "items.parquet"
    )
    source = Card.load("yelp").source(tmp_path)
    assert isinstance(source, Table)
    assert source.read().collect().rows() == [("1", "02", 3, 4.0)]
    assert source.items().collect().to_dicts() == [{"item_id": "02", "title": "T", "categories": ["C"]}]


@pytest.mark.real
@pytest.mark.parametrize("name", sorted(SHARED))
def test_real_sets_are_read_through_their_cards(name, real_data):
    card = Card.load(name)
    source = card.source(real_data / name)
    log = source.read().collect()
    found = {"users": log["user_id"].n_unique(), "items": log["item_id"].n_unique(), "interactions": len(log)}
    if name != "foursquare-nyc":
        assert all(card.counts[key] in (None, count) for key, count in found.items())
    items = source.items()
    assert items is None or items.select("item_id").collect()["item_id"].is_unique().all()
