"""The feed of closed receipts: listeners get each batch of rows after the transaction that wrote it.

Owns a bounded queue and a task per listener, so that one that is slow or fails costs the recorder an append.  Where a
listener's queue is full, its oldest batch is dropped and counted; the store has every row.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

import structlog

from headgate.control.ingest.receipts import Batch

WAITING = 256  # batches of one listener: a minute's, at four a second
CLOSE_S = 1.0

Listener = Callable[[Batch], Awaitable[None]]
log = structlog.get_logger("headgate.feed")


class Feed:
    """``listen`` before the recorder starts, or at any time later: what was committed earlier is not repeated."""

    def __init__(self) -> None:
        self._lanes: list[_Lane] = []

    def listen(self, name: str, listener: Listener) -> None:
        """Call ``listener`` with every batch from now on, in a task of its own."""
        self._lanes.append(_Lane(name, listener))

    def publish(self, batch: Batch) -> None:
        """Hand a committed batch to every listener.  Never waits, never raises."""
        for lane in self._lanes:
            lane.put(batch)

    @property
    def dropped(self) -> dict[str, int]:
        """Batches that were dropped, by listener."""
        return {lane.name: lane.dropped for lane in self._lanes}

    async def close(self) -> None:
        """Give the listeners CLOSE_S seconds for the batches that wait, then end them."""
        tasks = [task for lane in self._lanes if (task := lane.task) is not None]
        if tasks:
            _done, late = await asyncio.wait(tasks, timeout=CLOSE_S)
            for task in late:
                task.cancel()
            await asyncio.wait(tasks)


class _Lane:
    """One listener.  ``task`` runs while batches wait."""

    def __init__(self, name: str, listener: Listener) -> None:
        self.name = name
        self.dropped = 0
        self.task: asyncio.Task[None] | None = None
        self._listener = listener
        self._waiting: deque[Batch] = deque()

    def put(self, batch: Batch) -> None:
        if len(self._waiting) >= WAITING:
            self._waiting.popleft()
            self.dropped += 1
        self._waiting.append(batch)
        if self.task is None:
            self.task = asyncio.create_task(self._run(), name=f"feed {self.name}")

    async def _run(self) -> None:
        try:
            while self._waiting:
                try:
                    await self._listener(self._waiting.popleft())
                except Exception as error:  # noqa: BLE001  (a listener's defect is not the recorder's)
                    log.error("a listener of the feed failed", listener=self.name, error=repr(error))
        finally:
            self.task = None
