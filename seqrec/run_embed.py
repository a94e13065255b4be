"""Vectors of the items and histories of a prepared log, and the nearest neighbours of each."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from seqrec.data.errors import InputError
from seqrec.data.folders import whole_folder
from seqrec.data.log import Log
from seqrec.data.prefixes import Granularity, Pool
from seqrec.data.protocol import Protocol
from seqrec.run_subjects import STORE, histories_of, items_of, record_of, remark, split_of, told
from seqrec.semantics.encoders import Encoder
from seqrec.semantics.neighbours import nearest, write_neighbours
from seqrec.semantics.subjects import Subjects
from seqrec.semantics.texts import Texts
from seqrec.semantics.vectors import MANIFEST, VECTORS, Vectors, check_quotes, origin_of, write_vectors
from seqrec.semantics.writers import working

_WINDOW = 20
_OF_A_TEXT = ("text_source", "prompt_version", "domain", "quotes", "window")


def embed_items(
    data: Path,
    encoder: Encoder,
    out: Path,
    texts: Path | None = None,
    protocol: Protocol | None = None,
    store: Path = STORE,
    limit: int | None = None,
    dry_run: bool = False,
) -> None:
    """Make a vector of every item, of its title and categories or of a text that was written before.

    seqrec embed items --data data/prepared/beauty --out vectors/items
        --encoder seqrec.semantics.sentence.SentenceEncoder --encoder.model MODEL_FOLDER
    seqrec embed items --data data/prepared/beauty --out vectors/items --texts texts/beauty-items
        --encoder seqrec.semantics.hosted.HostedEncoder --encoder.service.model MODEL
    seqrec embed items --data data/prepared/beauty --out vectors/items
        --encoder seqrec.semantics.encoders.VectorFile --encoder.path my-vectors.parquet

    Args:
        data: prepared data set.
        encoder: who makes the vectors, by import path.
        out: folder to write: ids.parquet, vectors.npy, manifest.json; an older one of the kind is replaced.
        texts: folder that `seqrec describe items` wrote; by default title and categories are read.
        protocol: how the log is split, for the record; it must be that of texts whose prompts quote histories. By
            default leave-one-out.
        store: folder of all vectors so far, shared by all data sets; what is in it is not computed again.
        limit: only the first so many items, to try.
        dry_run: only say how many vectors, tokens and how much money it would take.
    """
    log = Log.open(data)
    split, record = split_of(log, protocol)
    _embed(items_of(log, split.train, 0, limit), encoder, out, texts, store, dry_run, {**record, "limit": limit})


def embed_histories(
    data: Path,
    encoder: Encoder,
    out: Path,
    texts: Path | None = None,
    window: int = _WINDOW,
    pool: Pool = Pool.training,
    granularity: Granularity = Granularity.prefix,
    protocol: Protocol | None = None,
    store: Path = STORE,
    limit: int | None = None,
    dry_run: bool = False,
) -> None:
    """Make a vector of every training prefix, of its titles or of a text that was written before.

    seqrec embed histories --data data/prepared/beauty --out vectors/histories --texts texts/beauty-histories
        --encoder seqrec.semantics.sentence.SentenceEncoder --encoder.model MODEL_FOLDER
    seqrec embed histories --data data/prepared/beauty --out vectors/histories
        --encoder seqrec.semantics.encoders.MeanOfItems --encoder.path vectors/items

    Args:
        data: prepared data set.
        encoder: who makes the vectors, by import path.
        out: folder to write: ids.parquet, vectors.npy, manifest.json; an older one of the kind is replaced.
        texts: folder that `seqrec describe histories` wrote; by default categories and titles are read.
        window: most events of a prefix that are read, the newest, where no texts are given; only for encoders that read
            texts.
        pool: training, or official, which is leaky: it has the prefix that ends in the validation item, too.
        granularity: a vector for each prefix, or one for each user, which deviates from SRA-CL.
        protocol: how the log is split; by default leave-one-out.
        store: folder of all vectors so far, shared by all data sets; what is in it is not computed again.
        limit: only the first so many histories, to try.
        dry_run: only say how many vectors, tokens and how much money it would take.
    """
    if window != _WINDOW and not encoder.reads_texts:
        raise InputError(
            f"--window {window} says how much of a history a text tells, and {type(encoder).__name__} reads no texts; "
            f"leave it out, or set MeanOfItems' own option newest with --encoder.newest {window}."
        )
    log = Log.open(data)
    split, record = split_of(log, protocol)
    histories = histories_of(log, split, pool, granularity, window, limit)
    record |= record_of(pool, granularity, window, limit) | ({} if encoder.reads_texts else {"window": None})
    _embed(histories, encoder, out, texts, store, dry_run, record)


def neighbours(vectors: Path, k: int = 100, exact: bool = True, same_user: bool = False) -> None:
    """Find the nearest neighbours of every vector of a folder, by cosine; of a user's histories, none is another's.

    seqrec neighbours --vectors vectors/histories -k 100

    With --same_user true and vectors of --pool official they are those of the released code of SRA-CL.

    Args:
        vectors: folder that `seqrec embed` wrote; the neighbours are written into it.
        k: how many, at least 1.
        exact: false looks into a part of the space only, faster where there are very many.
        same_user: of histories, leave out the row itself alone, which is leaky: the next prefix of the same user ends
            in the very item that is to be predicted.
    """
    made = Vectors.open(vectors)
    kind = made.manifest["kind"]
    if same_user and kind != "histories":
        raise InputError(f"{vectors} holds vectors of {kind}, which belong to no user; leave --same_user out.")
    by_user = kind == "histories" and not same_user
    groups = made.ids["user_id"].rank("dense").to_numpy().astype("int64") if by_user else None
    with working(STORE, "searching") as work:
        rows = nearest(made.vectors, k, groups, exact, work.begin(len(made)))
    told = {"same_user": True} if same_user else {}
    record = {"exact": exact, "groups": "user" if by_user else None, "fingerprint": made.manifest["fingerprint"]}
    write_neighbours(Path(vectors), rows, record | told)
    fewer = f"; {int((rows[:, -1] < 0).sum()):,} have fewer" if (rows[:, -1] < 0).any() else ""
    print(f"{vectors}: {k} neighbours of each of {len(rows):,} {kind}{fewer}.{remark(made.manifest | told)}")


def _embed(
    subjects: Subjects,
    encoder: Encoder,
    out: Path,
    texts: Path | None,
    store: Path,
    dry_run: bool,
    record: dict[str, Any],
) -> None:
    kind, there = subjects.kind, Path(out) / MANIFEST
    if there.is_file() and (other := origin_of(Path(out)).get("kind", kind)) != kind:
        raise InputError(f"{out} holds vectors of {other}, and these are of {kind}; choose another --out.")
    if record["limit"] is not None and not dry_run and there.is_file() and origin_of(Path(out)).get("limit") is None:
        raise InputError(f"{out} holds vectors that were made without --limit; try with another --out.")
    if texts is not None and not encoder.reads_texts:
        raise InputError(f"{type(encoder).__name__} reads no texts; leave out --texts, or choose another encoder.")
    written = None if texts is None else Texts.open(Path(texts))
    about = {"text_source": "template" if encoder.reads_texts else "none", "prompt_version": None}
    if written is not None:
        about = {name: written.manifest[name] for name in _OF_A_TEXT if name in written.manifest}

    if encoder.reads_texts and written is None and not subjects.has_words:
        warnings.warn(
            "No item of this data set has a title or categories, so its text is its raw id, which says nothing of it; "
            "prepare the data with what is known of its items, or give --texts.",
            stacklevel=3,
        )

    def read() -> list[str]:
        return subjects.summaries() if written is None else _texts_of(subjects, written, Path(str(texts)), record)

    with working(store, f"embedding {kind}") as work:
        if dry_run:
            print(told(encoder.estimate(subjects, read, work), f"vectors of {kind}") + remark(record))
            return
        vectors, made = encoder.vectors(subjects, read, work)
    with whole_folder(Path(out), VECTORS) as fresh:
        write_vectors(fresh, subjects.ids, vectors, {"kind": kind, **record, **about, **made})
    source = f"of texts by {about['text_source']}" if encoder.reads_texts else "without texts"
    alike = origin_of(Path(out))["alike"]
    told_apart = f"; {alike:,} equal another and cannot be told apart by text" if alike else ""
    size = f"{vectors.shape[1]} numbers each"
    print(f"{out}: {len(vectors):,} vectors of {kind}, {size}, {source}{told_apart}.{remark(record)}")


def _texts_of(subjects: Subjects, written: Texts, folder: Path, record: dict[str, Any]) -> list[str]:
    """The written text of each subject."""
    if (written.manifest["kind"], written.manifest["dataset"]) != (subjects.kind, record["dataset"]):
        raise InputError(
            f"{folder} has texts on {written.manifest['kind']} of a data set with the fingerprint "
            f"{written.manifest['dataset']}; name texts on the {subjects.kind} of the data set {record['dataset']}."
        )
    check_quotes(folder, subjects.catalog)
    on = subjects.ids.columns
    found = subjects.ids.join(written.table, on=on, how="left", maintain_order="left")["text"]
    if found.null_count():
        raise InputError(
            f"{folder} has no text for {found.null_count():,} of {len(subjects):,} {subjects.kind}. Run "
            f"`seqrec describe {subjects.kind}` with the same settings, without --limit."
        )
    return found.to_list()
