"""The client side: the listening socket, and every connection that came in through it.

Owns the set of connections and their end when the process drains.  ``connection`` reads and answers on each;
the Application decides the meaning of a request.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from email.utils import formatdate

from headgate.model import Limits
from headgate.serving.client.acceptor import Acceptor
from headgate.serving.client.application import Application
from headgate.serving.client.arrival import Bodies
from headgate.serving.client.connection import Connection
from headgate.serving.loop.turn import Turn
from headgate.serving.loop.wheel import Wheel
from headgate.wire.http import Request

FLUSH_S = 1.0  # for the last bytes: a second signal leaves two seconds for all steps

log = logging.getLogger("headgate.listener")


class Listener:
    """The listening socket of this process and all its connections."""

    def __init__(self, app: Application, wheel: Wheel, turn: Turn, limits: Limits) -> None:
        self.app = app
        self.turn = turn
        self.wheel = wheel
        self.limits = limits
        self.bodies = Bodies(max(limits.max_bodies, limits.max_body))
        self.connections: set[Connection] = set()
        self.draining = False
        self._acceptor: Acceptor | None = None
        self._idle: asyncio.Event = asyncio.Event()
        self._date_at = 0.0
        self._date = b""

    def start(self, sock: socket.socket) -> None:
        """Serve on a bound socket."""
        self._acceptor = Acceptor(sock, lambda: Connection(self))
        self._acceptor.start()

    def date(self) -> bytes:
        """Return the Date line (RFC 9110 §6.6.1), made once a second."""
        now = self.wheel.now
        if now - self._date_at >= 0.5:
            self._date_at = now
            self._date = b"Date: " + formatdate(usegmt=True).encode() + b"\r\n"
        return self._date

    def refuses_when_draining(self, request: Request) -> bool:
        """False for health checks: they are answered until the end."""
        return request.method == b"POST"

    async def drain(self, seconds: float) -> None:
        """Stop accepting, and let running responses finish within ``seconds``."""
        self.draining = True
        if self._acceptor is not None:
            self._acceptor.close()
            await self._acceptor.opened()
        for connection in list(self.connections):
            connection.close_if_idle()
        self.app.drain()
        self.check_idle()
        if not await self._all_closed(seconds):
            log.warning("%d connections did not finish within %.0f s of draining", len(self.connections), seconds)

    async def close(self) -> None:
        """Cut every connection that has not taken its last bytes within a second, and wait for its end."""
        if not await self._all_closed(FLUSH_S):
            for connection in list(self.connections):
                connection.transport.abort()
            await self._all_closed(FLUSH_S)

    async def _all_closed(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        return self._idle.is_set()

    def check_idle(self) -> None:
        if self.draining and not self.connections:
            self._idle.set()
