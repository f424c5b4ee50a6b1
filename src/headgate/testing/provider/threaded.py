"""The provider for tests without an event loop of their own: the same server, in a thread that ends with the block."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection, Iterator
from concurrent.futures import Future
from contextlib import contextmanager

from headgate.testing.provider.provider import Provider, serve


@contextmanager
def serve_in_thread(port: int = 0, *, keys: Collection[str] = (), keep: int = 10_000) -> Iterator[Provider]:
    """As ``serve``, from plain code.  The caller's thread may use ``requests`` and ``reset``, but not ``until``.

    Raises OSError where it cannot listen.
    """
    started: Future[tuple[Provider, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def main() -> None:
        stop = asyncio.Event()
        async with serve(port=port, keys=keys, keep=keep) as provider:
            started.set_result((provider, asyncio.get_running_loop(), stop))
            await stop.wait()

    def live() -> None:
        try:
            asyncio.run(main())
        except OSError as error:
            started.set_exception(error)

    thread = threading.Thread(target=live, name="headgate.testing provider", daemon=True)
    thread.start()
    provider, loop, stop = started.result(10)
    try:
        yield provider
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
