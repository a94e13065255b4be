"""Commands that bring a bundle to a model hub and back, through the hub's own client library."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from seqrec.catalog import Catalog
from seqrec.data.errors import InputError
from seqrec.data.folders import whole_folder
from seqrec.export.added import WITHDRAWN, read_withdrawn, still_withdrawn, write_withdrawn
from seqrec.export.bundle import CATALOG
from seqrec.export.manifest import MANIFEST, RECIPE, read_manifest, write_manifest
from seqrec.export.turns import turn


def push(bundle: Path, repo: str, private: bool = False, endpoint: str | None = None) -> None:
    """Upload a bundle to a model hub, after every file has been compared with its checksum.

    seqrec push --bundle bundles/shop --repo someone/shop --private

    Who you are is the client library's affair: log in with its own program, or set its token in the environment.

    Args:
        bundle: folder that `seqrec export` wrote.
        repo: owner and name on the hub; it is created where it does not exist, and its files are replaced.
        private: whether a new repository is seen by you alone.
        endpoint: address of the hub; without it, the one that the client library is set to.
    """
    bundle = Path(bundle)
    files = read_manifest(bundle)["files"]
    with _asking(repo) as hub:
        client = hub.HfApi(endpoint=endpoint)
        client.create_repo(repo, private=private, exist_ok=True)
        address = client.upload_folder(
            repo_id=repo,
            folder_path=bundle,
            allow_patterns=[MANIFEST, *files],
            delete_patterns="*",
            commit_message="Write a bundle of seqrec",
        )
    print(f"{bundle} is at {address.commit_url}.")


def pull(repo: str, out: Path, revision: str | None = None, endpoint: str | None = None) -> None:
    """Download a bundle from a model hub; it appears whole, with every file as its checksum says, or not at all.

    seqrec pull --repo someone/shop --out bundles/shop

    Args:
        repo: owner and name on the hub.
        out: folder to write; an older bundle there is replaced, and what it has blocked or removed stays so.
        revision: branch, tag or commit; without it, the newest.
        endpoint: address of the hub; without it, the one that the client library is set to.
    """
    out = Path(out)
    with turn(out), whole_folder(out, mark=RECIPE) as fresh:
        with _asking(repo) as hub:
            # A bundle has no folders; what lies in some is of others.
            hub.snapshot_download(repo, revision=revision, local_dir=fresh, endpoint=endpoint, ignore_patterns="*/*")
        shutil.rmtree(fresh / ".cache", ignore_errors=True)  # the client's own notes
        fields = read_manifest(fresh)
        for stranger in {each.name for each in fresh.iterdir()} - {MANIFEST, *fields["files"]}:
            (fresh / stranger).unlink()  # what hubs add, such as .gitattributes
        if withdrawn := still_withdrawn(out, Catalog.load(fresh / CATALOG)):
            theirs = read_withdrawn(fresh) if WITHDRAWN in fields["files"] else {}
            write_withdrawn(fresh, **{kind: ids.union(theirs.get(kind, ())) for kind, ids in withdrawn.items()})
            write_manifest(fresh, fields, sorted({*fields["files"], WITHDRAWN}))
    print(f"{out}: {fields['items']:,} items, ready for `seqrec recommend --bundle {out} --history ID,ID`.")


@contextmanager
def _asking(repo: str) -> Iterator[Any]:
    """The client library; what it raises is said in a sentence.

    Raises:
        InputError: the hub refuses, or cannot be reached.
        ModuleNotFoundError: the library is not installed.
    """
    try:
        import huggingface_hub as hub
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "A model hub is reached through huggingface_hub, which is not installed. Run `pip install 'seqrec[hub]'`."
        ) from error
    # What the client's own client raises when nobody answers: of requests, httpx or another, by the version.
    transport = [
        kind for kind in HfHubHTTPError.__mro__ if issubclass(kind, Exception) and kind.__module__ != "builtins"
    ][-1]
    try:
        yield hub
    except (transport, HFValidationError, hub.errors.LocalEntryNotFoundError, ConnectionError) as refusal:
        first = (str(refusal).strip() or type(refusal).__name__).splitlines()[0].rstrip(".")
        raise InputError(
            f"The hub did not answer for '{repo}' ({first}); see that the name is right, that you may use it, and that "
            "it can be reached."
        ) from refusal
