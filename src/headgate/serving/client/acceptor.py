"""The accept loop of this process's listening socket.

Owns the number of connections accepted in one turn of the loop, and the behaviour without free file descriptors.
uvloop accepts one connection per turn.  At 600 running streams a turn is long: a new stream waited 5 s for its first
byte, and 0.3 s with 16 connections per turn.  In contrast, asyncio accepts the whole backlog in one turn, so running
streams wait.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable

PER_TURN = 16
BACKLOG = 4096
RETRY_S = 1.0  # until the next accept, when there was no descriptor or no memory for one

# Errors of one connection: its client left, or the network reported an error for it (accept(2) lists these).
_OF_ONE = frozenset(
    (
        errno.ECONNABORTED, errno.ENETDOWN, errno.EPROTO, errno.ENOPROTOOPT, errno.EHOSTDOWN, errno.EHOSTUNREACH,
        errno.EOPNOTSUPP, errno.ENETUNREACH, errno.ETIMEDOUT, errno.EPERM,
    )
)  # fmt: skip

log = logging.getLogger("headgate.listener")


class Acceptor:
    """Accepts connections from a bound socket and gives each a protocol of ``make_protocol``."""

    def __init__(self, sock: socket.socket, make_protocol: Callable[[], asyncio.BaseProtocol]) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._make_protocol = make_protocol
        self._opening: set[asyncio.Task[None]] = set()  # each ends when its connection has a transport
        self._short = False  # no connection could be accepted, and that was logged
        self._retry: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Listen, and accept from the next turn on.  Other processes may accept from the same socket."""
        self._sock.setblocking(False)
        self._sock.listen(BACKLOG)
        self._loop.add_reader(self._sock, self._accept)

    def close(self) -> None:
        """Stop accepting.  Connections in the backlog stay there for the processes that share the socket; else they
        are refused.
        """
        if self._retry is not None:
            self._retry.cancel()
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock)
            self._sock.close()

    async def opened(self) -> None:
        """Return when each connection that was accepted has its protocol."""
        if self._opening:
            await asyncio.wait(self._opening)

    def _accept(self) -> None:
        for _ in range(PER_TURN):
            try:
                sock, _address = self._sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _OF_ONE:
                    continue
                self._pause(error)
                return
            if self._short:
                self._short = False
                log.warning("accepting connections again")
            sock.setblocking(False)
            task = self._loop.create_task(self._open(sock), name="open an accepted connection")
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _open(self, sock: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._make_protocol, sock)
        except OSError as error:  # it was reset in the meantime
            log.debug("an accepted connection could not be opened: %s", error)
            sock.close()

    def _pause(self, error: OSError) -> None:
        """Leave the rest in the backlog for a moment: the socket stays readable, and accepting at once would spin.

        Log it once, until a connection is accepted again.
        """
        if not self._short:
            self._short = True
            hint = "; raise the limit of open files (ulimit -n)" if error.errno in (errno.EMFILE, errno.ENFILE) else ""
            log.error("new connections wait, because none can be accepted: %s%s", error, hint)
        self._loop.remove_reader(self._sock)
        self._retry = self._loop.call_later(RETRY_S, self._resume)

    def _resume(self) -> None:
        self._retry = None
        self._loop.add_reader(self._sock, self._accept)
