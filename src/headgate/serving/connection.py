"""One client connection: whole requests in, responses out, in order.

Owns what has been read of a request, the limits that hold while it arrives, and the order of responses.  Whatever
cannot be read as exactly one request is answered 400 and closed (RFC 9112 §6.3): a second reading of the same bytes is
how requests are smuggled.

It keeps reading while a response runs, so that the client's FIN is seen at once; FIN counts as gone, for a client that
closes its side of a stream has nothing more to read for.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import deque
from typing import TYPE_CHECKING, cast

import httptools

from headgate.errors import (
    BAD_FRAMING,
    DRAINING,
    HEAD_TOO_LARGE,
    METHOD_NOT_ALLOWED,
    OVERLOADED,
    PAYLOAD_TOO_LARGE,
    REQUEST_TIMEOUT,
    GatewayError,
)
from headgate.serving.egress import Egress
from headgate.serving.wheel import NEVER
from headgate.wire.http import CONTINUE, ONCE, Request

if TYPE_CHECKING:
    from headgate.serving.listener import Listener

READ_AHEAD = 64 << 10  # what a client may send while its response runs; more closes the connection
HIGH_WATER, LOW_WATER = 64 << 10, 16 << 10  # of a client's write buffer, inside the 256 KiB that a stream may hold
LINGER_S, LINGER_BYTES = 2.0, 8 << 20  # after a refusal: read on, so that the client reads the reason and not a reset
MAX_QUEUED = 64  # pipelined requests waiting behind a running one


class Connection(asyncio.Protocol):
    """One client connection.  At most one response runs; pipelined requests wait in order."""

    __slots__ = (
        "_ahead",
        "_app",
        "_body",
        "_close",
        "_dead",
        "_egress",
        "_error",
        "_head_size",
        "_headers",
        "_kept",
        "_lingering",
        "_listener",
        "_owes_continue",
        "_parser",
        "_phase",
        "_queue",
        "_reading_body",
        "_repeats",
        "_url",
        "due",
        "on_body",
        "paused",
        "slot",
        "transport",
        "wheel",
    )  # fmt: skip

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._app = listener.app
        self.wheel = listener.wheel
        self._body = bytearray()
        self.on_body = self._body.extend  # httptools calls it for each piece: no Python frame
        self._parser = httptools.HttpRequestParser(self)
        self._egress: Egress | None = None
        self._queue: deque[Request] | None = None
        self._close = False
        self._dead = False
        self._kept = False  # something has been read in this turn and waits for its end
        self._lingering = 0
        self._error: GatewayError | None = None
        self._owes_continue = False
        self._reading_body = False
        self._ahead = 0
        self._fresh()
        self.paused = False
        self.due = NEVER
        self.slot = -1
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)

    def _fresh(self) -> None:
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._repeats = 0
        self._head_size = 0
        self._body.clear()
        self._reading_body = False
        self._phase = 0  # 1: the head's deadline is set, 2: the body's

    # --------------------------------------------------------------- what the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.transport.set_write_buffer_limits(HIGH_WATER, LOW_WATER)
        listener = self._listener
        listener.connections.add(self)
        if len(listener.connections) > listener.limits.max_connections:
            self._refuse(GatewayError(OVERLOADED, "too many connections; try again shortly", retry_after=1))
            return
        self.wheel.set(self, self.wheel.now + listener.limits.header_timeout)

    def connection_lost(self, error: Exception | None) -> None:
        self._listener.connections.discard(self)
        self.wheel.drop(self)
        self._left()
        if self._listener.draining:
            self._listener.check_idle()

    def eof_received(self) -> bool:
        self._left()
        return False  # close

    def _left(self) -> None:
        if self._dead:
            return
        self._dead = True
        self._queue = None
        egress, self._egress = self._egress, None
        if egress is not None:
            egress.leave()

    def pause_writing(self) -> None:
        self.paused = True
        if self._egress is not None and self._egress.source is not None:
            self._egress.source.pause()

    def resume_writing(self) -> None:
        self.paused = False
        if self._egress is not None and self._egress.source is not None:
            self._egress.source.resume()

    def data_received(self, data: bytes) -> None:
        self._kept = True
        self._listener.turn.run(self._take, data)

    def _take(self, data: bytes) -> None:
        """What one read brought, in its turn."""
        self._kept = False
        if self._dead:
            return
        if self._lingering:
            self._lingering += len(data)
            if self._lingering > LINGER_BYTES:
                self.transport.abort()
            return
        if self._egress is not None:
            self._ahead += len(data)
            if self._ahead > READ_AHEAD:
                # A response is running and the client floods: nothing of it can be answered in time.
                self.transport.abort()
                return
        if not self._reading_body:
            self._head_size += len(data)
        self._feed(data)
        if self._egress is not None:
            return
        if self._error is not None:
            self._refuse(self._error)
        elif self._head_size or self._reading_body:
            self._limit_arrival()

    def _limit_arrival(self) -> None:
        """A head or a body is on its way: it has so long in all, however it drips (slow-loris)."""
        phase = 2 if self._reading_body else 1
        if phase != self._phase:
            self._phase = phase
            limits = self._listener.limits
            self.wheel.set(
                self, self.wheel.now + (limits.body_timeout if self._reading_body else limits.header_timeout)
            )

    def _feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._error is None and self._reading_body:
                self._ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            if self._error is None:
                self._error = GatewayError(BAD_FRAMING, f"the request is not valid HTTP/1.1: {error}")
        else:
            if len(self._body) > self._listener.limits.max_body and self._error is None:
                self._error = self._body_too_large()
                self._body.clear()
            if (
                not self._reading_body
                and self._head_size > self._listener.limits.max_head
                and self._error is None
                and self._url
            ):
                # Only a head that is still incomplete counts the bytes of this read: a complete one has been weighed.
                self._error = self._head_too_large()

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Reads the request as if nothing had been offered (RFC 9110 §7.8); java.net.http offers h2c with every one.

        llhttp takes what follows such a head for the other protocol, body included: so it gets a head without the
        offer.
        """
        if self.transport.is_closing():  # too many pipelined ones: each would be a recursion
            return
        head = b"%b %b HTTP/1.1\r\n" % (self._parser.get_method(), self._url)
        if not self._parser.should_keep_alive():
            head += b"connection: close\r\n"
        for name, value in self._headers.items():
            if name not in (b"upgrade", b"connection"):
                head += b"%b: %b\r\n" % (name, value)
        self._fresh()
        self._head_size = len(head)
        self._parser = httptools.HttpRequestParser(self)
        self._feed(head + b"\r\n" + rest)

    # --------------------------------------------------------------- what the parser calls

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in self._headers:
            self._repeated(name, value)
        else:
            self._headers[name] = value

    def _repeated(self, name: bytes, value: bytes) -> None:
        self._repeats += 1
        if name in ONCE:
            self._error = GatewayError(BAD_FRAMING, f"the header {name.decode('latin-1')} appears twice")
        elif self._repeats <= self._listener.limits.max_header_fields:  # joining again and again is quadratic
            self._headers[name] += b", " + value

    def on_headers_complete(self) -> None:
        if self._error is not None:
            return
        limits = self._listener.limits
        headers = self._headers
        self._reading_body = True
        if len(headers) + self._repeats > limits.max_header_fields:
            self._error = GatewayError(HEAD_TOO_LARGE, f"more than {limits.max_header_fields} header fields")
            return
        if self._head_size > limits.max_head:
            weight = len(self._url) + sum(len(name) + len(value) + 4 for name, value in headers.items())
            if weight > limits.max_head:
                self._error = self._head_too_large()
                return
        coding = headers.get(b"transfer-encoding")
        if coding is not None and coding.lower() != b"chunked":
            self._error = GatewayError(BAD_FRAMING, "only Transfer-Encoding: chunked is understood")
            return
        if b"host" not in headers and self._parser.get_http_version() == "1.1":
            self._error = GatewayError(BAD_FRAMING, "an HTTP/1.1 request needs a Host header (RFC 9112 §3.2)")
            return
        length = headers.get(b"content-length")
        if length is not None and int(length) > limits.max_body:
            self._error = self._body_too_large()
            return
        if b"expect" in headers and (coding is not None or (length is not None and length != b"0")):
            self._expect_body(headers)

    def _expect_body(self, headers: dict[bytes, bytes]) -> None:
        if headers[b"expect"].lower() == b"100-continue" and self._parser.get_http_version() == "1.1":
            if self._egress is None:
                self.write(CONTINUE)
            else:
                self._owes_continue = True  # responses go out in order, interim ones too

    def on_message_complete(self) -> None:
        parser = self._parser
        method = parser.get_method()
        if self._error is not None or (
            b"upgrade" in self._headers and parser.should_upgrade() and method != b"CONNECT"
        ):
            return
        if len(self._body) > self._listener.limits.max_body:
            self._error = self._body_too_large()
            return
        path, _, query = self._url.partition(b"?")
        if path[:1] != b"/":
            path = _origin_form(path)
        request = Request(
            method,
            path,
            query,
            self._headers,
            bytes(self._body),
            parser.get_http_version(),
            parser.should_keep_alive(),
            time.monotonic(),
        )
        self._owes_continue = False
        self._fresh()
        if self._egress is None:
            self._begin(request)
        else:
            queue = self._queue
            if queue is None:
                queue = self._queue = deque()
            queue.append(request)
            if len(queue) > MAX_QUEUED:
                self.transport.abort()

    # --------------------------------------------------------------- one response after the other

    def _begin(self, request: Request) -> None:
        self.due = NEVER
        egress = self._egress = Egress(self, request)
        if not request.keep_alive or self._listener.draining:
            self._close = True
        self._listener.turn.run(self._start, egress)  # a step of its own: a thousand pipelined ones are no recursion

    def _start(self, egress: Egress) -> None:
        request = egress.request
        if egress.gone:
            return
        if request.method == b"CONNECT":
            self._app.refuse(GatewayError(METHOD_NOT_ALLOWED, "this is a gateway, not a forward proxy"), egress)
        elif self._listener.draining and self._listener.refuses_when_draining(request):
            self._app.refuse(
                GatewayError(DRAINING, "this gateway is shutting down; connect again", retry_after=1), egress
            )
        else:
            self._app.call(request, egress)

    def ended(self) -> None:
        """The running response has been written (told by its egress)."""
        self._egress = None
        self._ahead = 0
        if self._dead:
            return
        if self._close:
            self._finish()
            return
        if self._queue:
            self._begin(self._queue.popleft())
        elif self._error is not None:
            self._refuse(self._error)
        elif self._head_size or self._reading_body:
            if self._owes_continue:
                self._owes_continue = False
                self.write(CONTINUE)
            self._limit_arrival()
        else:
            self.wheel.set(self, self.wheel.now + self._listener.limits.idle_timeout)

    def write(self, data: bytes) -> None:
        """Sends when what this turn has to remember is written; in order."""
        self._listener.turn.write(self.transport, data)

    def _finish(self) -> None:
        self._queue = None
        if self._reading_body or self._lingering:
            self._lingering = self._lingering or 1
        self._listener.turn.send(self._hang_up, None)

    def _refuse(self, error: GatewayError) -> None:
        """Answers what could not be read, and closes."""
        self._error = None
        self._close = True
        self._lingering = 1
        empty = Request(b"", b"", b"", self._headers, b"", "1.1", False, time.monotonic())
        egress = self._egress = Egress(self, empty)
        self._app.refuse(error, egress)

    def _hang_up(self, _: None) -> None:
        if not self._lingering:
            self.transport.close()
            return
        if self.transport.can_write_eof() and not self.transport.is_closing():
            self.transport.write_eof()
        self.wheel.set(self, self.wheel.now + LINGER_S)

    def respond_with(self, egress: Egress) -> None:
        """The running response is ``egress``'s from now on."""
        self._egress = egress

    def close_after_response(self) -> None:
        self._close = True

    def common_fields(self, request: Request) -> bytes:
        """Date, the connection's fate, and CORS where the request has an origin that may read the answer."""
        out = self._listener.date()
        if self._close:
            out += b"Connection: close\r\n"
        elif request.version == "1.0":
            out += b"Connection: keep-alive\r\n"
        origin = request.headers.get(b"origin")
        if origin is not None:
            allowed = self._app.allowed_origin(origin)
            if allowed is not None:
                out += (
                    b"Access-Control-Allow-Origin: "
                    + allowed
                    + b"\r\nAccess-Control-Expose-Headers: *\r\nVary: Origin\r\n"
                )
        return out

    def close_if_idle(self) -> None:
        """Draining: a connection without a running response has nothing to wait for."""
        self._close = True
        if (
            self._egress is None
            and not self._queue
            and not self._reading_body
            and not self._head_size
            and not self._kept
        ):
            self.transport.close()

    def expire(self, now: float) -> None:
        """The wheel: silence, a slow head or a slow body."""
        if self._kept:
            self.wheel.set(self, now + 1.0)
        elif self._lingering:
            self.transport.abort()
        elif self._egress is None and (self._head_size or self._reading_body):
            self._refuse(GatewayError(REQUEST_TIMEOUT, "the request did not arrive in time"))
        else:
            self.transport.close()

    def _head_too_large(self) -> GatewayError:
        return GatewayError(HEAD_TOO_LARGE, f"the request head is over {self._listener.limits.max_head} bytes")

    def _body_too_large(self) -> GatewayError:
        return GatewayError(PAYLOAD_TOO_LARGE, f"the body is over {self._listener.limits.max_body} bytes")


def _origin_form(target: bytes) -> bytes:
    """The path of an absolute-form target (RFC 9112 §3.2.2); anything else as it is."""
    _, found, rest = target.partition(b"://")
    return b"/" + rest.partition(b"/")[2] if found else target
