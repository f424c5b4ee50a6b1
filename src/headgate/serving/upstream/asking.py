"""A request on its way to a provider by HTTP, with the call that waits for the answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from headgate import ports
from headgate.errors import POOL_FULL, GatewayError
from headgate.model import ConnectionLimits, Timeouts
from headgate.serving.loop.fiber import Signal
from headgate.serving.loop.wheel import NEVER


class WaitingLine(Protocol):
    """The part of the pool that an asking needs: its place among those that wait for a connection."""

    limits: ConnectionLimits

    def forget(self, asking: HttpAsking) -> None:
        """Remove an asking that no longer waits."""


class Lane(ports.Upstream, Protocol):
    """The part of its connection that an asking needs."""

    def release(self, *, finished: bool) -> None:
        """Give the connection back: the call is done with it."""


class HttpAsking(Signal[ports.Upstream]):
    """Implements ``ports.Asking``; waits for a connection if the pool has none."""

    upstream: Lane | None = None
    left = False  # true if the call no longer waits
    headers: Mapping[bytes, bytes] = {}  # the client's; an allow-list decides which are sent
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
