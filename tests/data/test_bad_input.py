"""Every kind of bad input is answered by one sentence and leaves no half-written folder behind."""

import gzip
import io
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from seqrec.cli import main
from seqrec.data.errors import InputError
from seqrec.data.folders import whole_folder
from seqrec.data.log import Log
from seqrec.data.prepare import prepare

HEADER = "user_id,item_id,timestamp\n"
GOOD = HEADER + "u1,i1,1000000000\nu1,i2,1000000001\nu2,i1,1000000002\n"


@pytest.fixture(params=["function", "command"])
def command(request) -> Callable[..., None]:
    """``prepare`` called from Python, and through the command line."""
    return prepare if request.param == "function" else through_the_command_line


@pytest.fixture
def refusal(folder, command) -> Callable[..., str]:
    """What is said of a file, after checking that nothing was left behind."""
    return partial(refused, command, folder)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def through_the_command_line(data: str, **arguments) -> None:
    """Runs ``seqrec prepare``; what it says in its one line of refusal is raised again."""
    said = io.StringIO()
    with redirect_stderr(said):
        status = main(["prepare", data, *(f"--{name}={value}" for name, value in arguments.items())])
    assert (status, said.getvalue().count("\n")) in ((0, 0), (2, 1))
    if status:
        raise InputError(said.getvalue().removeprefix("seqrec: error: ").removesuffix("\n"))


def refused(command: Callable[..., None], folder: Path, content: str | bytes | pl.DataFrame, **arguments) -> str:
    if isinstance(content, pl.DataFrame):
        path = folder / "log.parquet"
        content.write_parquet(path)
    else:
        data = content.encode() if isinstance(content, str) else content
        path = folder / ("log.csv.gz" if data[:2] == b"\x1f\x8b" else "log.csv")
        path.write_bytes(data)
    before = sorted(folder.rglob("*"))
    with pytest.raises(InputError) as caught:
        command(str(path), **arguments)
    prepared = folder / "data" / "prepared"
    assert sorted(file for file in folder.rglob("*") if file not in (prepared, prepared.parent)) == before
    message = str(caught.value)
    assert "Traceback" not in message
    assert path.name in message or "left" in message or "item_core" in message
    assert message.endswith(".")
    assert "\n" not in message
    return message


def table(**columns) -> pl.DataFrame:
    """A good Parquet log with some columns exchanged."""
    good = {"user_id": ["u1", "u1", "u2"], "item_id": ["i1", "i2", "i1"], "timestamp": [10**9, 10**9 + 1, 10**9]}
    return pl.DataFrame(good | columns)


def test_a_good_file_is_prepared_and_reported(folder, capsys):
    (folder / "log.csv").write_text(GOOD)
    prepare("log.csv")
    printed = capsys.readouterr().out
    assert "interactions" in printed
    assert "data/prepared/log" in printed
    assert len(Log.open(folder / "data/prepared/log").items) == 3


def test_a_missing_file_or_card_is_named(folder):
    with pytest.raises(InputError, match=r"nowhere\.csv does not exist"):
        prepare("nowhere.csv")
    with pytest.raises(InputError, match="no-such-card"):
        prepare("no-such-card")
    (folder / "log.csv").write_text(GOOD)
    with pytest.raises(InputError, match=r"shelf\.csv does not exist"):
        prepare("log.csv", items_file=Path("shelf.csv"))
    with pytest.raises(InputError, match="--raw"):
        prepare("log.csv", raw=folder)


def test_a_missing_column_is_named(refusal):
    assert "'user_id' (the nearest is 'uid')" in refusal(GOOD.replace("user_id", "uid"))
    message = refusal(GOOD.replace("item_id", "sku"))
    assert "(there are 'sku')" in message  # a column that is another id already is not proposed
    assert "--item_column" in message
    assert "stars" in refusal(GOOD, rating_column="stars", min_rating=4.0)
    assert "--rating_column" in refusal(GOOD, min_rating=4.0)


@pytest.mark.parametrize("column", ["user_id", "item_id", "timestamp"])
def test_empty_cells_are_refused_with_their_column_and_place(refusal, column):
    cells = table()[column].to_list()
    message = refusal(table(**{column: [cells[0], None, cells[2]]}))
    assert column in message
    assert "row 2" in message


def test_empty_texts_are_no_ids(refusal):
    assert "item_id" in refusal(table(item_id=["i1", "", "i2"]))
    assert "line 3" in refusal(GOOD.replace("u1,i2", "u1,"))


@pytest.mark.parametrize("column", ["user_id", "item_id"])
def test_numbers_that_are_none_are_no_ids(refusal, column):
    message = refusal(table(**{column: [1.0, float("nan"), 2.0]}))
    assert f"1 empty ids in column {column}, the first in row 2" in message


def test_a_table_of_items_without_their_ids_is_told_how_to_name_them(folder, refusal):
    (folder / "items-of-log.csv").write_text("ean,title\ni1,One\n")
    options = {"items_file": folder / "items-of-log.csv", "title_column": "title"}
    message = refusal(GOOD.replace("item_id", "sku"), item_column="sku", **options)
    assert "has no column 'item_id' (there are 'ean')" in message
    assert message.endswith("rename the column that holds them to item_id.")
    (folder / "items-of-log.csv").write_text("item_id;title\ni1;One\n")
    assert "--separator ';'" in refusal(GOOD, **options)


def test_columns_of_items_without_a_table_of_items_are_refused(folder, refusal):
    message = refusal(GOOD, title_column="timestamp", text_column="words")
    assert "no table of its items beside it, where alone --title_column and --text_column would be read" in message
    assert "--items_file" in message
    (folder / "shop").mkdir()
    (folder / "shop" / "interactions.csv").write_text(GOOD)
    (folder / "shop" / "items.csv").write_text("item_id,name\ni1,One\n")
    prepare("shop", title_column="name")
    assert Log.open("data/prepared/shop").catalog.titles.to_list() == ["One", "i2"]


def test_files_that_are_broken_as_a_whole_are_refused(refusal):
    assert "2 columns named 'item_id'" in refusal(GOOD.replace("timestamp", "item_id"))
    assert "cut short" in refusal(gzip.compress(GOOD.encode() * 100)[:-20])
    assert "not UTF-8 at line 3" in refusal(GOOD.encode().replace(b"i2", b"\xff"))
    assert "4 fields at line 4" in refusal(GOOD.replace("u2,", "u2,u2,"))
    assert "quotation mark at line 3" in refusal(GOOD.replace("i2", '"i2'))


def test_a_byte_order_mark_and_quoted_separators_are_read(folder, command):
    (folder / "log.csv").write_bytes(b"\xef\xbb\xbf" + GOOD.replace("i2", '"i,""2"').encode())
    command("log.csv")
    assert Log.open("data/prepared/log").catalog.ids.to_list() == ['i,"2', "i1"]


@pytest.mark.parametrize(("mark", "shown"), [(";", "--separator ';'"), ("|", "--separator '|'"), ("\t", "$'\\t'")])
def test_another_separator_is_suggested_and_can_be_given(folder, refusal, command, mark, shown):
    assert shown in refusal(GOOD.replace(",", mark))
    assert "one ASCII character" in refusal(GOOD, separator="::")
    (folder / "log.csv").write_text(GOOD.replace(",", mark))
    command("log.csv", separator=mark)
    assert len(Log.open("data/prepared/log").items) == 3


def test_options_for_files_of_your_own_are_named_when_given_with_a_card(folder, command):
    with pytest.raises(InputError, match=r"Leave out --user_column, --items_file, --separator\.$"):
        command("ml-1m", user_column="u", items_file=Path("i.csv"), separator=";")


def test_a_place_that_cannot_be_written_is_not_said_to_be_full(folder, command):
    (folder / "log.csv").write_text(GOOD)
    with pytest.raises(InputError, match=r"log\.csv/new could not be written \(Not a directory\)\. Choose another"):
        command("log.csv", out=folder / "log.csv" / "new")


def test_times_that_cannot_be_read_are_refused(refusal):
    assert "yesterday" in refusal(GOOD.replace("1000000001", "yesterday"))
    assert "timestamp" in refusal(table(timestamp=["1", "2", "x"]))


@pytest.mark.parametrize("factor", [10**3, 10**6, 10**9])
def test_mixed_clocks_are_refused_and_uniform_ones_are_converted(refusal, factor):
    times = [10**9, (10**9 + 1) * factor, 10**9 + 2]
    message = refusal(table(timestamp=times))
    assert "mixes units" in message
    assert "row 1" in message
    table(timestamp=[10**9 * factor, (10**9 + 1) * factor, 10**9 * factor]).write_parquet("log.parquet")
    prepare("log.parquet")
    assert Log.open("data/prepared/log").times.tolist() == [10**9, 10**9 + 1, 10**9]


@pytest.mark.parametrize("factor", [1, 10**3])
def test_dates_in_the_future_are_refused_with_their_day(refusal, factor):
    message = refusal(table(timestamp=[10**9 * factor, 10**9 * factor, 4_102_444_800 * factor]))
    assert "1 of 3" in message
    assert "2100-01-01" in message
    assert "row 3" in message


def test_negative_numbers_are_no_ids_but_texts_with_a_dash_are(refusal):
    message = refusal(table(user_id=[1, -1, 2]))
    assert "negative" in message
    assert "row 2" in message
    assert "-5" in refusal(GOOD.replace("i2", "-5").replace("i1", "7"))
    table(item_id=["-5", "i1", "i2"]).write_parquet("log.parquet")
    prepare("log.parquet")
    assert Log.open("data/prepared/log").catalog.ids.to_list() == ["-5", "i1", "i2"]


def test_one_user_is_not_enough(refusal):
    assert "Only one user" in refusal(GOOD.replace("u2", "u1"))


def test_a_file_of_which_nothing_is_left_is_refused(refusal):
    assert "user_core 9" in refusal(GOOD, user_core=9)
    assert "min_length 9" in refusal(GOOD, min_length=9)
    assert "5.0" in refusal(table(stars=[1.0, 2.0, None]), rating_column="stars", min_rating=5.0)
    refusal(HEADER)
    assert "-1" in refusal(GOOD, item_core=-1)


def test_a_user_with_a_hundred_thousand_events_is_prepared(folder, command):
    count = 100_000
    times = np.random.default_rng(0).permutation(count)
    users = ["robot"] * count + ["person"] * 2
    items = [f"i{time % 100}" for time in times] + ["i0", "i1"]
    pl.DataFrame({"user_id": users, "item_id": items, "timestamp": [*times.tolist(), 0, 1]}).write_parquet(
        "log.parquet"
    )
    command("log.parquet")
    log = Log.open("data/prepared/log")
    assert np.diff(log.offsets).tolist() == [2, count]
    assert (log.times[2:] == np.arange(count)).all()


def test_ids_that_look_like_numbers_keep_their_zeros(folder, command):
    (folder / "log.csv").write_text(HEADER + "007,01,1\n7,1,2\n007,1,3\n")
    command("log.csv")
    log = Log.open("data/prepared/log")
    assert log.users.to_list() == ["007", "7"]
    assert log.catalog.ids.to_list() == ["01", "1"]


def test_a_folder_that_is_not_ours_is_left_alone(folder):
    (folder / "log.csv").write_text(GOOD)
    (folder / "thesis").mkdir()
    (folder / "thesis" / "chapter.tex").write_text("years of work")
    with pytest.raises(InputError, match="holds something else than this command writes"):
        prepare("log.csv", out=folder / "thesis")
    assert (folder / "thesis" / "chapter.tex").read_text() == "years of work"


def many_rows(folder: Path) -> None:
    """A log whose arrays take about a megabyte."""
    random = np.random.default_rng(0)
    users, items, times = random.integers(0, 1000, (3, 60_000))
    rows = pl.DataFrame({"user_id": users, "item_id": items, "timestamp": times})
    rows.select(pl.col("user_id", "item_id").cast(pl.String), "timestamp").write_parquet(folder / "log.parquet")


def run(code: str, **options) -> subprocess.Popen[str]:
    """A second interpreter in this working folder."""
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": root, "POLARS_MAX_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", code], env=environment, **pipes, **options)


def test_a_disk_that_fills_up_leaves_the_old_data_set_as_it_was(folder):
    (folder / "log.csv").write_text(GOOD)
    prepare("log.csv")
    many_rows(folder)
    code = "from seqrec.cli import main\nraise SystemExit(main(['prepare', 'log.parquet', '--out=data/prepared/log']))"

    def small_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    process = run(code, preexec_fn=small_disk)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2, errors
    assert errors.startswith("seqrec: error: ")
    assert "could not be written" in errors
    assert "Free some space" in errors
    assert errors.count("\n") == 1
    assert len(Log.open("data/prepared/log").items) == 3
    assert [path.name for path in (folder / "data/prepared").iterdir()] == ["log"]


def test_a_full_disk_of_temporary_files_is_named_with_the_file_that_was_unpacked(folder):
    (folder / "log.csv.gz").write_bytes(gzip.compress((HEADER + "user,item,1000000000\n" * 20_000).encode()))
    code = "from seqrec.cli import main\nraise SystemExit(main(['prepare', 'log.csv.gz']))"

    def small_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    process = run(code, preexec_fn=small_disk)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2, errors
    assert "no room for an unpacked copy of log.csv.gz" in errors
    assert "TMPDIR" in errors
    assert errors.count("\n") == 1
    assert [path.name for path in folder.iterdir()] == ["log.csv.gz"]


def test_a_killed_run_leaves_no_data_set_and_the_next_run_clears_up(folder):
    many_rows(folder)
    code = (
        "import time\nfrom seqrec.data import store\nfrom seqrec.cli import main\n"
        "store._fingerprint = lambda *_: print('half-way', flush=True) or time.sleep(60)\n"
        "main(['prepare', 'log.parquet'])\n"
    )
    process = run(code)
    assert process.stdout is not None
    assert process.stdout.readline() == "half-way\n"
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    left = [path.name for path in (folder / "data/prepared").iterdir()]
    assert left == [f"log.tmp-{process.pid}"]
    with pytest.raises(FileNotFoundError):
        Log.open("data/prepared/log")
    prepare("log.parquet")
    assert [path.name for path in (folder / "data/prepared").iterdir()] == ["log"]
    assert len(Log.open("data/prepared/log").items) == 60_000


def test_running_again_with_the_same_input_writes_nothing(folder):
    (folder / "log.csv").write_text(GOOD)
    prepare("log.csv")
    manifest = folder / "data/prepared/log/manifest.json"
    stamp = manifest.stat().st_mtime_ns
    time.sleep(0.01)
    os.utime("log.csv")
    prepare("log.csv")
    assert manifest.stat().st_mtime_ns == stamp
    (folder / "log.csv").write_text(GOOD + "u2,i9,1000000003\n")
    prepare("log.csv")
    assert len(Log.open(manifest.parent).items) == 4


def test_a_folder_that_one_killed_under_the_same_number_left_behind_is_in_nobodys_way(tmp_path):
    (tmp_path / f"new.tmp-{os.getpid()}").mkdir()
    with whole_folder(tmp_path / "new", "mark") as fresh:
        (fresh / "mark").write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_a_folder_appears_only_when_its_block_ends_well(tmp_path):
    def half() -> None:
        with whole_folder(tmp_path / "new", "mark") as fresh:
            (fresh / "mark").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    assert list(tmp_path.iterdir()) == []
