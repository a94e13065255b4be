"""HTTP as uvicorn speaks it, with a bound on what comes before the body of a request."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Of the first line and the headers. Browsers send a few thousand, proxies pass on 8 to 64 KiB.
LARGEST_HEAD = 2**16
_REFUSAL = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class BoundedHead(HttpToolsProtocol):
    """Ends a connection whose request line and headers have no end, before the application hears of it.

    The parser keeps what it has of a head until it is whole and copies it with each piece, so that one connection could
    hold up all others.
    """

    _in_head, _n_bytes, _n_requests = True, 0, 0

    def data_received(self, data: bytes) -> None:
        before = self._in_head, self._n_requests
        super().data_received(data)
        goes_on = before == (True, self._n_requests) and self._in_head
        self._n_bytes = self._n_bytes + len(data) if goes_on else 0
        if self._n_bytes > LARGEST_HEAD and not self.transport.is_closing():
            self.transport.write(_REFUSAL)
            self.transport.close()

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_head = True
        self._n_requests += 1
        super().on_message_complete()
