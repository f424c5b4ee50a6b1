"""A request on its way to a provider by HTTP: what is sent, and who waits for the answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from headgate import ports
from headgate.errors import POOL_FULL, GatewayError
from headgate.model import ConnectionLimits, Timeouts
from headgate.serving.loop.fiber import Signal
from headgate.serving.loop.wheel import NEVER


class WaitingLine(Protocol):
    """What an asking needs of its pool: a place among those that wait for a connection."""

    limits: ConnectionLimits

    def forget(self, asking: HttpAsking) -> None:
        """Take an asking out that waits no more."""


class Lane(ports.Upstream, Protocol):
    """What an asking needs of the connection that it went out on."""

    def release(self, *, finished: bool) -> None:
        """The call is done with it."""


class HttpAsking(Signal[ports.Upstream]):
    """Implements ``ports.Asking``; waits for a connection where the pool has none."""

    upstream: Lane | None = None
    left = False  # no call waits any more
    headers: Mapping[bytes, bytes] = {}  # the client's, of which some went along
    queued = connected = 0.0
    due = NEVER  # of the wait for a connection
    slot = -1

    def __init__(
        self,
        pool: WaitingLine,
        head: bytes,
        body: bytes,
        stream: bool,
        timeouts: Timeouts,
        deadline: float,
        max_answer: int,
    ) -> None:
        self.pool = pool
        self.head = head
        self.body = body
        self.stream = stream
        self.timeouts = timeouts
        self.deadline = deadline
        self.max_answer = max_answer

    def release(self, *, finished: bool) -> None:
        """See ``ports.Asking``."""
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
