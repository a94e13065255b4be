"""A data set of one's own is prepared by a card of one's own."""

import re
import warnings
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest

from seqrec.data.errors import InputError
from seqrec.data.log import Log
from seqrec.data.prepare import prepare

OWN_CARD = """
name: shop
source: {class_path: seqrec.data.sources.Table, init_args: {user: who}}
licence: our own
citation: none
columns: {user_id: customer}
counts: {users: null, items: null, interactions: null, where: none}
"""
VISITS = "who,item_id,timestamp\n007,a,1000000000\n7,a,1000000001\n7,b,1000000002\n"


def test_a_card_of_your_own_prepares_raw_files_or_asks_for_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("card.yaml").write_text(OWN_CARD)
    Path("visits.csv").write_text(VISITS)
    with pytest.raises(InputError, match=r"'shop' needs raw files and names no url; pass them with --raw\.$"):
        prepare("card.yaml")
    with pytest.raises(InputError, match="nowhere does not exist"):
        prepare("card.yaml", raw=Path("nowhere"))
    with pytest.raises(InputError, match=r"absent\.yaml does not exist"):
        prepare("absent.yaml")
    prepare("card.yaml", raw=Path("visits.csv"))
    assert Log.open("data/prepared/shop").users.to_list() == ["007", "7"]


@pytest.mark.parametrize(
    ("counts", "options", "is_warned"),
    [
        ("{users: null, items: null, interactions: 20000263}", {}, True),
        ("{users: 20, items: null, interactions: null}", {}, True),
        ("{users: 2, items: 900, interactions: 3}", {}, False),
        ("{users: 1, items: null, interactions: null}", {"user_core": 1}, True),
        ("{users: null, items: null, interactions: 20000263}", {"rating": "stars"}, False),
    ],
)
def test_a_log_of_another_size_than_its_card_says_is_warned_of_once(tmp_path, monkeypatch, counts, options, is_warned):
    monkeypatch.chdir(tmp_path)
    card = OWN_CARD.replace("{users: null, items: null, interactions: null, where: none}", counts)
    if "rating" in options:
        card = card.replace("user: who", "user: who, rating: timestamp")
        options = {"min_rating": 3.0}
    Path("card.yaml").write_text(card)
    Path("visits.csv").write_text(VISITS)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        prepare("card.yaml", raw=Path("visits.csv"), **options)
    said = [str(warning.message) for warning in caught if "the card shop says" in str(warning.message)]
    assert len(said) == is_warned


def test_a_card_of_your_own_prepares_what_it_downloads(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("card.yaml").write_text(OWN_CARD + "url: http://localhost/visits.csv\n")

    def fetched(url: str, target: Path, checksum: str | None, licence: str) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(VISITS)

    monkeypatch.setattr("seqrec.data.prepare.download", fetched)
    prepare("card.yaml")
    assert len(Log.open("data/prepared/shop").items) == 3


@pytest.mark.real
@pytest.mark.parametrize("name", ["ml-100k", "foursquare-nyc"])
def test_a_card_prepares_a_folder_of_ready_tables(tmp_path, monkeypatch, real_data: Path, name):
    monkeypatch.chdir(tmp_path)
    prepare(name, raw=real_data / name, user_core=0, item_core=0, min_length=1)
    log = Log.open(tmp_path / "data/prepared" / name)
    assert len(log.items) == pl.read_parquet(real_data / name / "interactions.parquet").height


OWN_SOURCE = """
import polars as pl
from seqrec.data.sources import Source

class Frame(Source):
    def read(self):
        return pl.read_parquet("moving.parquet")

    def items(self):
        return pl.DataFrame({"item_id": [1, 2], "title": ["one", "two"]})
"""


def test_a_source_of_ones_own_may_give_frames_numbers_and_days_and_is_read_anew_each_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("moving_source.py").write_text(OWN_SOURCE)
    source = "source: {class_path: moving_source.Frame}"
    Path("card.yaml").write_text(re.sub("source: .*", source, OWN_CARD))
    rows = pl.DataFrame({"user_id": [1, 1, 2], "item_id": [2, 1, 2]})
    for n, days in ((3, [date(2023, 11, 14)] * 3), (6, [date(2023, 11, 15)] * 6)):
        table = pl.concat([rows] * (n // 3)).with_columns(timestamp=pl.Series(days))
        table.write_parquet("moving.parquet")
        prepare("card.yaml")
        log = Log.open("data/prepared/shop")
        assert len(log.items) == n
        assert log.manifest["unit_of_times"] != "position"
        assert log.times[0] == int(datetime(days[0].year, days[0].month, days[0].day, tzinfo=UTC).timestamp())
        assert log.users.to_list() == ["1", "2"]
        assert log.catalog.table["title"].to_list() == ["one", "two"]
