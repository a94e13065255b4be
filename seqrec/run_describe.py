"""Texts on the items and histories of a prepared log, written by a language model or a template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from seqrec.data.folders import whole_folder
from seqrec.data.log import Log
from seqrec.data.prefixes import Granularity, Pool
from seqrec.data.protocol import Protocol
from seqrec.run_subjects import STORE, histories_of, items_of, record_of, remark, split_of, told
from seqrec.semantics.prompts import DEFAULTS, Prompt
from seqrec.semantics.subjects import Subjects
from seqrec.semantics.texts import TEXTS, write_texts
from seqrec.semantics.writers import TemplateWriter, Writer, working


def describe_items(
    data: Path,
    out: Path,
    writer: Writer | None = None,
    prompt: Path | None = None,
    domain: str = "goods and media",
    quotes: int = 5,
    protocol: Protocol | None = None,
    store: Path = STORE,
    limit: int | None = None,
    dry_run: bool = False,
) -> None:
    """Write a text on every item: what it is, and who chooses it.

    seqrec describe items --data data/prepared/beauty --out texts/beauty-items
    seqrec describe items --data data/prepared/beauty --out texts/beauty-items --domain "beauty products" --dry_run
        --writer seqrec.semantics.writers.ChatWriter --writer.service.model MODEL
        --writer.service.base_url http://localhost:8000/v1

    Interrupted work is begun again by the same command; no answer is paid for twice.

    Args:
        data: prepared data set.
        out: folder to write.
        writer: who writes; by default a template, without a language model, which the record says.
        prompt: your own prompt; by default the newest of the package.
        domain: what the items are, in the words of the prompt.
        quotes: most training histories ending in an item that a prompt quotes, at least 0.
        protocol: how the log is split; only training parts are quoted, and what is made of the texts serves no other
            protocol. By default leave-one-out.
        store: folder of all answers so far, shared by all data sets.
        limit: only the first so many items, to try.
        dry_run: only say how many texts, tokens and how much money it would take.
    """
    log = Log.open(data)
    split, record = split_of(log, protocol)
    items = items_of(log, split.train, quotes, limit)
    _describe(items, out, writer, prompt, domain, store, dry_run, {**record, "quotes": quotes, "limit": limit})


def describe_histories(
    data: Path,
    out: Path,
    writer: Writer | None = None,
    prompt: Path | None = None,
    domain: str = "goods and media",
    window: int = 20,
    pool: Pool = Pool.training,
    granularity: Granularity = Granularity.prefix,
    protocol: Protocol | None = None,
    store: Path = STORE,
    limit: int | None = None,
    dry_run: bool = False,
) -> None:
    """Write a text on the taste behind every training prefix.

    seqrec describe histories --data data/prepared/beauty --out texts/beauty-histories
    seqrec describe histories --data data/prepared/beauty --out texts/beauty-histories --granularity user --dry_run
        --writer seqrec.semantics.writers.ChatWriter --writer.service.model MODEL --writer.service.price_in 0.5
        --writer.service.price_out 1.5 --writer.service.budget 20

    Interrupted work is begun again by the same command; no answer is paid for twice.

    Args:
        data: prepared data set.
        out: folder to write.
        writer: who writes; by default a template, without a language model, which the record says.
        prompt: your own prompt; by default the newest of the package.
        domain: what the items are, in the words of the prompt.
        window: most events of a prefix that a prompt tells, the newest.
        pool: training, or official, which is leaky: it has the prefix that ends in the validation item, too.
        granularity: a text for each prefix, or one for each user, which deviates from SRA-CL and costs far less.
        protocol: how the log is split; by default leave-one-out.
        store: folder of all answers so far, shared by all data sets.
        limit: only the first so many histories, to try.
        dry_run: only say how many texts, tokens and how much money it would take.
    """
    log = Log.open(data)
    split, record = split_of(log, protocol)
    histories = histories_of(log, split, pool, granularity, window, limit)
    record |= record_of(pool, granularity, window, limit)
    _describe(histories, out, writer, prompt, domain, store, dry_run, record)


def _describe(
    subjects: Subjects,
    out: Path,
    writer: Writer | None,
    prompt: Path | None,
    domain: str,
    store: Path,
    dry_run: bool,
    record: dict[str, Any],
) -> None:
    writer = writer or TemplateWriter()
    chosen = Prompt.read(prompt or DEFAULTS[subjects.kind]).about(domain)
    with working(store, f"describing {subjects.kind}") as work:
        if dry_run:
            print(told(writer.estimate(subjects, chosen, work), f"texts on {subjects.kind}") + remark(record))
            return
        texts, made = writer.write(subjects, chosen, work)
    record = {"kind": subjects.kind, "text_source": writer.source(), "domain": domain, **record, **made}
    with whole_folder(Path(out), TEXTS) as fresh:
        write_texts(fresh, subjects.ids.with_columns(pl.Series("text", texts, dtype=pl.String)), record)
    print(f"{out}: {len(texts):,} texts on {subjects.kind}, written by {writer.source()}.{remark(record)}")
