"""A small HTTP/1.1 server that can also misbehave: it owns a test provider's connections and the answers on them.

A test may do anything to a client with it: raw bytes, resets, half-closes, silence.  It is no server for the open
internet: it has no limits of head or body and no timeouts.  It listens on loopback by default.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from http import HTTPStatus
from typing import Any, cast

import httptools
from msgspec import Struct, field

MAX_PIPELINED = 64
_NO_LINGER = struct.pack("ii", 1, 0)
_REASONS = {status.value: status.phrase for status in HTTPStatus}
Headers = Iterable[tuple[str, str]]


class ReceivedRequest(Struct):
    """One request as it came.  Header names are lower-case; ``target`` is path and query, undecoded."""

    method: str
    target: str
    version: str
    headers: list[tuple[str, str]]
    body: bytes = b""

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    def header(self, name: str) -> str | None:
        """The first field of that (lower-case) name."""
        return next((value for key, value in self.headers if key == name), None)


class Seen(Struct):
    """The server's record of one exchange.  Instants are ``time.monotonic()`` seconds.

    ``how`` is empty while it runs.  ``complete``: the server sent all that it planned (a deliberate cut included).
    ``client_closed``: the client left first.  ``tokens``: number of sent tokens.  ``sent``: time of each
    sent piece of its body, if the server keeps that (``timed``).
    """

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    at: float
    ended_at: float | None = None
    how: str = ""
    tokens: int = 0
    connection: int = 0
    sent: list[float] | None = None


class RequestLog(Struct):
    """The exchanges, oldest first, at most ``requests.maxlen`` of them (0: none), and the listeners for changes."""

    requests: deque[Seen]
    timed: bool = False
    listeners: list[Callable[[], None]] = field(default_factory=list)

    def open(self, request: ReceivedRequest, connection: int) -> Seen:
        keep = self.requests.maxlen != 0  # with nothing kept, no prompt outlives its answer
        headers = dict(request.headers) if keep else {}
        body = request.body if keep else b""
        seen = Seen(request.method, request.target, headers, body, time.monotonic(), connection=connection)
        if self.timed:
            seen.sent = []
        self.requests.append(seen)
        self.changed()
        return seen

    def close(self, seen: Seen, how: str) -> None:
        seen.ended_at, seen.how = time.monotonic(), how
        self.changed()

    def changed(self) -> None:
        for listener in tuple(self.listeners):
            listener()


class ReplyWriter:
    """The answer to one request: well-formed through ``head``/``send``/``end``, anything at all through ``raw`` and
    the endings below.

    ``on_gone`` and ``on_room`` are called when the client has left and when a full socket has room again.
    """

    __slots__ = ("_chunked", "_connection", "_transport", "keep_alive", "on_gone", "on_room", "over", "request", "seen")

    def __init__(
        self, connection: ProviderConnection, transport: asyncio.Transport, request: ReceivedRequest, seen: Seen
    ) -> None:
        self._connection, self._transport = connection, transport
        self.request, self.seen = request, seen
        self.keep_alive = request.version == "1.1" and (request.header("connection") or "").lower() != "close"
        self._chunked = False
        self.over = False
        self.on_gone: Callable[[], None] | None = None
        self.on_room: Callable[[], None] | None = None

    @property
    def full(self) -> bool:
        """The socket takes no more for now: wait for ``on_room``."""
        return self._connection.full

    def head(self, status: int, headers: Headers = (), *, length: int | None = None, version: str = "1.1") -> None:
        """Status line and fields.  Without a ``length`` the body is chunked, or ends with the connection before
        HTTP/1.1.
        """
        lines = [f"HTTP/{version} {status} {_REASONS.get(status, 'Odd')}"]
        lines += [f"{name}: {value}" for name, value in headers]
        if length is not None:
            lines.append(f"content-length: {length}")
        elif version == "1.1" and self.request.version == "1.1":
            self._chunked = True
            lines.append("transfer-encoding: chunked")
        elif status != 204:
            self.keep_alive = False
        if not self.keep_alive:
            lines.append("connection: close")
        self.raw(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))

    def send(self, data: bytes) -> None:
        """A piece of the body, as one chunk where the body is chunked."""
        if self.seen.sent is not None:
            self.seen.sent.append(time.monotonic())
        if self._chunked and data:
            self._transport.writelines((b"%x\r\n" % len(data), data, b"\r\n"))
        elif data:
            self._transport.write(data)

    def raw(self, data: bytes) -> None:
        self._transport.write(data)

    def end(self, trailers: Headers = ()) -> None:
        """Ends a well-formed answer; the connection stays for the next request where both sides want it."""
        if self._chunked:
            fields = "".join(f"{name}: {value}\r\n" for name, value in trailers)
            self.raw(b"0\r\n" + fields.encode("latin-1") + b"\r\n")
        if self.keep_alive:
            self._connection.finished(self)
        else:
            self.close()

    def whole(self, status: int, body: bytes, kind: str = "application/json", headers: Headers = ()) -> None:
        """A complete answer with a length."""
        self.head(status, [("content-type", kind), *headers], length=len(body))
        if self.request.method != "HEAD":
            self.send(body)
        self.end()

    def close(self) -> None:
        """Send FIN after the written bytes, even if the framing announced more."""
        self._connection.finished(self, stay=False)
        self._transport.close()

    def reset(self) -> None:
        """RST at once: the client's next read or write fails with ECONNRESET."""
        sock = self._transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self._connection.finished(self, stay=False)
        self._transport.abort()

    def half_close(self) -> None:
        """FIN for what we write, while we go on reading.  TLS has no such thing: there it is a close."""
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    def deaf(self) -> None:
        """Reads nothing any more, so that not even the client's FIN is noticed."""
        self._transport.pause_reading()

    async def room(self) -> None:
        """Waits until the socket takes more."""
        if not self.full:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not waiter.done():
                waiter.set_result(None)

        self.on_room = wake
        await waiter
        self.on_room = None

    def run(self, act: Coroutine[Any, Any, None], name: str) -> None:
        """Performs ``act`` as this answer; it is cancelled when the client leaves."""
        self._connection.run(self, act, name)


class ProviderConnection(asyncio.Protocol):
    """One client's connection.  Pipelined requests are answered in order."""

    def __init__(
        self, serial: int, answer: Callable[[ReplyWriter], None], journal: RequestLog, open_: set[ProviderConnection]
    ) -> None:
        self._serial, self._answer, self._journal, self._open = serial, answer, journal, open_
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[ReceivedRequest] = deque()
        self._reply: ReplyWriter | None = None
        self.tasks: set[asyncio.Task[None]] = set()  # the acts under way; each ends with the connection at the latest
        self._url = b""
        self._headers: list[tuple[str, str]] = []
        self._body: list[bytes] = []
        self.full = False

    # ---- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._open.add(self)
        self._journal.changed()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if self._transport:
                self._transport.write(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
                self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._open.discard(self)
        self._transport = None
        self._waiting.clear()
        reply, self._reply = self._reply, None
        if reply:
            reply.over = True
            self._journal.close(reply.seen, "client_closed")
            if reply.on_gone:
                reply.on_gone()
        for task in tuple(self.tasks):
            task.cancel()
        self._journal.changed()

    def pause_writing(self) -> None:
        self.full = True

    def resume_writing(self) -> None:
        self.full = False
        if self._reply and self._reply.on_room:
            self._reply.on_room()

    # ---- httptools' side

    def on_message_begin(self) -> None:
        self._url, self._headers, self._body = b"", [], []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        expects = any(name == "expect" and value.lower() == "100-continue" for name, value in self._headers)
        if expects and self._transport and self._reply is None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        request = ReceivedRequest(
            self._parser.get_method().decode("ascii"),
            self._url.decode("latin-1"),
            self._parser.get_http_version(),
            self._headers,
            b"".join(self._body),
        )
        self._body = []
        self._waiting.append(request)
        if self._reply is None:
            self._next()
        elif len(self._waiting) > MAX_PIPELINED and self._transport:
            self._transport.abort()

    # ---- answers

    def _next(self) -> None:
        if self._transport and self._waiting:
            request = self._waiting.popleft()
            seen = self._journal.open(request, self._serial)
            self._reply = ReplyWriter(self, self._transport, request, seen)
            self._answer(self._reply)

    def finished(self, reply: ReplyWriter, *, stay: bool = True) -> None:
        """The reply is over, as the server meant it; with ``stay`` the next request may be answered."""
        if reply.over:
            return
        reply.over = True
        self._reply = None
        self._journal.close(reply.seen, "complete")
        if not stay:
            self._waiting.clear()
        elif self._waiting:
            asyncio.get_running_loop().call_soon(self._next)

    def run(self, reply: ReplyWriter, act: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(act, name=name)
        self.tasks.add(task)
        task.add_done_callback(lambda task: self._acted(reply, task))

    def _acted(self, reply: ReplyWriter, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if task.cancelled() or not task.exception():
            return
        context = {"message": f"{task.get_name()} failed", "exception": task.exception()}
        task.get_loop().call_exception_handler(context)
        if not reply.over:
            reply.reset()

    def abort(self) -> None:
        """Ends the connection because the server ends."""
        if self._transport:
            self._transport.abort()
