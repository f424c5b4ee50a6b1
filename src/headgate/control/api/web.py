"""The admin API on uvicorn, as the control process runs it: on a socket and with signals that are not uvicorn's
business.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn

from headgate.control.api.access.door import Hosts
from headgate.control.api.app import build
from headgate.control.api.parts import Admin

GRACE_S = 3  # for answers that are on their way when control ends


class AdminServer(uvicorn.Server):
    """Leaves the signals to the process, which has more to end than this.  ``up`` is set once it answers."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()
        self._end = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()

    def stop(self) -> None:
        """``serve`` then returns, once the answers that are on their way have left."""
        self.should_exit = True
        self._end.set()

    async def main_loop(self) -> None:
        """Ticks once a second (for the Date header) where uvicorn does ten times: that would be half of what an idle
        control process costs.
        """
        counter = 0
        while not await self.on_tick(counter):
            counter = (counter + 10) % 864_000
            try:
                async with asyncio.timeout(1.0):
                    await self._end.wait()
            except TimeoutError:
                continue

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def server(admin: Admin, admin_token: str, bound: str) -> AdminServer:
    """Ready to ``serve(sockets=[…])``.  ``bound``: the configured address."""
    hosts = Hosts(bound, frozenset(admin.access.allowed_hosts))
    return AdminServer(
        uvicorn.Config(
            build(admin, admin_token, hosts),
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=GRACE_S,
        )
    )
