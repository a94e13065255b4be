"""`seqrec describe`: no target reaches a prompt, what was answered survives a kill, and the record tells who wrote."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqrec.cli import main
from seqrec.data.prefixes import Granularity, Pool
from seqrec.data.protocol import GlobalTimeSplit, LeaveOneOut, RatioByUser
from seqrec.run_subjects import histories_of, items_of
from seqrec.semantics.prompts import DEFAULTS, Prompt
from seqrec.semantics.texts import Texts

PROTOCOLS = [LeaveOneOut(), RatioByUser(), GlobalTimeSplit(test_from=106, validation_days=2 / 86_400)]
USERS = 8


def everything_said(log, protocol, granularity) -> list[str]:
    """All prompts and template texts of a log."""
    split = protocol.split(log)
    histories = histories_of(log, split, Pool.training, granularity, 20, None)
    said = [histories.ids.write_csv()]
    for subjects in (items_of(log, split.train, 5, None), histories):
        prompt = Prompt.read(DEFAULTS[subjects.kind])
        said += [str(prompt.messages(subjects.facts(row))) for row in range(len(subjects))]
        said += subjects.summaries()
    return said


@given(
    st.lists(st.lists(st.integers(0, 19), min_size=1, max_size=8, unique=True), min_size=1, max_size=5),
    st.sampled_from(PROTOCOLS),
    st.sampled_from(Granularity),
    st.randoms(use_true_random=False),
)
def test_nothing_that_is_said_depends_on_an_event_of_validation_or_test(
    build_log, items, protocol, granularity, random
):
    """Every event after a user's training part becomes another item: all prompts and texts stay what they were."""
    log = build_log(items, n_items=40)
    trains = np.zeros(len(log.items), dtype=bool)
    split = protocol.split(log)
    for start, end in zip(split.train.starts, split.train.ends, strict=True):
        trains[start:end] = True
    other = np.where(trains, log.items, 20 + random.randrange(20)).astype(np.int32)
    # Its item differs in each history that the change reaches, so that no target is a repeat.
    changed = type(log)(other, log.times, log.offsets, log.catalog, log.users, log.manifest)
    protocols = {type(each): each for each in PROTOCOLS}
    assert everything_said(log, protocol, granularity) == everything_said(
        changed, protocols[type(protocol)], granularity
    )


@pytest.fixture
def shop(tmp_path) -> Path:
    """Users with five items that others share, then an item for validation and one for the test of their own."""
    rows = [
        (f"u{user}", item, 1_600_000_000 + 100 * place)
        for user in range(USERS)
        for place, item in enumerate([*(f"i{(user + step) % 9}" for step in range(5)), f"val{user}", f"test{user}"])
    ]
    pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").write_csv(tmp_path / "log.csv")
    items = sorted({item for _, item, _ in rows})
    titles = [f"Thing {item}" if item.startswith("i") else f"SECRET {item}!" for item in items]
    pl.DataFrame({"item_id": items, "title": titles}).write_csv(tmp_path / "items.csv")
    given = [f"--items_file={tmp_path / 'items.csv'}", "--title_column=title", f"--out={tmp_path / 'shop'}"]
    assert main(["prepare", str(tmp_path / "log.csv"), *given]) == 0
    return tmp_path


def describe(shop: Path, service, kind: str, *more: str, out: str = "out", store: str = "store") -> list[str]:
    writer = ["--writer=seqrec.semantics.writers.ChatWriter", f"--writer.service.base_url={service.url}"]
    writer += ["--writer.service.model=small", "--writer.keep_every=4", "--writer.service.concurrency=2"]
    place = [f"--data={shop / 'shop'}", f"--out={shop / out}", f"--store={shop / store}"]
    return ["describe", kind, *place, *writer, *more]


def prompts(service) -> list[str]:
    return ["\n".join(message["content"] for message in request["body"]["messages"]) for request in service.asked]


def test_no_validation_or_test_item_is_sent_to_a_service(shop, service):
    assert main(describe(shop, service, "histories")) == 0
    assert len(service.asked) == len(set(prompts(service))) > USERS
    assert not any("SECRET" in prompt for prompt in prompts(service))
    texts = Texts.open(shop / "out")
    assert texts.table.height == USERS * 4  # five training events: prefixes of one to four
    assert texts.table["n_events"].to_list() == [1, 2, 3, 4] * USERS
    service.asked.clear()
    assert main(describe(shop, service, "items", out="items")) == 0
    for prompt in prompts(service):  # the item itself has a title, and is in nobody's quoted history
        assert "SECRET" not in prompt.replace(prompt.split("Title: ")[1].split("\n")[0], "")


def test_the_official_pool_says_that_it_is_leaky(shop, service, capsys):
    assert main(describe(shop, service, "histories", "--pool=official")) == 0
    assert "leaky" in capsys.readouterr().out
    assert any("SECRET val" in prompt for prompt in prompts(service))
    assert not any("SECRET test" in prompt for prompt in prompts(service))
    manifest = Texts.open(shop / "out").manifest
    assert (manifest["pool"], manifest["leaky"]) == ("official", True)


def test_one_text_for_each_user_is_marked_as_a_deviation(shop, service, capsys):
    assert main(describe(shop, service, "histories", "--granularity=user")) == 0
    assert "deviation: one text per user" in capsys.readouterr().out
    texts = Texts.open(shop / "out")
    assert texts.table["n_events"].to_list() == [5] * USERS
    assert texts.manifest["deviation"]
    assert not any("SECRET" in prompt for prompt in prompts(service))


def test_the_record_says_who_wrote(shop, service, capsys):
    assert main(describe(shop, service, "items", "--limit=3", "--domain=teas")) == 0
    made = Texts.open(shop / "out")
    assert made.table.columns == ["item_id", "text"]
    assert made.table.height == 3
    assert all(text.startswith("Written of") for text in made.table["text"])
    assert (made.manifest["text_source"], made.manifest["model"], made.manifest["limit"]) == ("LLM small", "small", 3)
    assert "teas" in prompts(service)[0]
    assert "the first 3 only" in capsys.readouterr().out
    assert main(["describe", "items", f"--data={shop / 'shop'}", f"--out={shop / 'plain'}"]) == 0
    plain = Texts.open(shop / "plain")
    assert (plain.manifest["text_source"], plain.manifest["prompt_version"]) == ("template", None)
    assert "template" in capsys.readouterr().out


def test_a_dry_run_counts_and_prices_and_asks_nobody(shop, service, capsys):
    prices = ["--writer.service.price_in=1000", "--writer.service.price_out=2000"]
    assert main(describe(shop, service, "histories", "--dry-run", *prices)) == 0
    said = capsys.readouterr().out
    assert f"{USERS * 4} texts on histories" in said
    assert "tokens to read" in said
    assert float(said.split("Price: about ")[1].split()[0].rstrip(".")) > 1
    assert service.asked == []
    assert not (shop / "out").exists()
    assert not (shop / "store").exists()
    assert main(describe(shop, service, "histories", "--dry-run", "--writer.service.price_in=0.001")) == 0
    assert 0 < float(capsys.readouterr().out.split("Price: about ")[1].strip().rstrip(".")) < 0.01
    assert main(describe(shop, service, "histories", "--dry-run")) == 0
    assert "Price: unknown; give the prices" in capsys.readouterr().out
    assert main(describe(shop, service, "histories")) == 0
    capsys.readouterr()
    assert main(describe(shop, service, "histories", "--dry-run", *prices)) == 0
    assert "0 of them to be made; nothing is paid." in capsys.readouterr().out


def test_a_budget_stops_with_one_sentence_and_the_next_run_goes_on(shop, service, capsys):
    money = ["--writer.service.price_in=1000", "--writer.service.price_out=1000"]
    assert main(describe(shop, service, "histories", *money, "--writer.service.budget=3")) == 2
    said = capsys.readouterr().err
    assert "budget of 3 does not suffice" in said
    assert "Run the same command again to go on" in said
    assert not (shop / "out").exists()
    done = len(service.asked)
    assert done > 0
    assert main(describe(shop, service, "histories", *money, "--writer.service.budget=100")) == 0
    assert len(prompts(service)) == len(set(prompts(service))) > done


def test_a_killed_run_goes_on_and_asks_for_nothing_twice_that_was_kept(shop, service):
    given = describe(shop, service, "histories", "--pool=official")
    service.delay = 0.15
    program = subprocess.Popen(
        [sys.executable, "-m", "seqrec.cli", *given],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ,
    )
    while len(service.asked) < 14:
        assert program.poll() is None
        time.sleep(0.01)
    program.kill()
    assert program.wait() == -signal.SIGKILL
    service.delay = 0.0
    time.sleep(0.2)
    assert not (shop / "out").exists()
    before = set(prompts(service))
    assert main(given) == 0
    asked = prompts(service)
    # Lost at most: three answers not yet written, four being written, two under way.
    assert len(asked) - len(set(asked)) <= 9
    assert len(set(asked) - before) > 5
    assert main(describe(shop, service, "histories", "--pool=official", out="straight", store="other")) == 0
    assert Texts.open(shop / "out").table.equals(Texts.open(shop / "straight").table)
    count = len(service.asked)
    assert main(given) == 0
    assert len(service.asked) == count


def test_damaged_texts_are_refused(shop, service):
    assert main(describe(shop, service, "items")) == 0
    table = pl.read_parquet(shop / "out" / "texts.parquet")
    for other in (pl.col("text") + ".", pl.lit(None, dtype=pl.String)):
        table.with_columns(text=other).write_parquet(shop / "out" / "texts.parquet")
        with pytest.raises(ValueError, match="is not what was written"):
            Texts.open(shop / "out")
    (shop / "out" / "manifest.json").write_text(json.dumps({"kind": "items"}))
    with pytest.raises(ValueError, match="holds no texts"):
        Texts.open(shop / "out")


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (["--limit=0"], "limit is 0; try at least 1"),
        (["--pool=offical"], "Did you mean 'official'?"),
        (["--pool=official", "--granularity=user"], "official pool is one of prefixes"),
        (["--writer=seqrec.semantics.writers.ChatWriter"], "model"),
        (["--windw=3"], "Did you mean 'window'?"),
    ],
)
def test_a_mistake_is_answered_with_one_sentence(shop, capsys, mistake, words):
    assert main(["describe", "histories", f"--data={shop / 'shop'}", f"--out={shop / 'out'}", *mistake]) == 2
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("seqrec: error: ")]
    assert words in said
