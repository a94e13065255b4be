"""Download a file so that it is either whole and right, or not there."""

from __future__ import annotations

import hashlib
from pathlib import Path

import requests
from requests.adapters import HTTPAdapter
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from urllib3.util.retry import Retry

from seqrec.data.errors import InputError

_CHUNK = 1 << 15


def download(
    url: str,
    target: str | Path,
    sha256: str | None = None,
    licence: str | None = None,
    attempts: int = 4,
    backoff: float = 0.5,
) -> Path:
    """Fetch ``url`` to ``target``, continuing what an earlier call left in ``target.part``.

    A part is continued where the server says that it is of the same version of the file, or a checksum will tell.

    A target that exists already is kept; where a checksum is given it must have it.

    Args:
        url: http or https address.
        target: file to write; it appears under this name only when it is complete and checked.
        sha256: its checksum in hexadecimal, or ``None`` when unknown.
        licence: shown before the first byte is fetched.
        attempts: how often a broken transfer is continued, at least 1.
        backoff: seconds the first wait between attempts of one request lasts; it doubles each time.

    Returns:
        The target.

    Raises:
        InputError: the server refuses or breaks off for good, or the checksum differs.
    """
    target = Path(target)
    if target.exists():
        _check(target, sha256, f"{target} is not the file it should be", "remove it and download it again")
        return target
    console = Console(stderr=True)
    if licence:
        console.print(f"Licence of {target.name}: {licence}", highlight=False, markup=False)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    version = _version_of(part)
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with _session(attempts, backoff) as session, Progress(TextColumn(target.name), *columns, console=console) as bar:
        for attempt in range(attempts):
            try:
                _fetch(session, url, part, bar, is_checked=sha256 is not None)
                break
            except requests.RequestException as error:
                if attempt == attempts - 1:
                    raise InputError(
                        f"{url} broke off {attempts} times ({_reason(error)}); run the same command again to continue."
                    ) from error
            except OSError as error:
                raise InputError(f"{part} could not be written ({error}); free some space.") from error
    try:
        _check(part, sha256, f"{url} sent the wrong file", "check the address, or correct the checksum in the card")
    except InputError:
        part.unlink()
        raise
    finally:
        version.unlink(missing_ok=True)
    return part.replace(target)


def _session(attempts: int, backoff: float) -> requests.Session:
    retry = Retry(total=attempts, backoff_factor=backoff, status_forcelist=(429, 500, 502, 503, 504))
    retry.raise_on_status = False
    session = requests.Session()
    session.mount("http://", HTTPAdapter(max_retries=retry))
    session.mount("https://", HTTPAdapter(max_retries=retry))
    session.headers["Accept-Encoding"] = "identity"
    return session


def _version_of(part: Path) -> Path:
    """The file that says of which version of its file a part is: its ETag, or when it last changed."""
    return part.with_name(part.name + ".version")


def _fetch(session: requests.Session, url: str, part: Path, bar: Progress, is_checked: bool) -> None:
    """Append what is missing to ``part``; a server that ignores ranges, or has another version, makes it start over."""
    version = _version_of(part)
    known = version.read_text() if version.exists() else ""
    have = part.stat().st_size if part.exists() and (known or is_checked) else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    if have and known:
        headers["If-Range"] = known
    try:
        response = session.get(url, headers=headers, stream=True, timeout=60)
    except requests.RequestException as error:
        raise InputError(
            f"{url} cannot be reached ({_reason(error)}); check the connection and the address, "
            "or download the file yourself and pass it with --raw."
        ) from error
    with response:
        if have and response.status_code == 416:
            if response.headers.get("Content-Range", "").rpartition("/")[2] == str(have):
                return
            part.unlink()
            raise requests.ConnectionError("what was downloaded before does not fit the file any more")
        if not response.ok:
            raise InputError(
                f"{url} answered {response.status_code} {response.reason}; "
                "check the address, or download the file yourself and pass it with --raw."
            )
        continues = response.status_code == 206
        if continues and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            part.unlink()
            raise requests.ConnectionError("the server sent another range than was asked for")
        start = have if continues else 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        task = bar.add_task("", total=total, completed=start)
        with part.open("ab" if continues else "wb") as file:
            if not continues:  # only now is nothing left of another version
                etag = response.headers.get("ETag", "W/")
                version.write_text(response.headers.get("Last-Modified", "") if etag.startswith("W/") else etag)
            for chunk in response.iter_content(_CHUNK):
                file.write(chunk)
                bar.advance(task, len(chunk))
            size = file.tell()
    if total is not None and size != total:
        raise requests.ConnectionError(f"{size:,} of {total:,} bytes arrived")


def _check(path: Path, sha256: str | None, found: str, remedy: str) -> None:
    if sha256 is None:
        return
    with path.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != sha256.lower():
        raise InputError(f"{found} (sha256 {actual[:16]}…, {sha256[:16]}… was expected); {remedy}.")


def _reason(error: Exception) -> str:
    """The innermost reason, on one line."""
    while error.__context__ is not None and isinstance(error.__context__, Exception):
        error = error.__context__
    return " ".join(str(error).split())[:200] or type(error).__name__
