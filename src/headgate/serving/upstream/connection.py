"""One upstream connection and the request that runs on it.

Owns the socket, the parsing of the answer's framing and the deadlines of an attempt.  One connection per running
request is what makes cancelling exact: closing it is all that a provider understands.  Refuses to know what a body
means.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol, cast

import httptools

from headgate.errors import (
    POOL_FULL,
    UPSTREAM_CUT,
    UPSTREAM_GARBAGE,
    UPSTREAM_RESET,
    UPSTREAM_TIMEOUT,
    UPSTREAM_TOO_LARGE,
    GatewayError,
)
from headgate.model import Timeouts
from headgate.serving.loop.fiber import Signal
from headgate.serving.loop.wheel import NEVER
from headgate.serving.upstream.decoding import Unpacker, error_of, intake_of, is_plainly_events, is_stream
from headgate.wire.coding import CodingError, decode
from headgate.wire.intake import Intake

if TYPE_CHECKING:
    from headgate.serving.upstream.transport import Pool

READ = 64 << 10  # one read of an upstream: with the client's 64 KiB of unsent bytes this bounds what a stream can hold
MAX_HEAD = 64 << 10
MAX_ERROR_BODY = 256 << 10
JOIN_BELOW = 16 << 10
SUCCESSES = range(200, 300)
SETTLE_S = 1.0

_monotonic = time.monotonic

# One buffer for all upstream connections: it is filled, and copied from or emptied, within one callback.
_read_buffer = bytearray(READ)
_read_view = memoryview(_read_buffer)


class Sink(Protocol):
    """Where the bytes of a streamed body go."""

    def feed(self, data: bytes) -> None:
        """Take the bytes of one read."""

    def ended(self) -> None:
        """The body is complete."""

    def failed(self, error: GatewayError) -> None:
        """The body will not be complete."""


class Asking(Signal["Upstream"]):
    """One request on its way.  Awaited, it gives the connection, with a streamed answer's head or all of a whole one.

    ``deadline`` is the latest end of the whole attempt.  Instants are monotonic seconds: ``queued`` when a connection
    was there or began to be made, ``connected`` when the request was sent.  The awaiting call must ``release`` it,
    whether it succeeds or fails.
    """

    upstream: Upstream | None = None
    left = False  # no call waits any more
    headers: Mapping[bytes, bytes] = {}  # the client's, of which some went along
    queued = connected = 0.0
    due = NEVER  # of the wait for a connection
    slot = -1

    def __init__(
        self, pool: Pool, head: bytes, body: bytes, stream: bool, timeouts: Timeouts, deadline: float, max_answer: int
    ) -> None:
        self.pool = pool
        self.head = head
        self.body = body
        self.stream = stream
        self.timeouts = timeouts
        self.deadline = deadline
        self.max_answer = max_answer

    def release(self, *, finished: bool) -> None:
        """The call is done with it.  ``finished``: it has seen the answer's end, so that the connection may serve
        again.
        """
        self.left = True
        if self.upstream is not None:
            self.upstream.release(finished=finished)
        else:
            self.pool.forget(self)

    def expire(self, now: float) -> None:
        """The wheel: no connection came free in time."""
        self.left = True
        self.pool.forget(self)
        self.fail(
            GatewayError(
                POOL_FULL,
                f"all {self.pool.limits.max_connections} connections to the provider are busy "
                f"and none came free within {now - self.queued:.1f} s",
                retry_after=1,
            )
        )


class Upstream(asyncio.BufferedProtocol):
    """One upstream connection, and the request that runs on it.

    An answer is *streamed* if the request asked for it and the upstream agreed.  It agrees with a status of success
    and a body of events, by its type or its first bytes.  Then the Asking is set and the body goes to ``sink``.
    Otherwise it is *whole*: the Asking is set when all of it is in ``body``.
    """

    asking: Asking | None = None
    sink: Sink | None = None
    fresh = True  # has not carried a request yet
    due = NEVER
    slot = -1
    phase = "total"
    heard = 0.0  # the wheel's now at the last event: assigned by the relay, looked at when the stall deadline comes up
    _reading = True
    _paused_in = ""
    _ending = 0.0  # seconds that the end was given
    _sent = False
    _settling = False  # the call is done with it, the framing is not
    # of one answer:
    status = 0
    body = b""
    streamed = False
    _probe: Intake | None = None  # finds out whether a body is a stream, where its type does not say so
    _unpacker: Unpacker | None = None  # of a streamed body that is not plainly events
    _head_complete = _complete = _keep_alive = False
    _size = 0  # of the heads, interim ones too; then of what came since the last piece of the body

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._run = pool.turn.run
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._pieces: list[bytes] = []
        self._gathered = bytearray()  # of a whole answer: the bytes of earlier reads
        self.on_body = self._pieces.append  # httptools calls it for each piece: no Python frame
        self._parser = httptools.HttpResponseParser(self)
        self.born = pool.wheel.now
        self.headers: dict[bytes, bytes] = {}

    # --------------------------------------------------------------- one request

    def send(self, asking: Asking) -> None:
        """Sends a request and arms its deadlines."""
        self.asking = asking
        asking.upstream = self
        asking.connected = _monotonic()
        self.headers = {}
        self.status = self._size = 0
        self.streamed = self._head_complete = self._complete = self._sent = False
        due = asking.deadline
        if asking.stream:
            self._probe = None
            self.phase = "headers"
            due = min(due, self._pool.wheel.now + asking.timeouts.headers)
        else:
            self.phase = "total"
        self._pool.wheel.set(self, due)
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

    def expect(self, phase: str, seconds: float) -> None:
        """The next thing that must happen, and how long it may take.  Earlier deadlines only through here."""
        self.phase = phase
        self._pool.wheel.set(self, min(self._pool.wheel.now + seconds, self._asked.deadline))

    def begin_stalling(self) -> None:
        """The first token has come: from now on it is the silence between events that is bounded."""
        if self.asking is not None and self._reading:
            self.heard = self._pool.wheel.now
            self.expect("stall", self.asking.timeouts.stall)

    def begin_ending(self, seconds: float) -> None:
        """Wait for the end; the rest has come."""
        if self.phase in ("stall", "first_token", "end"):
            self._ending = seconds
            self.expect("end", seconds)

    @property
    def reading(self) -> bool:
        """False while it waits for a slow client."""
        return self._reading

    def hold(self) -> None:
        """No more is to be read before what is here has gone."""
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def read_on(self) -> None:
        if self._reading and not self._transport.is_closing():
            self._transport.resume_reading()

    def later(self, step: Callable[[None], None]) -> None:
        """Does ``step`` in the next turn, when what was written in this one has been sent."""
        self._pool.turn.send(lambda _: self._pool.turn.run(step, None), None)

    def pause(self) -> None:
        """The client is slow: stop reading.  The upstream is not stalling while we do not listen."""
        if self._reading:
            self._reading = False
            self._transport.pause_reading()
            self._paused_in = self.phase
            self.phase = "total"
            self.due = self._asked.deadline

    def resume(self) -> None:
        if not self._reading:
            self._reading = True
            self._transport.resume_reading()
            if self._paused_in == "first_token":
                self.expect("first_token", self._asked.timeouts.first_token)
            elif self._paused_in == "end":
                self.expect("end", self._ending)
            else:
                self.begin_stalling()
            if self._unpacker is not None:
                self._unpacker.resume()

    def release(self, *, finished: bool) -> None:
        """The call is done with it: back to the pool where it is clean, closed where it is not.

        ``finished``: the dialect has seen the end of the stream, so that only the framing's own end may be missing.
        That end often comes in a packet of its own; it gets a second to come.
        """
        self.sink = None
        self._pieces.clear()
        if self._complete:
            self._give_back()
        elif finished and self.streamed and self._reading:
            self.asking = None
            self._settling = True
            self._pool.wheel.set(self, self._pool.wheel.now + SETTLE_S)
        else:
            self.abort()

    def _give_back(self) -> None:
        self.asking = None
        self._settling = False
        if self._keep_alive and self._reading and not self._transport.is_closing():
            self.fresh = False
            self._pool.put(self)
        else:
            self.abort()

    def abort(self) -> None:
        """Closes at once.  Under TLS close() would wait for the peer's goodbye, and the engine would go on."""
        self.asking = self.sink = None
        self._pool.lost(self)
        self._pool.wheel.drop(self)
        if not self._transport.is_closing():
            self._transport.abort()

    # --------------------------------------------------------------- called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return _read_view

    def buffer_updated(self, nbytes: int) -> None:
        self._run(self._take, _read_view[:nbytes].tobytes())
        if nbytes == READ and self._reading:
            # libuv would read on and on, and no step could pause it before the turn ends: one such read a turn.
            self._transport.pause_reading()
            self._pool.turn.send(self._read_on, None)

    def _read_on(self, _: None) -> None:
        self.read_on()

    def _take(self, data: bytes) -> None:
        """Work through the bytes of one read, in its turn."""
        sink = self.sink
        if sink is None and not self._expects(data):
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self._complete:
                if self.sink is not None and self._pieces:
                    self._feed(self.sink)  # the sound bytes before it go to the client
                self.fail(GatewayError(UPSTREAM_GARBAGE, f"the provider's answer is not valid HTTP: {error}"))
                return
            self._keep_alive = False  # the answer is whole; bytes after it belong to no request
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
        """Count a read without body bytes, after the head: a trailer, a chunk's extension, or the digits of its size.

        httptools joins the parts of a trailer's value by copying all of it.  Trailers follow a complete body, so at
        the limit the body counts as complete.  Cut JSON would not parse, and a stream has its own end.
        """
        self._size += size
        if self._size <= MAX_HEAD:
            if self.asking is not None and self.asking.stream and not self.streamed:
                self._begin_streaming(self.asking)
            return
        if self._settling:
            self.abort()
        elif self.sink is not None or not self._gathered:
            said = f"the provider sent over {MAX_HEAD} bytes of trailers or chunk extensions"
            self.fail(GatewayError(UPSTREAM_GARBAGE, said))
        else:
            self._complete, self._keep_alive = True, False
            self._collect(self._asked)

    def _settle(self) -> None:
        self._size = 0
        self._pieces.clear()
        if self._complete:
            self._give_back()

    def _expects(self, data: bytes) -> bool:
        """Whether bytes that come outside of a running stream are part of an answer."""
        if self._settling:
            return True
        if self.asking is None:
            # No request runs: a late byte of an old answer, or a 408 of a server that closes idle connections.
            self.abort()
            return False
        if self._complete:  # behind a whole answer that the call has not taken yet
            self._keep_alive = False
            return False
        if not self._sent:  # an answer to a request that was not sent belongs to another
            self.fail(GatewayError(UPSTREAM_GARBAGE, "the provider answered before it was asked"))
            return False
        if not self._head_complete:
            self._size += len(data)
        return True

    def eof_received(self) -> bool:
        return False  # close; a body that ends with its connection is completed by connection_lost

    def connection_lost(self, error: Exception | None) -> None:
        pool = self._pool
        if self.asking is not None and not self.fresh and not self._size and not self._head_complete:
            # A pooled connection that closes before any byte of an answer was stale: asked again, once, on a new one.
            # That one takes this one's place: so it is made before the place is given away.
            asking, self.asking = self.asking, None
            asking.upstream = None
            pool.dial(asking)
        pool.lost(self)
        pool.wheel.drop(self)
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

    # --------------------------------------------------------------- called by the parser

    def on_message_begin(self) -> None:
        if self._complete:  # a second answer to one request: llhttp stops here, and the first answer stands
            raise httptools.HttpParserError("more than one answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head_complete:  # trailers come here too, and must not change what the head has said
            self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if 100 <= status < 200:  # an interim answer is no answer (RFC 9110 §15.2); httptools ends a message for it
            self.headers = {}
            return
        self.status = status
        self._head_complete = True
        self._size = 0

    def on_message_complete(self) -> None:
        self._complete = self._head_complete
        self._keep_alive = self._parser.should_keep_alive()  # llhttp forgets it with the message

    # --------------------------------------------------------------- the answer

    def _deliver(self) -> None:
        """Pass the bytes of the last read to their receiver."""
        asking = self._asked
        if asking.stream and not self.streamed:
            self._begin_streaming(asking)
        if not self.streamed:
            self._collect(asking)

    def _begin_streaming(self, asking: Asking) -> None:
        if self.status not in SUCCESSES or not self._comes_streamed(asking):
            return
        if self._gathered:  # what came before it could be told
            self._pieces.insert(0, bytes(self._gathered))
            self._gathered.clear()
        self.streamed = True
        self.expect("first_token", asking.timeouts.first_token)
        self._run(asking.set, self)  # the call runs on, and attaches its sink

    def _comes_streamed(self, asking: Asking) -> bool:
        """Whether the body is a stream: as its type says or, where that says another thing, as it begins."""
        probe = self._probe
        if probe is None:
            if is_plainly_events(self.headers):
                return True
            probe = self._probe = intake_of(self.headers, asking.max_answer)
            self.expect("first_token", asking.timeouts.first_token)
        return is_stream(probe, b"".join(self._pieces))

    def attach(self, sink: Sink) -> None:
        """From here on ``sink`` gets the body, beginning with what is here already."""
        most = self._asked.max_answer
        intake = intake_of(self.headers, most) if self._probe is not None else None
        self.sink = self._unpacker = Unpacker(self, sink, intake, most)
        if self._pieces or self._complete:
            self._feed(self.sink)

    def _feed(self, sink: Sink) -> None:
        pieces = self._pieces
        if pieces:
            self._size = 0
            sink.feed(pieces.pop() if len(pieces) == 1 else self._joined())
        if self._complete and self.sink is not None:
            self.sink.ended()

    def _joined(self) -> bytes:
        data = b"".join(self._pieces)
        self._pieces.clear()
        return data

    def _collect(self, asking: Asking) -> None:
        """A whole answer comes together.  Each read costs what it brought, however many reads and chunks there are."""
        pieces = self._pieces
        body = pieces.pop() if len(pieces) == 1 else self._joined()
        if self._complete and not self._gathered and len(body) <= asking.max_answer:
            self._answer(asking, body)  # in one read
        else:
            self._gather(asking, body)

    def _gather(self, asking: Asking, body: bytes) -> None:
        self._size = 0
        gathered = self._gathered
        gathered += body
        limit = self._most_of(asking)
        if len(gathered) > limit:
            gathered.clear()
            self.fail(GatewayError(UPSTREAM_TOO_LARGE, f"the provider's answer is over {limit} bytes"))
        elif self._complete:
            body = bytes(gathered)
            gathered.clear()
            self._answer(asking, body)

    def _most_of(self, asking: Asking) -> int:
        return asking.max_answer if self.status in SUCCESSES else MAX_ERROR_BODY

    def _answer(self, asking: Asking, body: bytes) -> None:
        self.body = body
        if body[:1] != b"{":
            self._decode(self._most_of(asking))
        self._run(asking.set, self)  # which does nothing where that has failed

    def _decode(self, limit: int) -> None:
        """Decode a whole body.  If that fails, a refusal is classified by its status alone."""
        try:
            self.body = decode(self.headers.get(b"content-encoding", b""), self.body, limit)
        except CodingError as error:
            self.body = b""
            if self.status in SUCCESSES:
                self.fail(error_of(error))

    @property
    def open(self) -> bool:
        return not self._transport.is_closing()

    @property
    def _asked(self) -> Asking:
        return cast(Asking, self.asking)

    def _ends_with_connection(self) -> bool:
        # RFC 9112 §6.3: neither a length nor chunks means that the body runs until the connection closes.
        coding = self.headers.get(b"transfer-encoding", b"").lower().rstrip()
        return not coding.endswith(b"chunked") if coding else b"content-length" not in self.headers

    def fail(self, error: GatewayError) -> None:
        asking, sink = self.asking, self.sink
        self.asking = None
        self.abort()
        if asking is not None and not asking.done:
            asking.fail(error)
        elif sink is not None:
            sink.failed(error)

    def expire(self, now: float) -> None:
        """The wheel: a deadline of the attempt has passed, or the connection has been idle for too long."""
        if self.asking is None:
            self.abort()
            return
        quiet_until = self.heard + self.asking.timeouts.stall
        if self.phase == "stall" and now < min(quiet_until, self.asking.deadline):
            self.expect("stall", quiet_until - now)
            return
        phase = "total" if now >= self.asking.deadline else self.phase
        self.fail(
            GatewayError(UPSTREAM_TIMEOUT, f"the provider did not answer in time ({_PHASES[phase]} took too long)")
        )


_PHASES = {
    "headers": "the response head",
    "first_token": "the first token",
    "stall": "the next token",
    "end": "the end of the answer",
    "total": "the whole answer",
}
