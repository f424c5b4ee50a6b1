"""The upstream side: pools of HTTP/1.1 connections, one request at a time on each.

Owns every upstream socket, the deadlines of an attempt, and the one door to the providers' keys (wire.signing).  One
connection per running request is what makes cancelling exact: closing it is all that a provider understands.
Refuses to know what a body means; a failure leaves here as a GatewayError, translated once.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import deque
from typing import NamedTuple, Protocol, cast

import httptools

from headgate.errors import (
    NO_PROVIDER_KEY,
    POOL_FULL,
    UPSTREAM_CUT,
    UPSTREAM_GARBAGE,
    UPSTREAM_RESET,
    UPSTREAM_TIMEOUT,
    UPSTREAM_TOO_LARGE,
    UPSTREAM_UNREACHABLE,
    GatewayError,
)
from headgate.model import Attempt, Provider, Timeouts
from headgate.model import Pool as PoolLimits
from headgate.ports import Directory
from headgate.serving.connect import Dialer, Origin, origin_of
from headgate.serving.fiber import Signal
from headgate.serving.wheel import NEVER, Wheel
from headgate.wire.signing import credential

READ = 64 << 10  # one read of an upstream: with the client's 64 KiB of unsent bytes this bounds what a stream can hold
MAX_HEAD = 64 << 10
MAX_ERROR_BODY = 256 << 10
JOIN_BELOW = 16 << 10
SETTLE_S = 1.0
USER_AGENT = b"headgate"
_HEAD = (
    b"POST %b HTTP/1.1\r\nHost: %b\r\nUser-Agent: %b\r\n"
    b"Accept-Encoding: identity\r\nContent-Type: application/json\r\n%b"
)

log = logging.getLogger("headgate.transport")

# One buffer for all upstream connections: it is filled and emptied within one callback.
_read_buffer = bytearray(READ)
_read_view = memoryview(_read_buffer)


class Ask(NamedTuple):
    """One request to an upstream.  ``due`` is the latest end of the whole attempt, monotonic seconds."""

    head: bytes
    body: bytes
    stream: bool
    timeouts: Timeouts
    due: float
    max_answer: int


class Sink(Protocol):
    """Where the bytes of a streamed body go."""

    def feed(self, data: bytes) -> None:
        """What one read brought."""

    def ended(self) -> None:
        """The body is complete."""

    def failed(self, error: GatewayError) -> None:
        """The body will not be complete."""


class Upstream(asyncio.BufferedProtocol):
    """One upstream connection, and the request that runs on it.

    The answer comes in one of two ways: *streamed*, where the request asked for it and the upstream agreed (status
    200, not JSON or HTML): then ``answered`` is set at the head and the body goes to ``sink``; else *whole*:
    ``answered`` is set when all of it is in ``body``.
    """

    __slots__ = (
        "_ask", "_complete", "_head_complete", "_keep_alive", "_parser", "_pieces", "_pool", "_reading", "_settling", "_size",
        "_transport", "_was_reset", "answered", "body", "born", "due", "fresh", "headers", "on_body", "phase", "sink", "slot",
        "status", "streamed",
    )  # fmt: skip

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._pieces: list[bytes] = []
        self.on_body = self._pieces.append  # httptools calls it for each piece: no Python frame
        self._parser = httptools.HttpResponseParser(self)
        self.born = pool.wheel.now
        self.due = NEVER
        self.slot = -1
        self.answered: Signal[None] | None = None
        self.sink: Sink | None = None
        self._reading = True
        self._settling = False
        self.fresh = True
        self._was_reset = False
        self._clear()

    def _clear(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self.streamed = False
        self._head_complete = self._complete = self._keep_alive = False
        self._size = 0

    # --------------------------------------------------------------- one request

    def ask(self, ask: Ask) -> Signal[None]:
        """Sends a request.  The Signal is set at the head of a streamed answer, at the end of a whole one.

        It fails with a GatewayError; the connection is closed then.  Where the waiting call is cancelled: ``abort``.
        """
        self._clear()
        self._ask = ask
        answered: Signal[None] = Signal()
        self.answered = answered
        due = ask.due
        if ask.stream:
            self.phase = "headers"
            due = min(due, self._pool.wheel.now + ask.timeouts.headers)
        else:
            self.phase = "total"
        self._pool.wheel.set(self, due)
        if len(ask.body) < JOIN_BELOW:
            self._transport.write(ask.head + ask.body)
        else:
            self._transport.writelines((ask.head, ask.body))
        return answered

    @property
    def stale(self) -> bool:
        """A pooled connection that was closed before any byte of an answer: the request may go out again, on a new one."""
        return self._was_reset and not self.fresh and self._size == 0

    def expect(self, phase: str, seconds: float) -> None:
        """The next thing that must happen, and how long it may take.  Earlier deadlines only through here."""
        self.phase = phase
        self._pool.wheel.set(self, min(self._pool.wheel.now + seconds, self._ask.due))

    def progress(self) -> None:
        """An event came: the stall deadline moves on.  Called for every read of every stream, so it only assigns."""
        ask = self._ask
        due = self._pool.wheel.now + ask.timeouts.stall
        self.phase = "stall"
        self.due = due if due < ask.due else ask.due

    def pause(self) -> None:
        """The client is slow: stop reading.  The upstream is not stalling while we do not listen."""
        if self._reading:
            self._reading = False
            self._transport.pause_reading()
            self.phase = "total"
            self.due = self._ask.due

    def resume(self) -> None:
        if not self._reading:
            self._reading = True
            self._transport.resume_reading()
            self.expect("stall", self._ask.timeouts.stall)

    def release(self, *, finished: bool) -> None:
        """The call is done with it: back to the pool where it is clean, closed where it is not.

        ``finished``: the dialect has seen the end of the stream, so that only the framing's own end may be missing,
        which often comes in a packet of its own; it gets a second to come.
        """
        self.sink = None
        self._pieces.clear()
        if self._complete:
            self._give_back()
        elif finished and self.streamed and self._reading:
            self.answered = None
            self._settling = True
            self._pool.wheel.set(self, self._pool.wheel.now + SETTLE_S)
        else:
            self.abort()

    def _give_back(self) -> None:
        self.answered = None
        self._settling = False
        if self._keep_alive and self._reading and not self._transport.is_closing():
            self.fresh = False
            self._pool.put(self)
        else:
            self.abort()

    def abort(self) -> None:
        """Closes at once.  Under TLS close() would wait for the peer's goodbye, and the engine would go on."""
        self.sink = None
        self._pool.lost(self)
        self._pool.wheel.drop(self)
        if not self._transport.is_closing():
            self._transport.abort()

    # --------------------------------------------------------------- what the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return _read_view

    def buffer_updated(self, nbytes: int) -> None:
        if self.answered is None and not self._settling:
            # Nobody asked: a late byte of an old answer, or a 408 of a server that grew tired.
            self.abort()
            return
        if not self._head_complete:
            self._size += nbytes
        try:
            self._parser.feed_data(_read_view[:nbytes])
        except httptools.HttpParserError as error:
            self._fail(GatewayError(UPSTREAM_GARBAGE, f"the provider's answer is not valid HTTP: {error}"))
            return
        if self._settling:
            self._pieces.clear()
            if self._complete:
                self._give_back()
        elif self._head_complete:
            self._deliver()
        elif self._size > MAX_HEAD:
            self._fail(GatewayError(UPSTREAM_GARBAGE, f"the provider's response head is over {MAX_HEAD} bytes"))

    def eof_received(self) -> bool:
        return False  # close; a body that ends with its connection is completed by connection_lost

    def connection_lost(self, error: Exception | None) -> None:
        pool = self._pool
        pool.lost(self)
        pool.wheel.drop(self)
        if self.answered is None or self._complete:
            return
        if self._head_complete and error is None and self._ends_with_connection():
            self._complete = True
            self._deliver()
        elif self._head_complete:
            self._fail(GatewayError(UPSTREAM_CUT, "the provider closed the connection in the middle of its answer"))
        else:
            self._was_reset = True
            self._fail(GatewayError(UPSTREAM_RESET, "the provider closed the connection before it answered"))

    # --------------------------------------------------------------- what the parser calls

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if 100 <= status < 200:  # an interim answer is no answer (RFC 9110 §15.2); httptools ends a message for it
            self.headers = {}
            self._size = 0
            return
        self.status = status
        self._head_complete = True
        self._size = 0

    def on_message_complete(self) -> None:
        self._complete = self._head_complete
        self._keep_alive = self._parser.should_keep_alive()  # llhttp forgets it with the message

    # --------------------------------------------------------------- the answer

    def _deliver(self) -> None:
        """What the last read brought, to whoever waits for it."""
        answered = cast("Signal[None]", self.answered)
        if not answered.done and self._ask.stream and _can_stream(self.status, self.headers):
            self.streamed = True
            self.expect("first_token", self._ask.timeouts.first_token)
            answered.set(None)  # the call runs on right here, and sets the sink
        if not self.streamed:
            self._collect(answered)
            return
        sink = self.sink
        if sink is None:  # the call has left meanwhile
            return
        pieces = self._pieces
        if pieces:
            data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            pieces.clear()
            sink.feed(data)
        if self._complete and self.sink is not None:
            self.sink.ended()

    def _collect(self, answered: Signal[None]) -> None:
        self._size = sum(map(len, self._pieces))
        limit = self._ask.max_answer if self.status == 200 else MAX_ERROR_BODY
        if self._size > limit:
            self._fail(GatewayError(UPSTREAM_TOO_LARGE, f"the provider's answer is over {limit} bytes"))
        elif self._complete:
            pieces = self._pieces
            self.body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            pieces.clear()
            answered.set(None)

    def _ends_with_connection(self) -> bool:
        # RFC 9112 §6.3: neither a length nor chunks means that the body runs until the connection closes.
        return b"content-length" not in self.headers and b"transfer-encoding" not in self.headers

    def _fail(self, error: GatewayError) -> None:
        answered, sink = self.answered, self.sink
        self.answered = None
        self.abort()
        if answered is not None and not answered.done:
            answered.fail(error)
        elif sink is not None:
            sink.failed(error)

    def expire(self, now: float) -> None:
        """The wheel: a deadline of the attempt has passed, or the connection has been idle for too long."""
        if self.answered is None:
            self.abort()
            return
        phase = "total" if now >= self._ask.due else self.phase
        self._fail(
            GatewayError(UPSTREAM_TIMEOUT, f"the provider did not answer in time ({_PHASES[phase]} took too long)")
        )


_PHASES = {
    "headers": "the response head",
    "first_token": "the first token",
    "stall": "the next token",
    "total": "the whole answer",
}


def _can_stream(status: int, headers: dict[bytes, bytes]) -> bool:
    # Some servers send events under text/plain or no type at all; JSON and HTML are answers of another kind.
    kind = headers.get(b"content-type", b"")
    return status == 200 and b"json" not in kind and b"html" not in kind


class Pool:
    """The connections to one origin.  ``size`` counts running, idle and being made."""

    def __init__(self, origin: Origin, provider: Provider, dialer: Dialer, wheel: Wheel) -> None:
        self.wheel = wheel
        self._origin = origin
        self._limits = provider.pool
        self._ca_file = provider.ca_file
        self._dialer = dialer
        self._idle: dict[Upstream, None] = {}  # in order of use
        self._members: set[Upstream] = set()
        self._waiting: deque[_Waiter] = deque()
        self._dialing: set[asyncio.Task[None]] = set()

    @property
    def size(self) -> int:
        return len(self._members) + len(self._dialing)

    def take_idle(self) -> Upstream | None:
        """The connection that was used last, where it is young enough."""
        idle = self._idle
        now = self.wheel.now
        while idle:
            upstream, _ = idle.popitem()
            if now - upstream.born < self._limits.max_age_s and not upstream._transport.is_closing():
                return upstream
            upstream.abort()
        return None

    async def take(self, connect_s: float) -> Upstream:
        """A connection for one request: pooled, or new, or the next that is given back.

        Raises GatewayError: unreachable, timed out, or no room within the provider's ``wait_s``.
        """
        upstream = self.take_idle()
        return upstream if upstream is not None else await self.dial(connect_s)

    async def dial(self, connect_s: float) -> Upstream:
        """A new connection where there is room for one; else the next that is given back."""
        waiter = _Waiter(self)
        if self.size < self._limits.max_connections:
            self._start_dialing(waiter, connect_s)
        else:
            self._waiting.append(waiter)
            self.wheel.set(waiter, self.wheel.now + self._limits.wait_s)
        try:
            return await waiter.ready
        finally:
            waiter.left = True
            self.wheel.drop(waiter)

    def put(self, upstream: Upstream) -> None:
        """A clean connection comes back."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.left:
                waiter.ready.set(upstream)
                return
        self._idle[upstream] = None
        self.wheel.set(upstream, self.wheel.now + self._limits.idle_s)

    def lost(self, upstream: Upstream) -> None:
        """A connection is closed or will be: its place is free."""
        if upstream in self._members:
            self._members.discard(upstream)
            self._idle.pop(upstream, None)
            while self._waiting and self.size < self._limits.max_connections:
                waiter = self._waiting.popleft()
                if not waiter.left:
                    self._start_dialing(waiter, 3.0)

    def close(self) -> None:
        for task in self._dialing:
            task.cancel()
        for upstream in list(self._members):
            upstream.abort()

    def _start_dialing(self, waiter: _Waiter, connect_s: float) -> None:
        task = asyncio.get_running_loop().create_task(
            self._dial(waiter, connect_s), name=f"connect {self._origin.host}:{self._origin.port}"
        )
        self._dialing.add(task)

    async def _dial(self, waiter: _Waiter, connect_s: float) -> None:
        task = cast("asyncio.Task[None]", asyncio.current_task())
        error: GatewayError | None = None
        upstream: Upstream | None = None
        try:
            async with asyncio.timeout(connect_s):
                upstream = await self._dialer.dial(self._origin, self._ca_file, lambda: Upstream(self))
        except TimeoutError:
            error = GatewayError(UPSTREAM_TIMEOUT, f"no connection to the provider within {connect_s:g} s")
        except (OSError, ssl.SSLError, ssl.CertificateError) as cause:
            error = GatewayError(UPSTREAM_UNREACHABLE, f"the provider cannot be reached: {_reason(cause)}")
        finally:
            self._dialing.discard(task)
        if upstream is not None:
            self._members.add(upstream)
            if waiter.left:  # the call has gone: the connection serves the next one
                self.put(upstream)
            else:
                waiter.ready.set(upstream)
        elif error is not None:
            waiter.ready.fail(error)


class _Waiter:
    """A call that waits for a connection."""

    __slots__ = ("due", "left", "pool", "ready", "slot")

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.ready: Signal[Upstream] = Signal()
        self.left = False
        self.due = NEVER
        self.slot = -1

    def expire(self, now: float) -> None:
        self.left = True
        limit = self.pool._limits
        self.ready.fail(
            GatewayError(
                POOL_FULL,
                f"all {limit.max_connections} connections to the provider are busy "
                f"and none came free within {limit.wait_s:g} s",
                retry_after=1,
            )
        )


def _reason(error: BaseException) -> str:
    """An OS error in words, without addresses of ours."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return type(error).__name__


class Transport:
    """All pools of this process."""

    def __init__(self, directory: Directory, dialer: Dialer, wheel: Wheel) -> None:
        self._directory = directory
        self._dialer = dialer
        self._wheel = wheel
        self._pools: dict[tuple[Origin, str | None, PoolLimits], Pool] = {}
        self._routes: dict[tuple[int, str, str], tuple[Pool, bytes, Provider]] = {}
        self._secrets: object = None

    def route(self, attempt: Attempt, path: str) -> tuple[Pool, bytes]:
        """The pool and the unchanging part of the request head: request line, host, credential, provider's headers.

        Kept while the keys stay the same; the only place that a key is looked up.
        Raises GatewayError where the account's key is not known (control is away and only the store has it).
        """
        if self._secrets is not self._directory.secrets:
            self._secrets = self._directory.secrets
            self._routes.clear()
        provider = attempt.target.provider
        account = attempt.account.id if attempt.account is not None else ""
        key = (id(provider), account, path)
        found = self._routes.get(key)
        if found is not None and found[2] is provider:  # an id alone may be a dead provider's
            return found[0], found[1]
        pool, head = self._make_route(provider, account, path)
        if len(self._routes) > 4096:
            self._routes.clear()
        self._routes[key] = (pool, head, provider)
        return pool, head

    def _make_route(self, provider: Provider, account: str, path: str) -> tuple[Pool, bytes]:
        secret = ""
        if provider.auth != "none":
            found = self._directory.secrets.get(account)
            if found is None:
                raise GatewayError(
                    NO_PROVIDER_KEY,
                    f"no key for the provider {provider.name!r} is known here yet; "
                    "add one under providers: in the configuration, or try again shortly",
                    retry_after=2,
                )
            secret = found
        lines, query = credential(provider.auth, secret)
        origin = origin_of(provider.base_url)
        pool_key = (origin, provider.ca_file, provider.pool)
        pool = self._pools.get(pool_key)
        if pool is None:
            pool = self._pools[pool_key] = Pool(origin, provider, self._dialer, self._wheel)
        target = origin.path + path + (f"?{query}" if query else "")
        proxy = self._dialer.plain_proxy(origin)
        if proxy is not None:
            target = f"http://{origin.authority}{target}"
            lines += proxy.authorization
        head = _HEAD % (
            target.encode(), origin.authority.encode(), USER_AGENT, lines,
        )  # fmt: skip
        for name, value in provider.headers.items():
            head += f"{name}: {value}\r\n".encode()
        return pool, head

    def secrets_of(self, attempt: Attempt) -> tuple[str, ...]:
        """What must not appear in a text that an upstream wrote and a client reads."""
        found = self._directory.secrets.get(attempt.account.id) if attempt.account is not None else None
        return (found,) if found else ()

    def gauges(self) -> dict[str, float]:
        return {
            "upstream_connections": sum(pool.size for pool in self._pools.values()),
            "upstream_idle": sum(len(pool._idle) for pool in self._pools.values()),
        }

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()


def request_head(fixed: bytes, forwarded: bytes, stream: bool, length: int) -> bytes:
    """The whole head of an upstream request."""
    accept = b"text/event-stream" if stream else b"application/json"
    return b"%b%bAccept: %b\r\nContent-Length: %d\r\n\r\n" % (fixed, forwarded, accept, length)
