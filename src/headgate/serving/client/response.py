"""The writing side of a client's connection: responses in the framing of HTTP/1.1 and 1.0."""

from __future__ import annotations

import asyncio

from headgate.serving.loop.turn import Turn
from headgate.wire.http import LAST_CHUNK, Request, chunk, status_line

JOIN_BELOW = 16 << 10
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\n"
    b"Content-Type: text/event-stream; charset=utf-8\r\n"
    b"Cache-Control: no-cache\r\n"
    b"X-Accel-Buffering: no\r\n"
)


class ResponseWriter:
    """Writes one response after the other.  A subclass has the state and the order.

    ``_running``: the request of the running response.  ``_chunked``: the running stream uses the chunked coding.
    """

    __slots__ = ()
    transport: asyncio.Transport
    _turn: Turn
    _running: Request
    _chunked: bool

    def close_after_response(self) -> None:
        """End the connection with the running response."""
        raise NotImplementedError

    def common_fields(self) -> bytes:
        """Return the header lines that every response has."""
        raise NotImplementedError

    def ended(self) -> None:
        """Called when the running response is written."""
        raise NotImplementedError

    def write(self, data: bytes) -> None:
        """Send when the records of this turn are written; in order."""
        self._turn.write(self.transport, data)

    # --------------------------------------------------------------- called by the Egress; see egress.ResponseSink

    def answer(self, status: int, fields: bytes, body: bytes, content_type: bytes) -> int:
        head = b"%bContent-Type: %b\r\nContent-Length: %d\r\n%b%b\r\n" % (
            status_line(status), content_type, len(body), fields, self.common_fields(),
        )  # fmt: skip
        if self._running.method == b"HEAD":
            body = b""
        if len(body) < JOIN_BELOW:
            self._turn.write(self.transport, head + body)
        else:  # joining a head and a large body costs more than parsing it did
            self._turn.write(self.transport, head)
            self._turn.write(self.transport, body)
        self.ended()
        return len(body)

    def empty(self, status: int, fields: bytes) -> None:
        self.write(status_line(status) + fields + self.common_fields() + b"\r\n")
        self.ended()

    def begin(self, fields: bytes) -> None:
        chunked = self._running.version != "1.0"
        self._chunked = chunked  # type: ignore[misc]  # a slot of the subclass
        framing = b"Transfer-Encoding: chunked\r\n" if chunked else b""
        if not chunked:  # HTTP/1.0: the body ends with the connection
            self.close_after_response()
        self.write(b"".join((STREAM_HEAD, framing, fields, self.common_fields(), b"\r\n")))

    def send(self, events: bytes) -> int:
        self._turn.write(self.transport, chunk(events) if self._chunked else events)
        return len(events)

    def end(self, events: bytes, *, whole: bool) -> int:
        self.write(chunk(events) + LAST_CHUNK if self._chunked else events)
        self.ended()
        return len(events)

    def cut(self) -> None:
        self.transport.abort()
