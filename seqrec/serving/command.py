"""``seqrec serve``: one process that answers over HTTP from a bundle."""

from __future__ import annotations

import ipaddress
import logging
import sys
import warnings
from pathlib import Path

import torch
import uvicorn

from seqrec.data.errors import InputError
from seqrec.export.manifest import MANIFEST
from seqrec.serving.app import build_app
from seqrec.serving.guard import Limits, read_keys, read_rate
from seqrec.serving.heads import BoundedHead
from seqrec.serving.store import is_redis, open_store

_LOCAL = ("localhost", "127.0.0.1", "[::1]")
_SECONDS_TO_FINISH = 30
# How long the model may keep Python to itself while requests come in; Python's own 5 ms show in their latency.
_SECONDS_OF_A_TURN = 0.001


def serve(
    bundle: Path,
    compare: Path | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    store: str = "events.sqlite",
    api_keys: Path | None = None,
    rate: str | None = None,
    largest_request: int = 2**20,
    watch: float = 2.0,
    threads: int = 1,
    proxy: bool = False,
) -> None:
    """Answer over HTTP from a bundle, and show a page to try it.

    seqrec serve --bundle bundles/shop
    seqrec serve --bundle bundles/sasrec --compare bundles/gru4rec --port 8000

    The page is at http://127.0.0.1:8000, the description of all requests at /docs, and what Prometheus reads at
    /metrics. A bundle that `seqrec export` writes to the same folder is taken over while requests are answered. Stop it
    with Ctrl-C or SIGTERM: what was begun is finished.

    Args:
        bundle: folder that `seqrec export` wrote.
        compare: another bundle, which the page shows beside the first and requests name as model "compare".
        host: address to listen at; this machine alone can reach 127.0.0.1, everyone 0.0.0.0.
        port: where to listen there; 0 takes a free one.
        store: where the events of users are kept: a file, or the URL of a Redis such as redis://localhost:6379/0.
        api_keys: file with one key a line, one of which every request must send as X-API-Key.
        rate: most requests of one key, or else of one address, such as 100/second or 5000/hour.
        largest_request: bytes of the largest request, at least 1.
        watch: seconds between two looks for a newer bundle in the same folder; 0 never looks.
        threads: of the processor that the model may use.
        proxy: whether a proxy on this machine passes requests on, which then decides for which Host they may be, and
            says in X-Forwarded-For from which address they come. Without it and without keys, a service that this
            machine alone can reach answers requests for localhost alone, so that no page from elsewhere can ask it.
    """
    for name, value, least in (("largest_request", largest_request, 1), ("watch", watch, 0), ("threads", threads, 1)):
        if value < least:
            raise InputError(f"--{name} is {value}; give at least {least}.")
    if not 0 <= port <= 65_535:
        raise InputError(f"--port is {port}; give 1 to 65535, or 0 for a free one.")
    keys, counted = () if api_keys is None else read_keys(api_keys), None if rate is None else read_rate(rate)
    if not keys and not _is_loopback(host):
        warnings.warn(
            f"Everyone who reaches {host} may ask; give --api_keys FILE to let in who knows one.", stacklevel=2
        )
    if (inside := _bundle_around(store, [folder for folder in (bundle, compare) if folder is not None])) is not None:
        raise InputError(f"--store is in {inside}, which is replaced whenever that changes; keep it elsewhere.")
    torch.set_num_threads(threads)
    sys.setswitchinterval(_SECONDS_OF_A_TURN)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("seqrec").setLevel(logging.INFO)
    other = None if compare is None else Path(compare)
    hosts = list(dict.fromkeys((*_LOCAL, host))) if _is_loopback(host) and not keys and not proxy else ()
    app = build_app(Path(bundle), open_store(store), other, Limits(keys, counted, largest_request, hosts), watch)
    uvicorn.run(
        app,
        host=host,
        port=port,
        http=BoundedHead,
        access_log=False,
        proxy_headers=proxy,
        timeout_graceful_shutdown=_SECONDS_TO_FINISH,
    )


def _bundle_around(store: str, bundles: list[Path]) -> Path | None:
    """The bundle whose folder a file of events would be in."""
    if is_redis(store):
        return None
    around = Path(store).resolve().parents
    return next(
        (each for each in bundles if Path(each).resolve() in around and (Path(each) / MANIFEST).is_file()), None
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
