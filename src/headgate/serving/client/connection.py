"""One client connection: whole requests in, responses out, in order.

Owns the order of responses, the deadlines of what arrives, and how a connection ends; ``arrival`` reads the requests.
The caller of a request whose body is still on its way is checked before the body is kept.

It keeps reading while a response runs, so that the client's FIN is seen at once.  A FIN means that the client has left:
after closing its side of a stream, it does not wait for more.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import deque
from typing import Protocol, cast

from headgate.errors import (
    DRAINING,
    METHOD_NOT_ALLOWED,
    OVERLOADED,
    REQUEST_TIMEOUT,
    GatewayError,
)
from headgate.model import Limits
from headgate.serving.client.application import Application
from headgate.serving.client.arrival import COUNTED_FROM, Arrival, Bodies
from headgate.serving.client.egress import Egress
from headgate.serving.client.response import ResponseWriter
from headgate.serving.loop.turn import Turn
from headgate.serving.loop.unconnected import UNCONNECTED
from headgate.serving.loop.wheel import NEVER, Wheel
from headgate.wire.http import CONTINUE, Request

READ_AHEAD = 64 << 10  # bytes that a client may send while its response runs; more closes the connection
HIGH_WATER, LOW_WATER = 64 << 10, 16 << 10  # of a client's write buffer, inside the 256 KiB that a stream may hold
LINGER_S = 2.0  # of silence after a refusal, until the connection is cut
LINGER_BYTES = 1 << 20  # bytes that may still come after a refusal, beside one whole body
HEAD, BODY = 1, 2
MAX_QUEUED = 64  # pipelined requests that wait for a running one
NO_REQUEST = Request(b"", b"", b"", {}, b"", "1.1", False, 0.0)


class Reception(Protocol):
    """The part of the listener that its connections need."""

    app: Application
    wheel: Wheel
    turn: Turn
    limits: Limits
    bodies: Bodies
    connections: set[Connection]
    draining: bool

    def date(self) -> bytes:
        """Return the Date line of a response."""

    def refuses_when_draining(self, request: Request) -> bool:
        """True if a process that drains does not answer ``request``."""

    def check_idle(self) -> None:
        """Check if the last connection has closed."""


class Connection(Arrival, ResponseWriter, asyncio.Protocol):
    """One client connection.  At most one response runs; pipelined requests wait in order."""

    __slots__ = (
        "_ahead",
        "_app",
        "_chunked",
        "_close",
        "_dead",
        "_egress",
        "_linger_until",
        "_lingering",
        "_listener",
        "_phase",
        "_queue",
        "_running",
        "_turn",
        "_unread",
        "due",
        "paused",
        "slot",
        "transport",
        "wheel",
    )  # fmt: skip

    def __init__(self, listener: Reception) -> None:
        super().__init__(listener.limits, listener.bodies)
        self._listener = listener
        self._app = listener.app
        self.wheel = listener.wheel
        self._turn = listener.turn
        self._egress: Egress | None = None
        self._running = NO_REQUEST  # while there is an _egress: its request
        self._chunked = True
        self._queue: deque[Request] | None = None
        self._close = False
        self._dead = False
        self._unread = False  # bytes have been read in this turn and wait for its end
        self._phase = 0  # of the arriving request: whose deadline is set, HEAD or BODY
        self._lingering = 0  # the number of discarded bytes, plus one
        self._linger_until = 0.0
        self._ahead = 0
        self.paused = False
        self.due = NEVER
        self.slot = -1
        self.transport: asyncio.Transport = UNCONNECTED

    # --------------------------------------------------------------- called by the transport

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
        if self._bodies.held:
            self._release_bodies()
        self._queue = None
        self._running = NO_REQUEST
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
        self._unread = True
        self._listener.turn.run(self._take, data)

    def _take(self, data: bytes) -> None:
        """Work through the bytes of one read, in its turn."""
        self._unread = False
        if self._dead:
            return
        if self._lingering:
            self._discard(data)
            return
        if self._egress is not None:
            self._ahead += len(data)
            if self._ahead > READ_AHEAD:
                # A response is running and the client floods: its requests cannot be answered in time.
                self.transport.abort()
                return
        if self._reading_body:
            self._feed_body(data)
        else:
            self._head_size += len(data)
            self._feed(data)
        if self._egress is None:
            self._go_on()

    def _go_on(self) -> None:
        """Answer an error or wait for the rest of a request.  No response runs."""
        if self._reading_body and self._error is None:
            self._take_body()
        if self._error is not None:
            self._refuse(self._error)
        elif self._head_size and not self._reading_body and self._phase != HEAD:
            # This is the time for the whole request, however slowly it drips (slow-loris).
            self._phase = HEAD
            self.wheel.set(self, self.wheel.now + self._limits.header_timeout)

    def _take_body(self) -> None:
        """Take a part of a body.  If the answer does not depend on the body, answer now: no bytes are kept for an
        unknown caller.
        """
        if self._phase != BODY:
            request = self._request(b"")
            if not self._app.reads_body(request):
                self._close = True
                self._lingering = 1
                self._drop_body()
                self._begin(request)
                return
            self._phase = BODY
            self.wheel.set(self, self.wheel.now + self._limits.body_timeout)
            if self._owes_continue and not self._body:
                self.write(CONTINUE)
            self._owes_continue = False
        if len(self._body) > COUNTED_FROM:
            self._count_body()

    def _discard(self, data: bytes) -> None:
        """Keep reading after a refusal while the client still sends, so that it gets the reason and not a reset."""
        self._lingering += len(data)
        if self._lingering > LINGER_BYTES + self._limits.max_body:
            self.transport.abort()
        elif self._linger_until:
            self.due = min(self.wheel.now + LINGER_S, self._linger_until)

    # --------------------------------------------------------------- called by the reading side

    def request_read(self, request: Request) -> None:
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
        self._phase = 0
        self._running = request
        egress = self._egress = Egress(self)
        if not request.keep_alive or self._listener.draining:
            self._close = True
        self._listener.turn.run(self._start, egress)  # a step of its own: a thousand pipelined ones are no recursion

    def _start(self, egress: Egress) -> None:
        if egress.gone:
            return
        request = self._running
        if request.method == b"CONNECT":
            self._close = True  # the next bytes are for the other end of a tunnel that does not exist
            self._app.refuse(
                GatewayError(METHOD_NOT_ALLOWED, "this is a gateway, not a forward proxy"), request, egress
            )
        elif self._listener.draining and self._listener.refuses_when_draining(request):
            self._app.refuse(
                GatewayError(DRAINING, "this gateway is shutting down; connect again", retry_after=1), request, egress
            )
        else:
            self._app.call(request, egress)

    def ended(self) -> None:
        """End the running response."""
        if self._bodies.held:
            self._release(self._running)
        self._egress = None
        self._running = NO_REQUEST
        self._ahead = 0
        if self._dead:
            return
        if self._close:
            self._finish()
            return
        if self._queue:
            self._begin(self._queue.popleft())
        elif self._error is not None or self._head_size or self._reading_body:
            self._go_on()
        else:
            self.wheel.set(self, self.wheel.now + self._limits.idle_timeout)

    def _release(self, request: Request) -> None:
        """Release the body of ``request``, whose call is over."""
        size = len(request.body)
        if size > COUNTED_FROM:
            self._bodies.release(size)

    def _release_bodies(self) -> None:
        self._drop_body()
        for request in self._queue or ():
            self._release(request)
        self._release(self._running)

    def _finish(self) -> None:
        self._queue = None
        if self._reading_body or self._lingering:
            self._lingering = self._lingering or 1
        self._listener.turn.send(self._hang_up, None)

    def _refuse(self, error: GatewayError) -> None:
        """Answer a request that could not be read, and close."""
        self._error = None
        self._close = True
        self._lingering = 1
        self._drop_body()
        empty = Request(b"", b"", b"", self._headers, b"", "1.1", False, time.monotonic())
        self._running = empty
        egress = self._egress = Egress(self)
        self._app.refuse(error, empty, egress)

    def _hang_up(self, _: None) -> None:
        if not self._lingering:
            self.transport.close()
            return
        if self.transport.can_write_eof() and not self.transport.is_closing():
            self.transport.write_eof()
        self._linger_until = self.wheel.now + self._limits.body_timeout
        self.wheel.set(self, self.wheel.now + LINGER_S)

    def report_to(self, egress: Egress) -> None:
        """See ``egress.ResponseSink``."""
        self._egress = egress

    def close_after_response(self) -> None:
        self._close = True

    def common_fields(self) -> bytes:
        """Return Date, Connection, and CORS fields if the request's origin may read the answer."""
        out = self._listener.date()
        request = self._running
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
        """Close now if no response runs, else after it: the process drains."""
        self._close = True
        if (
            self._egress is None
            and not self._queue
            and not self._reading_body
            and not self._head_size
            and not self._unread
        ):
            self.transport.close()

    def expire(self, now: float) -> None:
        """Called by the wheel: end a silent connection, a slow head or a slow body."""
        if self._unread:
            self.wheel.set(self, now + 1.0)
        elif self._lingering:
            self.transport.abort()
        elif self._egress is None and (self._head_size or self._reading_body):
            self._refuse(GatewayError(REQUEST_TIMEOUT, "the request did not arrive in time"))
        else:
            self.transport.close()
