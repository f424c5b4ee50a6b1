"""What a data process is told of the time before it: what every holder of a limit or budget had used."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from headgate.control.ingest.recorder import Recorder
from headgate.control.ledger.spend import Life, spending
from headgate.model import Snapshot
from headgate.process.channel import Hello, SpentBefore

PER_PART = 500  # with a full minute's entries about 600 KB; without, some 30 KB
RETRY_S = 1.0

log = structlog.get_logger("headgate.recorder")


class SpentSource:
    """What answers a Hello whose counters have begun anew."""

    def __init__(self, engine: AsyncEngine, recorder: Recorder, snapshot: Callable[[], Snapshot]) -> None:
        self._engine = engine
        self._recorder = recorder
        self._snapshot = snapshot

    async def __call__(self, hello: Hello) -> list[SpentBefore]:
        """Wait until the processes before it have ended and are in the store, and until the store can be read: what is
        not known is never taken for nothing.
        """
        life = Life(f"{hello.worker}-{hello.boot_id}", hello.since)
        while True:
            try:
                await self._recorder.catch_up_with_the_dead(life.boot)
                found = await spending(self._engine, self._snapshot(), time.time(), life)
            except Exception as error:  # noqa: BLE001  (without it the gateway would stay closed to hard budgets)
                log.warning("what budgets have spent cannot be read; trying again", error=repr(error))
                await asyncio.sleep(RETRY_S)
                continue
            used = [one for one in found.spent if one.spent or one.today or one.recent]
            pieces = [tuple(used[start : start + PER_PART]) for start in range(0, len(used), PER_PART)] or [()]
            log.info("counters restored", worker=hello.worker, holders=len(used))
            return [SpentBefore(piece is pieces[-1], piece) for piece in pieces]
