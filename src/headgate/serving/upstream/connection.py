"""One upstream connection and the request that runs on it.

Owns the socket and the order of steps: send, read, deliver, give back.  ``answer`` reads the framing, ``patience`` has
the deadlines of an attempt.  Each running request has one connection, so that a cancel is exact: providers understand
nothing but its end.  Does not know the meaning of a body.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol, cast

import httptools

from headgate.errors import UPSTREAM_CUT, UPSTREAM_GARBAGE, UPSTREAM_RESET, GatewayError
from headgate.ports import Sink
from headgate.serving.loop.turn import Turn
from headgate.serving.loop.unconnected import UNCONNECTED
from headgate.serving.loop.wheel import NEVER, Wheel
from headgate.serving.upstream.answer import MAX_HEAD, AnswerReader
from headgate.serving.upstream.asking import HttpAsking
from headgate.serving.upstream.decoding import Unpacker, intake_of, is_plainly_events, is_stream
from headgate.serving.upstream.patience import Patience
from headgate.wire.bodies.intake import Intake
from headgate.wire.http import SUCCESSES

READ = 64 << 10  # one read; with the client's 64 KiB of unsent bytes, this bounds the memory of a stream
JOIN_BELOW = 16 << 10
SETTLE_S = 1.0

_monotonic = time.monotonic

# One buffer for all upstream connections: each callback fills it, and copies or empties it.
_read_buffer = bytearray(READ)
_read_view = memoryview(_read_buffer)


class ConnectionPool(Protocol):
    """The part of the pool that its connections need."""

    @property
    def turn(self) -> Turn: ...

    @property
    def wheel(self) -> Wheel: ...

    def put(self, upstream: HttpUpstream) -> None:
        """Take a clean connection back."""

    def lost(self, upstream: HttpUpstream) -> None:
        """Free the place of a connection that is closed or will be.  A second call has no effect."""

    def dial(self, asking: HttpAsking) -> None:
        """Make a new connection for a request."""


class HttpUpstream(AnswerReader, asyncio.BufferedProtocol):
    """Implements ``ports.Upstream``: one connection, and the request that runs on it.

    An answer is *streamed* if the request asked for it and the upstream agreed.  It agrees with a status of success
    and a body of events, by its type or its first bytes.  Then the asking is set and the body goes to ``sink``.
    Otherwise it is *whole*: the asking is set when all of it is in ``body``.
    """

    asking: HttpAsking | None = None
    sink: Sink | None = None
    fresh = True  # has not carried a request yet
    due = NEVER  # of an idle connection, and of one whose framing is to end
    slot = -1
    _reading = True
    _sent = False
    _settling = False  # the call is done with it, the framing is not
    _probe: Intake | None = None  # recognises a stream by its bytes, if its type is another one
    _unpacker: Unpacker | None = None  # of a streamed body that is not plainly events

    def __init__(self, pool: ConnectionPool) -> None:
        super().__init__()
        self._pool = pool
        self._run = pool.turn.run
        self._transport: asyncio.Transport = UNCONNECTED
        self.patience = Patience(pool.wheel, self.fail)
        self.opened_at = pool.wheel.now

    # --------------------------------------------------------------- one request

    def send(self, asking: HttpAsking) -> None:
        """Sends a request and arms its deadlines."""
        self.asking = asking
        asking.upstream = self
        asking.connected = _monotonic()
        self.due = NEVER
        self.headers = {}
        self.status = self._size = 0
        self.streamed = self._head_complete = self._complete = self._sent = False
        self._probe = None
        self.patience.begin(asking.timeouts, asking.deadline, asking.stream)
        if len(asking.body) < JOIN_BELOW:
            self._pool.turn.send(self._write, asking.head + asking.body)
        else:  # joining a head and a large body costs more than parsing it did
            self._pool.turn.send(self._write_large, (asking.head, asking.body))

    def _write(self, data: bytes) -> None:
        self._sent = True
        if not self._transport.is_closing():
            self._transport.write(data)

    def _write_large(self, pieces: tuple[bytes, ...]) -> None:
        self._sent = True
        if not self._transport.is_closing():
            self._transport.writelines(pieces)

    @property
    def reading(self) -> bool:
        """False while it waits for a slow client."""
        return self._reading

    def hold(self) -> None:
        """Stop reading until the present bytes are sent."""
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def read_on(self) -> None:
        if self._reading and not self._transport.is_closing():
            self._transport.resume_reading()

    def later(self, step: Callable[[None], None]) -> None:
        """Do ``step`` in the next turn, when the bytes written in this turn have been sent."""
        self._pool.turn.send(lambda _: self._pool.turn.run(step, None), None)

    def pause(self) -> None:
        """See ``ports.Upstream``."""
        if self._reading:
            self._reading = False
            self._transport.pause_reading()
            self.patience.pause()

    def resume(self) -> None:
        """See ``ports.Upstream``."""
        if not self._reading:
            self._reading = True
            self._transport.resume_reading()
            self.patience.resume()
            if self._unpacker is not None:
                self._unpacker.resume()

    def release(self, *, finished: bool) -> None:
        """End the call's use of it: a clean connection goes back to the pool, another one is closed.

        ``finished``: the dialect has seen the end of the stream.  The end of the framing often comes in a later packet;
        the connection waits a second for it.
        """
        self.sink = None
        self._pieces.clear()
        if self._complete:
            self._give_back()
        elif finished and self.streamed and self._reading:
            self.asking = None
            self._settling = True
            self.patience.end()
            self._pool.wheel.set(self, self._pool.wheel.now + SETTLE_S)
        else:
            self.abort()

    def _give_back(self) -> None:
        self.asking = None
        self._settling = False
        self.patience.due = NEVER  # an assignment, because a method call would cost a frame; ``begin`` arms it again
        if self._keep_alive and self._reading and not self._transport.is_closing():
            self.fresh = False
            self._pool.put(self)
        else:
            self.abort()

    def abort(self) -> None:
        """Closes at once.  Under TLS close() would wait for the peer's goodbye, and the engine would go on."""
        self.asking = self.sink = None
        self._forget()
        if not self._transport.is_closing():
            self._transport.abort()

    def _forget(self) -> None:
        """Drop all references: the connection is gone or will be."""
        self._pool.lost(self)
        self._pool.wheel.drop(self)
        self.patience.drop()

    # --------------------------------------------------------------- called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return _read_view

    def buffer_updated(self, nbytes: int) -> None:
        self._run(self._take, _read_view[:nbytes].tobytes())
        if nbytes == READ and self._reading:
            # libuv would read again and again, and a pause comes only after the turn: allow one such read a turn.
            self._transport.pause_reading()
            self._pool.turn.send(self._read_on, None)

    def _read_on(self, _: None) -> None:
        self.read_on()

    def _take(self, data: bytes) -> None:
        """Take the bytes of one read, in the turn of the read."""
        sink = self.sink
        if sink is None and not self._expects(data):
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self._complete:
                if self.sink is not None and self._pieces:
                    self._feed(self.sink)  # the client gets the valid bytes before the error
                self.fail(GatewayError(UPSTREAM_GARBAGE, f"the provider's answer is not valid HTTP: {error}"))
                return
            self._keep_alive = False  # the answer is whole; later bytes belong to no request
        if not self._pieces and self._head_complete and not self._complete:
            self._count_bare(len(data))
        elif sink is not None:
            self._feed(sink)
        elif self._settling:
            self._settle()
        elif self._head_complete:
            self._deliver()
        elif self._size > MAX_HEAD:
            self.fail(GatewayError(UPSTREAM_GARBAGE, f"the provider's response head is over {MAX_HEAD} bytes"))

    def _count_bare(self, size: int) -> None:
        """Count a read after the head that contains no byte of the body: a trailer, a chunk's extension, or a size.

        httptools joins the parts of a trailer's value by copying all of it.  Trailers follow a complete body, so at the
        limit the body counts as complete.  A cut would still be seen: JSON does not parse, and a stream has its own
        end.
        """
        self._size += size
        if self._size <= MAX_HEAD:
            if self.asking is not None and self.asking.stream and not self.streamed:
                self._begin_streaming(self.asking)
            return
        if self._settling:
            self.abort()
        elif self.sink is not None or not self._gathered:
            reason = f"the provider sent over {MAX_HEAD} bytes of trailers or chunk extensions"
            self.fail(GatewayError(UPSTREAM_GARBAGE, reason))
        else:
            self._complete, self._keep_alive = True, False
            self._collect_whole(self._asking_now)

    def _settle(self) -> None:
        self._size = 0
        self._pieces.clear()
        if self._complete:
            self._give_back()

    def _expects(self, data: bytes) -> bool:
        """True if bytes outside of a running stream belong to an answer."""
        if self._settling:
            return True
        if self.asking is None:
            # There is no request: a late byte of an old answer, or a 408 of an idle server.
            self.abort()
            return False
        if self._complete:  # after a whole answer that the call has not taken yet
            self._keep_alive = False
            return False
        if not self._sent:  # an answer before the request was sent belongs to another request
            self.fail(GatewayError(UPSTREAM_GARBAGE, "the provider answered before it was asked"))
            return False
        if not self._head_complete:
            self._size += len(data)
        return True

    def eof_received(self) -> bool:
        return False  # close; a body that ends with its connection is completed by connection_lost

    def connection_lost(self, error: Exception | None) -> None:
        if self.asking is not None and not self.fresh and not self._size and not self._head_complete:
            # A pooled connection that closes before any byte of an answer was stale.  The request is sent again, once,
            # on a new connection.  That takes the place of this one, so it is made before the place is freed.
            asking, self.asking = self.asking, None
            asking.upstream = None
            self._pool.dial(asking)
        self._forget()
        if self.asking is None or self._complete:
            return
        if self._head_complete and error is None and self._ends_with_connection():
            self._complete = True
            if self.sink is not None:
                self._feed(self.sink)
            else:
                self._deliver()
        elif self._head_complete:
            self.fail(GatewayError(UPSTREAM_CUT, "the provider closed the connection in the middle of its answer"))
        else:
            self.fail(GatewayError(UPSTREAM_RESET, "the provider closed the connection before it answered"))

    # --------------------------------------------------------------- the answer

    def _deliver(self) -> None:
        """Pass the bytes of the last read to their receiver."""
        asking = self.asking
        assert asking is not None  # a read outside of an answer has been refused (``_expects``)
        if asking.stream and not self.streamed:
            self._begin_streaming(asking)
        if not self.streamed:
            self._collect_whole(asking)

    def _begin_streaming(self, asking: HttpAsking) -> None:
        if self.status not in SUCCESSES or not self._comes_streamed(asking):
            return
        if self._gathered:  # bytes from before its form was known
            self._pieces.insert(0, bytes(self._gathered))
            self._gathered.clear()
        self.streamed = True
        self.patience.begin_first_token()
        self._run(asking.set, self)  # the call runs on, and attaches its sink

    def _comes_streamed(self, asking: HttpAsking) -> bool:
        """True if the body is a stream, by its type or by its first bytes."""
        probe = self._probe
        if probe is None:
            if is_plainly_events(self.headers):
                return True
            probe = self._probe = intake_of(self.headers, asking.max_answer)
            self.patience.begin_first_token()
        return is_stream(probe, b"".join(self._pieces))

    def attach(self, sink: Sink) -> None:
        """See ``ports.Upstream``."""
        most = self._asking_now.max_answer
        intake = intake_of(self.headers, most) if self._probe is not None else None
        self.sink = self._unpacker = Unpacker(self, sink, intake, most)
        if self._pieces or self._complete:
            self._feed(self.sink)

    def detach(self) -> None:
        """See ``ports.Upstream``."""
        self.sink = None

    def _feed(self, sink: Sink) -> None:
        pieces = self._pieces
        if pieces:
            self._size = 0
            sink.feed(pieces.pop() if len(pieces) == 1 else self._joined())
        if self._complete and self.sink is not None:
            self.sink.ended()

    def _collect_whole(self, asking: HttpAsking) -> None:
        try:
            if self._collect(asking.max_answer):
                self._run(asking.set, self)
        except GatewayError as error:
            self.fail(error)

    @property
    def open(self) -> bool:
        return not self._transport.is_closing()

    @property
    def _asking_now(self) -> HttpAsking:
        return cast(HttpAsking, self.asking)

    def fail(self, error: GatewayError) -> None:
        asking, sink = self.asking, self.sink
        self.asking = None
        self.abort()
        if asking is not None and not asking.done:
            asking.fail(error)
        elif sink is not None:
            sink.failed(error)

    def expire(self, now: float) -> None:
        """The wheel: the connection has been idle for too long, or its framing has not ended in time."""
        self.abort()
