"""The upstream side: pools of HTTP/1.1 connections, and the one door to the providers' keys (wire.signing).

Owns the choice of a connection for a request, and the number of connections.  A failure to connect leaves here as a
GatewayError, translated once.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import cast

from headgate.errors import NO_PROVIDER_KEY, UPSTREAM_RESET, UPSTREAM_TIMEOUT, UPSTREAM_UNREACHABLE, GatewayError
from headgate.model import Attempt, ConnectionLimits, Provider, Rendered
from headgate.model.bounded import Bounded
from headgate.ports import Directory
from headgate.serving.loop.turn import Turn
from headgate.serving.loop.wheel import Wheel
from headgate.serving.upstream.asking import HttpAsking
from headgate.serving.upstream.connection import HttpUpstream
from headgate.serving.upstream.dialler import Dialer, UpstreamOrigin, origin_of
from headgate.wire.http import TRANSPORT_FIELDS, forwardable, forwarded, with_family
from headgate.wire.signing import credential, header_values, hidden_values

USER_AGENT = "headgate"
_HEAD = b"POST %b HTTP/1.1\r\nHost: %b\r\nAccept-Encoding: identity\r\nContent-Type: application/json\r\n%b"
MOST_ROUTES = 4096

_monotonic = time.monotonic


class Pool:
    """The connections to one origin.  ``size`` counts running, idle and being made."""

    def __init__(self, origin: UpstreamOrigin, provider: Provider, dialer: Dialer, wheel: Wheel, turn: Turn) -> None:
        self.wheel = wheel
        self.turn = turn
        self._origin = origin
        self.limits = provider.pool
        self._ca_file = provider.ca_file
        self._dialer = dialer
        self._idle: dict[HttpUpstream, None] = {}  # in order of use
        self._members: set[HttpUpstream] = set()
        self._waiting: OrderedDict[HttpAsking, None] = OrderedDict()  # a call that leaves is removed
        self._dialing: set[asyncio.Task[None]] = set()
        self._freed: dict[Callable[[], None], None] = {}  # to be called when there may be a place again
        self._trusted_since = float("-inf")  # older connections were checked by other authorities

    @property
    def size(self) -> int:
        return len(self._members) + len(self._dialing)

    def is_full(self, freed: Callable[[], None]) -> bool:
        """See ``ports.Carrier``."""
        full = not self._idle and self.size >= self.limits.max_connections
        if full:
            self._freed[freed] = None
        return full

    def ask(self, asking: HttpAsking) -> None:
        """Send a request on the connection used last, on a new one, or on the next that becomes free."""
        asking.queued = _monotonic()
        idle = self._idle
        now = self.wheel.now
        while idle:
            upstream, _ = idle.popitem()
            if now - upstream.opened_at < self.limits.max_age_s and upstream.open:
                upstream.send(asking)
                return
            upstream.abort()
        if self.size < self.limits.max_connections:
            self.dial(asking)
        else:
            self._waiting[asking] = None
            self.wheel.set(asking, min(now + self.limits.wait_s, asking.deadline))

    def dial(self, asking: HttpAsking) -> None:
        """Make a connection for a request, in a task of this pool."""
        task = asyncio.get_running_loop().create_task(
            self._dial(asking), name=f"connect {self._origin.host}:{self._origin.port}"
        )
        self._dialing.add(task)

    def put(self, upstream: HttpUpstream) -> None:
        """Take back a clean connection."""
        if self.wheel.now - upstream.opened_at >= self.limits.max_age_s or upstream.opened_at < self._trusted_since:
            upstream.abort()  # a waiting call gets a new one in its place
            return
        asking = self._next_waiting() if self._waiting else None
        if asking is not None:
            asking.queued = _monotonic()
            upstream.send(asking)
            return
        self._idle[upstream] = None
        self.wheel.set(upstream, self.wheel.now + self.limits.idle_s)
        if self._freed:
            self._tell_freed()

    def lost(self, upstream: HttpUpstream) -> None:
        """Free the place of a connection that is closed or will be."""
        if upstream in self._members:
            self._members.discard(upstream)
            self._idle.pop(upstream, None)
            self._fill_place()

    def forget(self, asking: HttpAsking) -> None:
        """Remove a call that no longer waits for a connection."""
        self._waiting.pop(asking, None)
        self.wheel.drop(asking)

    def _fill_place(self) -> None:
        """Use a free place: make a new connection for the call that has waited longest."""
        if self._waiting and self.size < self.limits.max_connections:
            asking = self._next_waiting()
            if asking is not None:
                asking.queued = _monotonic()
                self.dial(asking)
        if self._freed:
            self._tell_freed()

    def _tell_freed(self) -> None:
        told, self._freed = self._freed, {}
        for freed in told:
            freed()

    def _next_waiting(self) -> HttpAsking | None:
        if not self._waiting:
            return None
        asking, _ = self._waiting.popitem(last=False)
        self.wheel.drop(asking)
        return asking

    def distrust(self, ca_files: Collection[str | None]) -> None:
        """Stop the reuse of present connections, if their authorities are among ``ca_files``."""
        if self._origin.tls and self._ca_file in ca_files:
            self._trusted_since = self.wheel.now
            for upstream in list(self._idle):
                upstream.abort()

    def close(self) -> None:
        for task in self._dialing:
            task.cancel()
        for upstream in list(self._members):
            upstream.abort()

    async def _dial(self, asking: HttpAsking) -> None:
        task = cast("asyncio.Task[None]", asyncio.current_task())
        error: GatewayError | None = None
        upstream: HttpUpstream | None = None
        connect_s = max(0.0, min(asking.timeouts.connect, asking.deadline - _monotonic()))
        try:
            async with asyncio.timeout(connect_s):
                upstream = await self._dialer.dial(self._origin, self._ca_file, lambda: HttpUpstream(self))
        except TimeoutError:
            error = GatewayError(UPSTREAM_TIMEOUT, f"no connection to the provider within {connect_s:.3g} s")
        except (OSError, ssl.SSLError, ssl.CertificateError) as cause:
            error = GatewayError(UPSTREAM_UNREACHABLE, f"the provider cannot be reached: {_reason(cause)}")
        finally:
            self._dialing.discard(task)
        if upstream is not None and not upstream.open:  # already closed: connection_lost will not be called again
            upstream, error = (
                None,
                GatewayError(UPSTREAM_RESET, "the provider closed the connection before it answered"),
            )
        if upstream is not None:
            self._members.add(upstream)
            if asking.left:  # the call has gone: the connection serves the next one
                self.put(upstream)
            else:
                upstream.send(asking)
        elif error is not None:
            self._fill_place()
            asking.fail(error)


def _reason(error: BaseException) -> str:
    """Return an OS error in words, without local addresses."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    if isinstance(error, (ssl.SSLError, socket.gaierror)):
        return (error.strerror or type(error).__name__).lower()
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()  # asyncio's own text has the address in it
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return "none of its addresses answers"


Route = tuple[Pool, bytes, tuple[bytes, ...], Provider]


class Transport:
    """All pools of this process."""

    def __init__(self, directory: Directory, dialer: Dialer, wheel: Wheel, turn: Turn) -> None:
        self._turn = turn
        self._directory = directory
        self._dialer = dialer
        self._wheel = wheel
        self._pools: dict[tuple[UpstreamOrigin, str | None, ConnectionLimits], Pool] = {}
        self._routes: Bounded[tuple[int, str, str], Route] = Bounded(MOST_ROUTES)
        self._secrets: object = None

    def ask(
        self,
        attempt: Attempt,
        rendered: Rendered,
        headers: dict[bytes, bytes],
        stream: bool,
        deadline: float,
        max_answer: int,
    ) -> HttpAsking:
        """Send an attempt's request, and return its asking; await that.

        ``headers`` are the client's; those that the provider's row allows are sent too.  Raises GatewayError if the
        account's key is not known.
        """
        pool, fixed, allowed, _ = self._route(attempt, rendered.path)
        body = rendered.body
        accept = b"text/event-stream" if stream else b"application/json"
        fields = rendered.fields
        if fields:
            fields = with_family(fields, headers, rendered.passes, attempt.target.provider.headers)
        head = b"%b%b%bAccept: %b\r\nContent-Length: %d\r\n\r\n" % (
            fixed, fields, forwarded(headers, allowed), accept, len(body),
        )  # fmt: skip
        asking = HttpAsking(pool, head, body, stream, attempt.target.timeouts, deadline, max_answer)
        asking.headers = headers
        pool.ask(asking)
        return asking

    def _route(self, attempt: Attempt, path: str) -> Route:
        """Return the pool, the constant part of the request head, the names of the client's headers that may go
        along, and the provider.  The constant part is request line, host, credential and the provider's headers.

        Kept while the keys stay the same; the only place that a key is looked up.
        Raises GatewayError if the account's key is not known (control is away and only the store has it).
        """
        if self._secrets is not self._directory.secrets:
            self._secrets = self._directory.secrets
            self._routes.clear()
        provider = attempt.target.provider
        account = attempt.account.id if attempt.account is not None else ""
        key = (id(provider), account, path)
        found = self._routes.get(key)
        if found is not None and found[3] is provider:  # the id alone may belong to a provider object that was freed
            return found
        pool, head = self._make_route(provider, account, path)
        route = (pool, head, forwardable(provider.forward_headers, provider.headers), provider)
        self._routes.put(key, route)
        return route

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
            pool = self._pools[pool_key] = Pool(origin, provider, self._dialer, self._wheel, self._turn)
        target = origin.path + path + (f"{'&' if '?' in path else '?'}{query}" if query else "")
        proxy = self._dialer.plain_proxy(origin)
        if proxy is not None:
            target = f"http://{origin.authority}{target}"
            lines += proxy.authorization
        head = _HEAD % (target.encode(), origin.authority.encode(), lines)
        for name, value in self._headers(provider).items():
            head += f"{name}: {value}\r\n".encode()
        return pool, head

    def _headers(self, provider: Provider) -> dict[str, str]:
        found = header_values(provider.name, provider.headers, self._directory.secrets)
        if found is None:
            raise GatewayError(
                NO_PROVIDER_KEY,
                f"the headers of the provider {provider.name!r} are not known here yet; try again shortly",
                retry_after=2,
            )
        # A store or a snapshot of an earlier release may contain a field that the transport writes itself
        own = {name: value for name, value in found.items() if name.lower() not in TRANSPORT_FIELDS}
        replaced = "user-agent" in {name.lower() for name in (*own, *provider.forward_headers)}
        return own if replaced else {"User-Agent": USER_AGENT, **own}

    def check_trust(self) -> None:
        """Called once a second: stop the reuse of connections whose CA file has changed."""
        if changed := self._dialer.changed():
            for pool in self._pools.values():
                pool.distrust(changed)

    def is_full(self, attempt: Attempt, freed: Callable[[], None]) -> bool:
        """See ``ports.Carrier``."""
        provider = attempt.target.provider
        pool = self._pools.get((origin_of(provider.base_url), provider.ca_file, provider.pool))
        return pool is not None and pool.is_full(freed)

    def secrets_of(self, attempt: Attempt) -> tuple[str, ...]:
        """Return the secrets that must not appear in an upstream's text that a client reads."""
        account, provider = attempt.account, attempt.target.provider
        if account is None and not provider.headers:
            return ()
        secrets = self._directory.secrets
        found = secrets.get(account.id) if account is not None else None
        own = (found,) if found else ()
        return (*own, *hidden_values(provider.name, provider.headers, secrets)) if provider.headers else own

    def gauges(self) -> dict[str, float]:
        return {
            "upstream_connections": sum(pool.size for pool in self._pools.values()),
            "upstream_idle": sum(len(pool._idle) for pool in self._pools.values()),
        }

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()
